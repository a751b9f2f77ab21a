"""A program that ends with this server, even if the server is killed. A shim, `process_shim`, runs between the server
and the program."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator.local.runtimes.base import Line
from microjobs_orchestrator.local.runtimes.process import process_shim

KILL_SECONDS = 10.0
"""Seconds for a shim to end after the grace period of its program. After this time, the shim is killed."""

INHERITED_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
)
"""Variables of the server that a program inherits, in addition to those of the locale. Any other variable may contain a
secret."""


def select_inherited_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of an environment that a program may see."""
    return {
        name: value
        for name, value in environ.items()
        if name in INHERITED_VARIABLES or name == "LANG" or name[:3] == "LC_"
    }


class ManagedProcess:
    """A running program and its shim.

    Args:
        command: starts with the program's absolute path.
        environment: the whole environment, except TMPDIR and `temporary_folder_variables`.
        temporary_folder_variables: names of variables that get the same value as TMPDIR: the path of a temporary
            folder, which is removed when the program ends.
        log: the file for the program's output.
        cpus: the CPUs that the program may use; all CPUs if this is empty.
        root: the folder that the program sees as the contract's root, if the kernel allows this; None if the program
            needs no root.
        inherited_files: file descriptors that stay open until the last process of the program has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        temporary_folder_variables: Iterable[str] = (),
        cpus: Iterable[int] = (),
        root: Path | None = None,
        inherited_files: Sequence[int] = (),
    ) -> None:
        # The folder is not next to the log, where its path could be too long: programs create sockets in this folder,
        # and a socket's path has at most 107 bytes.
        self.working_folder = folder = tempfile.mkdtemp(prefix="microjobs-")
        self._log = log
        self._changed = threading.Condition()
        self._write_count = 0
        self.exit_code: int | None = None
        """The program's exit code, negative if the shim was killed; None while the program runs."""
        shim = [sys.executable, "-I", "-S", process_shim.__file__, str(log), folder, ",".join(map(str, cpus))]
        shim += ["", ""] if root is None else [str(root), DEFAULT_ROOT]
        try:
            log.touch()
            self._shim = subprocess.Popen(
                [*shim, *command],
                cwd=folder,
                env={**environment, **dict.fromkeys(("TMPDIR", *temporary_folder_variables), folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=inherited_files,
                start_new_session=True,
            )
        except BaseException:
            process_shim.remove_working_folder(folder)
            raise
        threading.Thread(target=self._watch, name=f"watch process {self.pid}", daemon=True).start()

    def _watch(self) -> None:
        """Wake waiting threads at each write to the log and at the end."""
        assert self._shim.stdout is not None  # noqa: S101  for mypy
        with self._shim.stdout as notifications:
            while notifications.read(1 << 12):
                with self._changed:
                    self._write_count += 1
                    self._changed.notify_all()
        code = self._shim.wait()
        if code < 0:  # only a killed shim leaves the folder
            process_shim.remove_working_folder(self.working_folder)
        self.disconnect()
        with self._changed:
            self.exit_code = code
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """The process id of the shim."""
        return self._shim.pid

    def lines(self) -> Iterator[Line]:
        """Yield each line of output as soon as it is complete, until the program has ended."""
        with self._log.open("rb") as file:
            while True:
                with self._changed:
                    seen_writes, has_ended = self._write_count, self.exit_code is not None
                yield from _read_lines(file)
                if has_ended:
                    return
                with self._changed:
                    while self._write_count == seen_writes and self.exit_code is None:
                        self._changed.wait()

    def wait(self) -> int:
        """Wait until the program has ended; return its exit code."""
        with self._changed:
            self._changed.wait_for(lambda: self.exit_code is not None)
        return self.exit_code or 0

    def stop(self, grace: float) -> int:
        """Send SIGTERM, and SIGKILL after `grace` seconds; return the exit code when the program has ended."""
        with contextlib.suppress(OSError, ValueError):  # the shim may have ended
            if self._shim.stdin is not None:
                self._shim.stdin.write(b"%f\n" % grace)
        self._resume()
        with self._changed:
            if not self._changed.wait_for(lambda: self.exit_code is not None, grace + KILL_SECONDS):
                self._shim.kill()
        return self.wait()

    def disconnect(self) -> None:
        """Close the connection to the shim, which then ends the program as if the server had died."""
        if self._shim.stdin is not None:
            self._shim.stdin.close()
        self._resume()

    def _resume(self) -> None:
        """Send SIGCONT to the shim, because its program can pause it with SIGSTOP."""
        self._shim.send_signal(signal.SIGCONT)


def _read_lines(file: BinaryIO) -> Iterator[Line]:
    """Read the complete lines that a log has now. Set the file's position to the start of the first incomplete line."""
    while (raw := file.readline()).endswith(b"\n"):
        stamp, _, text = raw[:-1].partition(b" ")
        yield Line(int(stamp.rstrip(b"+")) / 1e6, text, is_whole=not stamp.endswith(b"+"))
    file.seek(-len(raw), os.SEEK_CUR)
