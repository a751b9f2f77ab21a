"""Runs a user's own `train.py` in our image, as AWS's framework images do.

The sagemaker-training toolkit fetches the code, installs its requirements, and makes the arguments and the SM_*
variables. Running the command is ours: the toolkit's way cuts lines in two where a block of output ends, imports
TensorFlow for the names of its exceptions, logs the whole environment, and has a reason only for errors it knows.
"""

import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from microjobs.contract import BASE_DIR, Layout
from microjobs.errors import JobError, PlatformError, ScriptStopped, UserError
from microjobs.stopping import stop_request

TAIL_BYTES = 16_384
"""The end of the script's stderr that is kept for the reason of a failure."""
REASON_LINES = 20
DRAIN_SECONDS = 5.0
"""What stderr is read for after the script's end, when a process that it left behind holds it open."""

TOOLKIT = ("entry_point", "environment", "errors", "process")

UNUSABLE = (FileNotFoundError, ValueError, tarfile.TarError)
"""What the toolkit lets through when configuration or code is missing or not what it should be."""

logger = logging.getLogger("microjobs")


class ScriptError(JobError):
    """The user's script ended with an exit code other than 0. The job ends with 1, as in AWS's own images."""


def train(program: str) -> None:
    """Run the program that the request names, with the toolkit's arguments and environment.

    The script is in our process group, so a stop signal reaches it; it has the whole grace period to save its work.

    Raises:
        UserError: the program cannot be had, or its requirements not be installed.
        PlatformError: another host of the job does not appear.
        ScriptError: it ended with an error; the end of its stderr is the reason.
        ScriptStopped: it ended with an error after a stop signal.
    """
    layout = Layout.from_environment()
    # The toolkit looks at this when it is imported, and makes a folder in the user's home if it is not there.
    os.environ.setdefault(BASE_DIR, str(layout.root))
    try:
        toolkit = {name: importlib.import_module(f"sagemaker_training.{name}") for name in TOOLKIT}
    except ModuleNotFoundError as error:
        raise UserError(f"cannot run {program!r}: this image has no script mode ({error})") from error
    aws_errors = importlib.import_module("botocore.exceptions")
    try:
        _run(layout, program, toolkit)
    except socket.gaierror as error:
        raise PlatformError(f"another host of the job did not appear within 15 minutes: {error}") from error
    except (toolkit["errors"].InstallRequirementsError, toolkit["errors"].InstallModuleError) as error:
        raise UserError(f"what {program!r} requires could not be installed: see pip's lines in the log") from error
    except (toolkit["errors"].ClientError, aws_errors.ClientError, aws_errors.BotoCoreError, *UNUSABLE) as error:
        raise UserError(f"cannot run {program!r}: {error}") from error


def _run(layout: Layout, program: str, toolkit: dict[str, Any]) -> None:
    _settle()
    environment = toolkit["environment"].Environment()
    # It sets the region to "" if it knows none, and boto3 takes that for one. S3 redirects from this one.
    os.environ["SAGEMAKER_REGION"] = os.environ.get("SAGEMAKER_REGION") or "us-east-1"
    if len(environment.hosts) == 1:
        # Otherwise it waits up to 15 minutes for this host's own name to resolve; outside a network it never does.
        os.environ.setdefault("SM_STUDIO_LOCAL_MODE", "True")
    _refuse_distribution(environment.additional_framework_parameters)
    for folder in (layout.model, layout.output_data):  # AWS's images promise them to the script
        folder.mkdir(parents=True, exist_ok=True)
    arguments, variables = environment.to_cmd_args(), environment.to_env_vars()
    toolkit["entry_point"].run(
        uri=_source(layout, environment.module_dir),
        user_entry_point=program,
        args=arguments,
        env_vars=variables,
        runner_type=_runner(toolkit, program, arguments, variables),
    )


def _settle() -> None:
    for chatty in ("sagemaker-training-toolkit", "sagemaker_training"):  # at INFO they report each value and step
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # pip's remarks are not the user's to act on: the container is root's, and the image chose its pip.
    os.environ.setdefault("PIP_ROOT_USER_ACTION", "ignore")
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")


def _refuse_distribution(parameters: Mapping[str, object]) -> None:
    """Each host would run the script for itself, and nobody would notice: the toolkit alone starts none of these."""
    for name, value in parameters.items():
        if name.endswith("_enabled") and value is True:
            raise UserError(f"{name} asks for a distribution that this image does not start: leave `distribution` out")


def _source(layout: Layout, uri: str) -> str:
    """Where the code is: an S3 address, or a folder or archive; a local path may start with the contract's root."""
    if uri.startswith("s3://"):
        return uri
    path = layout.local(uri.removeprefix("file://"))
    if not path.exists():
        raise UserError(f"sagemaker_submit_directory {uri!r} does not exist: name a folder, a tar.gz or an S3 address")
    return str(path)


def _runner(toolkit: dict[str, Any], program: str, arguments: Sequence[str], variables: dict[str, str]) -> Any:
    """What the toolkit's `entry_point.run` calls when the code is there: its command, our way of running it."""

    class Runner(toolkit["process"].ProcessRunner):  # type: ignore[misc]  # known only after the import
        def run(self, *_: object, **__: object) -> None:
            code = Path(toolkit["environment"].code_dir)
            if not (code / program).exists() and not (code / "setup.py").exists():
                there = ", ".join(sorted(path.name for path in code.iterdir())) or "nothing"
                raise UserError(f"sagemaker_program {program!r} is not in the code, which holds {there}")
            _execute(program, self._create_command(), code)

    return Runner(program, arguments, variables, processes_per_host=1)


def _execute(program: str, command: Sequence[str], cwd: Path) -> None:
    logger.info("script mode: %s", " ".join(command))
    with stop_request() as stop:
        process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE)
        tail = bytearray()
        reader = threading.Thread(target=_pass_through, args=(process.stderr, tail), daemon=True)
        reader.start()
        if stop.signal_number is not None:  # it came before the script was there to get it
            process.send_signal(stop.signal_number)
        code = process.wait()
        reader.join(DRAIN_SECONDS)
    if code != 0 and stop.signal_number is not None:
        raise ScriptStopped(stop.signal_number)
    if code != 0:
        raise ScriptError(_reason(program, code, tail.decode(errors="replace")))


def _pass_through(stderr: IO[bytes], tail: bytearray) -> None:
    """Copy the script's stderr to ours as it comes, progress bars without line ends too, and keep its end."""
    with stderr:
        for chunk in iter(lambda: os.read(stderr.fileno(), TAIL_BYTES), b""):
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
            tail += chunk
            del tail[:-TAIL_BYTES]


def _reason(program: str, code: int, stderr: str) -> str:
    """The script's own last line first: FailureReason is cut after 1024 characters."""
    how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        how += ", most likely out of memory"
    lines = [line for line in stderr.splitlines() if line.strip()][-REASON_LINES:]
    last = lines[-1].strip() if lines else "it wrote nothing to stderr; see the log"
    return "\n".join([f"{program} failed: {last} ({how})", *lines])
