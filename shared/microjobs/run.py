"""Runs the image's job and turns whatever happens into a log line, a failure file and an exit code.

The job is a folder (`MICROJOBS_JOB`) with one package, such as `microjobs_my_job` in `my-job`. The package's `main`
module has one function per command of the image:

    train(hyperparameters)    a training job; the package's `hyperparameters` module declares `Hyperparameters`
    serve()                   hosting and batch transform
    process(arguments)        a processing job
"""

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from microjobs import hyperparameters, interpreter, worker
from microjobs.contract import (
    BASE_DIR,
    Layout,
    decode_hyperparameter,
    read_hyperparameters,
    write_failure,
    write_message,
)
from microjobs.errors import EXIT_OK, ScriptStopped, Stopped, UserError, code_and_reason
from microjobs.stopping import received

JOB = "MICROJOBS_JOB"
LOG_LEVEL = "SAGEMAKER_CONTAINER_LOG_LEVEL"
STOPPING = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger("microjobs")


def main(arguments: Sequence[str]) -> int:
    layout = Layout.from_environment()
    # A signal may arrive while the frameworks load, so it is handled before anything else.
    for number in STOPPING:
        signal.signal(number, _stop)
    try:
        start_logging(os.environ)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # the supervisor held them back until now
        _check_root(layout)
        interpreter.complete(os.environ)
        return _run(list(arguments), layout)
    except Stopped as stopped:
        _heed_no_more_stops()
        return _stopped(stopped, training=arguments[:1] == ["train"])
    except Exception as error:
        _heed_no_more_stops()
        if received:  # native code that was being imported turns `Stopped` into an error of its own
            return _stopped(Stopped(received[0]), training=arguments[:1] == ["train"])
        return _fail(error, layout.or_default(), processing=arguments[:1] not in (["train"], ["serve"]))
    finally:
        _heed_no_more_stops()


def _check_root(layout: Layout) -> None:
    if os.environ.get(BASE_DIR) and not layout.root.is_dir():
        raise UserError(f"{BASE_DIR} {str(layout.root)!r} is not a folder: mount the job's files there, or unset it")


def _heed_no_more_stops() -> None:
    """It is known how the job ends: a late signal must not keep that from being told, nor change the exit code."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _run(arguments: list[str], layout: Layout) -> int:
    job = _Job(Path(os.environ.get(JOB) or ".").resolve())
    sys.path.insert(0, str(job.folder))
    if arguments in (["--help"], ["-h"]):
        _print_help(job)
    elif arguments == ["train"]:
        _train(job, layout)
    elif arguments == ["serve"]:
        job.command("serve")()
    elif arguments[:1] in (["train"], ["serve"]):
        raise UserError(f"{arguments[0]!r} takes no arguments, got {arguments[1:]}")
    else:
        job.command("process")(arguments)
    return EXIT_OK


def _print_help(job: "_Job") -> None:
    """Print the hyperparameters of a training image, the arguments of a processing image, or the text of a server."""
    if (declared := job.hyperparameters()) is not None:
        print(f"usage: {job.folder.name} train\n\n{hyperparameters.help_text(declared)}")
        return
    main_module = job.load_main()
    if hasattr(main_module, "process"):
        main_module.process(["--help"])
    else:
        print(f"usage: {job.folder.name} {' | '.join(_commands(main_module))}\n\n{main_module.__doc__}")


def _train(job: "_Job", layout: Layout) -> None:
    values = read_hyperparameters(layout)
    if program := decode_hyperparameter(values.get("sagemaker_program", os.environ.get("SAGEMAKER_PROGRAM", ""))):
        # Imported only here: the toolkit takes seconds, and most jobs do not need it.
        from microjobs import script_mode

        sys.path.remove(str(job.folder))  # the script must not find the job's own modules
        script_mode.train(str(program))
        return
    # Checked before the main module imports its framework, so that a typing mistake is reported at once.
    declared = job.hyperparameters()
    job.command("train")(values if declared is None else hyperparameters.load(declared, values))


@dataclass(frozen=True)
class _Job:
    """The image's own job: `folder` contains its package."""

    folder: Path

    def command(self, name: str) -> Callable[..., None]:
        """Return the function of the main module that runs the command.

        Raises:
            UserError: the image does not have this command.
        """
        main_module = self.load_main()
        function: Callable[..., None] | None = getattr(main_module, name, None)
        if function is None:
            raise UserError(f"this image does not {name}: it can {' and '.join(_commands(main_module))}")
        return function

    def load_main(self) -> ModuleType:
        if not self._has("main"):
            remedy = f"move the job's modules into that package, or set {JOB} to the folder of a job"
            raise UserError(f"{self.folder} has no {self._package}/main.py: {remedy}")
        loaded = importlib.import_module(f"{self._package}.main")
        if received:  # a library treated `Stopped` as the error of a missing optional package
            raise Stopped(received[0])
        return loaded

    def hyperparameters(self) -> type[Any] | None:
        """Return the dataclass of the job's hyperparameters; None if it declares none."""
        if not self._has("hyperparameters"):
            return None
        declared: type[Any] = importlib.import_module(f"{self._package}.hyperparameters").Hyperparameters
        return declared

    @property
    def _package(self) -> str:
        return package_name(self.folder.name)

    def _has(self, module: str) -> bool:
        return (self.folder / self._package / f"{module}.py").exists()


def package_name(job: str) -> str:
    """Return the import name of a job's package; the prefix keeps it apart from modules of users and libraries."""
    return f"microjobs_{job.replace('-', '_')}"


def _commands(main_module: ModuleType) -> list[str]:
    return [name for name in ("train", "serve", "process") if hasattr(main_module, name)]


def start_logging(environ: Mapping[str, str]) -> None:
    """Log to stderr, one line per event; the level as SDKs set it (a number such as 20, or a name).

    Raises:
        UserError: the level is neither.
    """
    text = environ.get(LOG_LEVEL) or "20"
    levels = logging.getLevelNamesMapping()
    level = int(text) if text.isdecimal() else levels.get(text.upper())
    logging.basicConfig(
        level=logging.INFO if level is None else level,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
    if level is None:
        raise UserError(f"{LOG_LEVEL} {text!r} is not a log level: use a number or one of {', '.join(levels)}")


def _stop(number: int, _frame: FrameType | None) -> None:
    received.append(number)
    _heed_no_more_stops()  # once is enough: a second one, of either kind, must not break the clean-up
    raise Stopped(number)


def _stopped(stopped: Stopped, *, training: bool) -> int:
    name = signal.Signals(stopped.signal_number).name
    if worker.report(128 + stopped.signal_number, ""):  # who started this worker says how the job ends
        return EXIT_OK
    if training and not isinstance(stopped, ScriptStopped):  # a trainer ends well once it has something to save
        logger.info("stopped by %s before the training began: start it again to train", name)
        return EXIT_OK
    logger.info("stopped by %s", name)
    return 128 + stopped.signal_number


def _fail(error: Exception, layout: Layout, *, processing: bool) -> int:
    """Log the error, write it where SageMaker looks for it, and say whose it is by the exit code."""
    code, reason = code_and_reason(error)
    if worker.report(code, reason):
        return code
    logger.error("%s", reason)
    with contextlib.suppress(OSError):  # a full or read-only disk: the log has the reason
        write_failure(layout, reason)
        if processing:
            write_message(layout, reason)
    return code


def end(code: int) -> NoReturn:
    """End the process, a trainer without taking its framework down first: that takes half a second, for nothing."""
    if sys.argv[1:] == ["train"]:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    end(main(sys.argv[1:]))
