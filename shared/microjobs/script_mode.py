"""Runs a user's own `train.py` in our image, as AWS's framework images do, with the sagemaker-training toolkit."""

import contextlib
import importlib
import logging
import signal
from types import FrameType

from microjobs.errors import JobError, UserError

logger = logging.getLogger("microjobs")


class ScriptError(JobError):
    """The user's script ended with an exit code other than 0."""


def train(program: str) -> None:
    """Run the program that the request names, with the toolkit's own arguments and environment (SM_*).

    The toolkit never handles SIGTERM; here it waits for the script, which gets the signal itself as a member of the
    process group and has the whole grace period to save its work.

    Raises:
        UserError: the program cannot be had or started.
        ScriptError: it ended with an error; the last lines of its stderr are the reason.
    """
    try:
        environment = importlib.import_module("sagemaker_training.environment").Environment()
        entry_point = importlib.import_module("sagemaker_training.entry_point")
        toolkit_errors = importlib.import_module("sagemaker_training.errors")
    except ModuleNotFoundError as error:
        raise UserError(f"cannot run {program!r}: this image has no script mode ({error})") from error
    logger.info("script mode: running %s", program)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave_to_script)
    try:
        entry_point.run(
            uri=environment.module_dir,
            user_entry_point=environment.user_entry_point,
            args=environment.to_cmd_args(),
            env_vars=environment.to_env_vars(),
            capture_error=True,
        )
    except toolkit_errors.ClientError as error:
        raise ScriptError(_reason(program, str(error))) from error
    except (ValueError, OSError) as error:
        raise UserError(f"cannot run {program!r}: {error}") from error


def _leave_to_script(number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(RuntimeError):  # a log line that was being written when the signal came
        logger.info("%s passed on to the script", signal.Signals(number).name)


def _reason(program: str, message: str) -> str:
    """The script's own last line first: FailureReason is cut after 1024 characters."""
    lines = [line for line in message.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Command ", "ExecuteUserScriptError"))]
    return f"{program} failed: {told[-1] if told else 'see the log'}\n" + "\n".join(told[-20:])
