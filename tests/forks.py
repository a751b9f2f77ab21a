"""Jobs and local servers as forks of a process that has imported their libraries once.

A new interpreter takes 0.3 s of CPU time or more until it has imported numpy, pyarrow or Dask. All tests of one
pytest-xdist worker share one fork server of `multiprocessing`, which imports them (`tests/fork_server_preload.py`).
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from microjobs.contract import BASE_DIR_VARIABLE, Layout
from tests.conftest import CONTAINERS, REPOSITORY

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.fork_server_preload"])


class Fork:
    """A forked process with the methods of `subprocess.Popen`. Its output and its errors are one stream."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | None = None,
        log: Path | None = None,
        *,
        starts_session: bool = False,
    ) -> None:
        """Start `python -m NAME ARGUMENT...` or `python -c CODE ARGUMENT...`; the command is without `python`.

        Args:
            folder: working directory of the process; None: the working directory of this process.
            log: file to which the output is appended; None: the test reads the output from the attribute `stdout`.
            starts_session: whether the process starts a new session.
        """
        reader, writer = CONTEXT.Pipe(duplex=False)
        with reader, writer:
            self.stdout = os.fdopen(os.dup(reader.fileno()))
            arguments = (list(command), dict(environment), folder or Path.cwd(), log or writer, starts_session)
            self._process = CONTEXT.Process(target=_become_program, args=arguments)
            self._process.start()
        if log is not None:
            self.stdout.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Read the output, and wait for the end of the process. A second call returns no output."""
        if self.stdout.closed:
            self.wait(timeout)
            return "", None
        outputs: list[str] = []
        reader = threading.Thread(target=lambda: outputs.append(self.stdout.read()), daemon=True)
        reader.start()
        reader.join(timeout)
        if reader.is_alive():
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        self.stdout.close()
        self.wait(timeout)
        return outputs[0], None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_job(job: str, layout: Layout, *arguments: str, **variables: str) -> Fork:
    """Start a job as its image does, with the contract's files below `layout.root`."""
    return Fork(["-m", "microjobs", *arguments], make_job_environment(job, layout) | variables)


def make_job_environment(job: str, layout: Layout) -> dict[str, str]:
    """Return this process' environment with the variables of the image of a job."""
    return {
        **os.environ,
        "MICROJOBS_JOB": str(CONTAINERS / job),
        "PYTHONPATH": str(REPOSITORY / "shared"),
        BASE_DIR_VARIABLE: str(layout.root),
    }


def _become_program(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    output: Connection | Path,
    starts_session: bool,
) -> None:
    """Run the command in this process, with the state that a new process would have."""
    if starts_session:
        os.setsid()
    with output.open("ab") if isinstance(output, Path) else output as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    # This process has the start method of the test's process. A program that has just started has none.
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # an imported library may have chosen the folder from the environment of another process
    os.chdir(folder)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    option, program, *arguments = command
    sys.argv[:] = [option, *arguments]
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(program, {"__name__": "__main__"})  # noqa: S102  the code comes from a test
