"""Named pipes, filled while their host runs: inputs in Pipe mode."""

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Host, Line, Pipe
from microjobs_orchestrator.local.trees import Tree

logger = logging.getLogger(__name__)

Pour = Callable[[str, Iterable[bytes]], bool]
"""Writes into the named pipe at a path, which it makes if it is not there, and returns when the reader has had all or
has closed it; False if the host has ended. Raises CannotRunError if it cannot."""


def first(pipe: Pipe) -> str:
    """The path of the named pipe that is there before the host starts."""
    return _path(pipe, 0)


def _path(pipe: Pipe, number: int) -> str:
    return f"{pipe.path}_{number}"


def fed(host: Host, pipes: Sequence[Pipe], pour: Pour) -> Host:
    """The host, with something that fills its pipes until it ends."""
    return FedHost(host, pipes, pour) if pipes else host


class FedHost:
    """A host whose pipes are filled; it is ended if one cannot be."""

    def __init__(self, host: Host, pipes: Sequence[Pipe], pour: Pour) -> None:
        self.name = host.name
        self._host = host
        self._pour = pour
        self._failure: str | None = None
        for pipe in pipes:
            threading.Thread(target=self._fill, args=(pipe,), name=f"fill {pipe.path}", daemon=True).start()

    def _fill(self, pipe: Pipe) -> None:
        try:
            for number in itertools.count():
                if not self._pour(_path(pipe, number), pipe.epoch(number)):
                    return
        except (CannotRunError, OSError, ValueError) as error:
            self._fail(f"{pipe.path}: {error}")
        except Exception as error:
            logger.exception("%s cannot be filled", pipe.path)
            self._fail(f"{pipe.path}: {type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._host.stop(0)

    def wait(self) -> Exit:
        ended = self._host.wait()
        if self._failure is None:
            return ended
        return replace(ended, code=ended.code or 1, reason=self._failure, starved=True)

    def lines(self) -> Iterator[Line]:
        return self._host.lines()

    def stop(self, grace: float) -> None:
        self._host.stop(grace)

    def copy(self, path: str, to: Path) -> Tree | None:
        return self._host.copy(path, to)

    def connect(self, timeout: float) -> socket.socket:
        return self._host.connect(timeout)
