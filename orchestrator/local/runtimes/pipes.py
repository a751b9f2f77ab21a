"""Inputs in Pipe mode: named pipes that are filled while their host runs."""

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Host, HostUsage, Line, Pipe
from microjobs_orchestrator.local.trees import Tree

logger = logging.getLogger(__name__)

FillPipe = Callable[[str, Iterable[bytes]], bool]
"""Writes chunks into the named pipe at a path, and makes the pipe if it does not exist. Returns True when the reader
has read everything or has closed the pipe, and False if the host has ended. Raises CannotRunError."""


def fill_pipes(host: Host, pipes: Sequence[Pipe], fill_pipe: FillPipe) -> Host:
    """Fill a host's pipes until the host ends. Use the returned host instead of `host`."""
    return HostWithPipes(host, pipes, fill_pipe) if pipes else host


class HostWithPipes:
    """A host with pipes that are filled while it runs. The host is stopped if a pipe cannot be filled."""

    def __init__(self, host: Host, pipes: Sequence[Pipe], fill_pipe: FillPipe) -> None:
        self.name = host.name
        self._host = host
        self._fill_pipe = fill_pipe
        self._failure: str | None = None
        for pipe in pipes:
            threading.Thread(target=self._fill, args=(pipe,), name=f"fill {pipe.path}", daemon=True).start()

    def _fill(self, pipe: Pipe) -> None:
        try:
            for number in itertools.count():
                if not self._fill_pipe(pipe.get_path(number), pipe.read_epoch(number)):
                    return
        except (CannotRunError, OSError, ValueError) as error:
            self._fail(f"{pipe.path}: {error}")
        except Exception as error:
            logger.exception("%s cannot be filled", pipe.path)
            self._fail(f"{pipe.path}: {type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._host.stop(grace=0)

    def wait(self) -> Exit:
        result = self._host.wait()
        if self._failure is None:
            return result
        return replace(result, code=result.code or 1, reason=self._failure, pipe_failed=True)

    def lines(self) -> Iterator[Line]:
        return self._host.lines()

    def stop(self, grace: float) -> None:
        self._host.stop(grace)

    def measure(self) -> HostUsage | None:
        return self._host.measure()

    def copy(self, path: str, target: Path) -> Tree | None:
        return self._host.copy(path, target)

    def add_folder(self, source: Path, path: str) -> None:
        self._host.add_folder(source, path)

    def remove_folder(self, path: str) -> None:
        self._host.remove_folder(path)

    def connect(self, timeout: float) -> socket.socket:
        return self._host.connect(timeout)
