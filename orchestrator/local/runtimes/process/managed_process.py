"""A program that ends with this server, however the server ends: started, followed and stopped from here."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import Line
from microjobs_orchestrator.local.runtimes.process import process_shim

POLL_SECONDS = 0.05
KILL_SECONDS = 10.0
"""What a keeper has to end, after the grace of its program, until it is killed."""

OF_THE_CALLER = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ")
"""What a program gets of the caller's environment, with what says the language. Nothing else: who knows which of it is
a secret."""


def callers_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The part of an environment that is nobody's secret."""
    return {
        name: value for name, value in environ.items() if name in OF_THE_CALLER or name == "LANG" or name[:3] == "LC_"
    }


class Kept:
    """A program and its keeper (`process_shim`).

    Args:
        command: starts with the program's absolute path.
        environment: all of it; besides, TMPDIR, and what else `scratch` names, is a folder that goes with the program.
        log: the file for its output.
        cpus: those that it may use; none: any.
        hold: file descriptors that stay open until the last process has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        scratch: Iterable[str] = (),
        cpus: Iterable[int] = (),
        hold: Sequence[int] = (),
    ) -> None:
        self.scratch = folder = tempfile.mkdtemp(
            prefix="microjobs-"
        )  # not below the log: names of sockets have 107 bytes
        self._log = log
        try:
            log.touch()
            self._keeper = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", process_shim.__file__),
                    *(str(log), folder, ",".join(map(str, cpus))),
                    *command,
                ],
                cwd=folder,
                env={**environment, **dict.fromkeys(("TMPDIR", *scratch), folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=hold,
                start_new_session=True,
            )
        except BaseException:
            process_shim.remove(folder)
            raise

    def lines(self) -> Iterator[Line]:
        """Each line, until the program has ended."""
        with self._log.open("rb") as file:
            while True:
                ended = self.code() is not None  # asked first: what came until then is read below
                while (raw := file.readline()).endswith(b"\n"):
                    stamp, _, text = raw[:-1].partition(b" ")
                    yield Line(int(stamp.rstrip(b"+")) / 1e6, text, is_whole=not stamp.endswith(b"+"))
                if ended:
                    return
                file.seek(-len(raw), os.SEEK_CUR)
                time.sleep(POLL_SECONDS)

    @property
    def pid(self) -> int:
        """Of the keeper."""
        return self._keeper.pid

    def code(self) -> int | None:
        """Its exit code, negative if somebody killed the keeper; None while it runs."""
        return self._keeper.poll()

    def wait(self) -> int:
        """Block until it has ended; `code` then."""
        code = self._keeper.wait()
        if code < 0:  # else it did so itself
            process_shim.remove(self.scratch)
        self._close()
        return code

    def stop(self, grace: float) -> int:
        """SIGTERM, and SIGKILL after `grace` seconds; `code` when it has ended."""
        with contextlib.suppress(OSError, ValueError):  # it has ended
            if self._keeper.stdin is not None:
                self._keeper.stdin.write(b"%f\n" % grace)
        self._keeper.send_signal(signal.SIGCONT)  # a program can stop its keeper
        try:
            self._keeper.wait(grace + KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
        return self.wait()

    def release(self) -> None:
        """Have it end as if this server had."""
        self._close()
        self._keeper.send_signal(signal.SIGCONT)

    def _close(self) -> None:
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
