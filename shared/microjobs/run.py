"""Runs the image's job, and converts errors and stop signals to log lines, the failure file and the exit code.

The job is a folder (`MICROJOBS_JOB`) with one package, such as `microjobs_my_job` in `my-job`. The package's `main`
module has one function per command of the image:

    train(hyperparameters)    a training job; the package's `hyperparameters` module declares `Hyperparameters`
    serve()                   hosting and batch transform
    process(arguments)        a processing job

Every image that contains Dask also has the command `with-dask COMMAND...`; see `microjobs.dask_script`.
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
    BASE_DIR_VARIABLE,
    Layout,
    decode_hyperparameter,
    read_hyperparameters,
    write_failure,
    write_message,
)
from microjobs.errors import EXIT_OK, ScriptFailedAfterStop, Stopped, UserError, explain_error
from microjobs.stopping import received_signals

JOB_VARIABLE = "MICROJOBS_JOB"
LOG_LEVEL_VARIABLE = "SAGEMAKER_CONTAINER_LOG_LEVEL"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
COMMANDS = ("train", "serve", "process")

logger = logging.getLogger("microjobs")


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code."""
    layout = Layout.from_environment()
    # Signals may arrive while the frameworks are imported, so the handlers come first.
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        start_logging(os.environ)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the supervisor has blocked these signals
        _check_root(layout)
        interpreter.set_default_folders_and_user(os.environ)
        _run(list(arguments), layout)
        return EXIT_OK
    except Stopped as stopped:
        _ignore_stop_signals()
        return _end_stopped(stopped, is_training=arguments[:1] == ["train"])
    except Exception as error:
        _ignore_stop_signals()
        if received_signals:  # during an import, native code may convert `Stopped` to another error
            return _end_stopped(Stopped(received_signals[0]), is_training=arguments[:1] == ["train"])
        return _end_failed(
            error, layout.with_existing_root(), is_processing=arguments[:1] not in (["train"], ["serve"])
        )
    finally:
        _ignore_stop_signals()


def _check_root(layout: Layout) -> None:
    if os.environ.get(BASE_DIR_VARIABLE) and not layout.root.is_dir():
        raise UserError(
            f"{BASE_DIR_VARIABLE} {str(layout.root)!r} is not a folder: mount the job's files there, or unset it"
        )


def _ignore_stop_signals() -> None:
    """Ignore later stop signals. They must neither interrupt the end of the job nor change its exit code."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _run(arguments: list[str], layout: Layout) -> None:
    job = _Job(Path(os.environ.get(JOB_VARIABLE) or ".").resolve())
    sys.path.insert(0, str(job.folder))
    match arguments:
        case ["--help"] | ["-h"]:
            _print_help(job)
        case ["train"]:
            _train(job, layout)
        case ["serve"]:
            job.find_command("serve")()
        case ["train" | "serve" as command, *extra_arguments]:
            raise UserError(f"{command!r} takes no arguments, got {extra_arguments}")
        case ["with-dask", *command]:
            from microjobs import dask_script  # only this command needs this module

            sys.path.remove(str(job.folder))  # the user's command must not import modules of the job
            dask_script.run(command)
        case _:
            job.find_command("process")(arguments)


def _print_help(job: "_Job") -> None:
    """Print the hyperparameters of a training image, a processing image's own help, or a server's module docstring."""
    if (declaration := job.load_hyperparameters()) is not None:
        print(f"usage: {job.folder.name} train\n\n{hyperparameters.format_help(declaration)}")
        return
    main_module = job.load_main()
    if hasattr(main_module, "process"):
        main_module.process(["--help"])
    else:
        print(f"usage: {job.folder.name} {' | '.join(_list_commands(main_module))}\n\n{main_module.__doc__}")


def _train(job: "_Job", layout: Layout) -> None:
    values = read_hyperparameters(layout)
    if program := decode_hyperparameter(values.get("sagemaker_program", os.environ.get("SAGEMAKER_PROGRAM", ""))):
        from microjobs import script_mode  # the toolkit takes seconds to import, and most jobs do not need it

        sys.path.remove(str(job.folder))  # the script must not import modules of the job
        script_mode.train(str(program))
        return
    # Hyperparameters are checked before the main module imports its framework, so that a job with invalid values ends
    # immediately.
    declaration = job.load_hyperparameters()
    job.find_command("train")(values if declaration is None else hyperparameters.load(declaration, values))


@dataclass(frozen=True)
class _Job:
    """The image's own job: `folder` contains its package."""

    folder: Path

    def find_command(self, name: str) -> Callable[..., None]:
        """Return the function of the main module that runs the command.

        Raises:
            UserError: the image does not have this command.
        """
        main_module = self.load_main()
        function: Callable[..., None] | None = getattr(main_module, name, None)
        if function is None:
            raise UserError(f"this image does not {name}: it can {' and '.join(_list_commands(main_module))}")
        return function

    def load_main(self) -> ModuleType:
        if not self._has_module("main"):
            remedy = f"move the job's modules into that package, or set {JOB_VARIABLE} to the folder of a job"
            raise UserError(f"{self.folder} has no {make_package_name(self.folder.name)}/main.py: {remedy}")
        main_module = self._import_module("main")
        if received_signals:  # a library may have caught `Stopped`, and treated it as a missing optional package
            raise Stopped(received_signals[0])
        return main_module

    def load_hyperparameters(self) -> type[Any] | None:
        """Return the dataclass of the job's hyperparameters; None if it declares none."""
        return self._import_module("hyperparameters").Hyperparameters if self._has_module("hyperparameters") else None

    def _has_module(self, module: str) -> bool:
        return (self.folder / make_package_name(self.folder.name) / f"{module}.py").exists()

    def _import_module(self, module: str) -> ModuleType:
        return importlib.import_module(f"{make_package_name(self.folder.name)}.{module}")


def make_package_name(job: str) -> str:
    """Return the import name of a job's package; the prefix avoids conflicts with modules of users and libraries."""
    return f"microjobs_{job.replace('-', '_')}"


def _list_commands(main_module: ModuleType) -> list[str]:
    return [name for name in COMMANDS if hasattr(main_module, name)]


def start_logging(environ: Mapping[str, str]) -> None:
    """Log to stderr. SDKs set the level as a number such as 20, or as a name.

    Raises:
        UserError: the level is invalid.
    """
    text = environ.get(LOG_LEVEL_VARIABLE) or "20"
    levels = logging.getLevelNamesMapping()
    level = int(text) if text.isdecimal() else levels.get(text.upper())
    logging.basicConfig(
        level=logging.INFO if level is None else level,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
    if level is None:
        raise UserError(f"{LOG_LEVEL_VARIABLE} {text!r} is not a log level: use a number or one of {', '.join(levels)}")


def _stop(number: int, _frame: FrameType | None) -> None:
    received_signals.append(number)
    _ignore_stop_signals()  # a second signal must not interrupt the clean-up
    raise Stopped(number)


def _end_stopped(stopped: Stopped, *, is_training: bool) -> int:
    name = signal.Signals(stopped.signal_number).name
    if worker.report(128 + stopped.signal_number, ""):  # this process is a worker, and its parent ends the job
        return EXIT_OK
    # During the training, the trainer handles stop signals itself, so `Stopped` means that the training has not begun.
    if is_training and not isinstance(stopped, ScriptFailedAfterStop):
        logger.info("stopped by %s before the training began: start it again to train", name)
        return EXIT_OK
    logger.info("stopped by %s", name)
    return 128 + stopped.signal_number


def _end_failed(error: Exception, layout: Layout, *, is_processing: bool) -> int:
    """Log the error, write it to the files that SageMaker reads, and return the exit code."""
    code, reason = explain_error(error)
    if worker.report(code, reason):  # this process is a worker, and its parent writes the failure file
        return code
    logger.error("%s", reason)
    with contextlib.suppress(OSError):  # the disk may be full or read-only; the log has the reason
        write_failure(layout, reason)
        if is_processing:
            write_message(layout, reason)
    return code


def exit_process(code: int) -> NoReturn:
    """End the process. Training skips the shutdown of its framework, which takes half a second."""
    if sys.argv[1:] == ["train"]:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
