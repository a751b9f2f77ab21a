"""Interface between this job and the HTTP server that forks its workers and passes requests to them.

Two modules implement it: `direct_listener` and `rsgi_listener`.
"""

import asyncio
import concurrent.futures
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from microjobs.errors import UserError

VARIABLE = "MICROJOBS_SERVE_LISTENER"
IMPLEMENTATIONS = {"direct": ("direct_listener", "DirectListener"), "rsgi": ("rsgi_listener", "RsgiListener")}
"""Module and class for each value of the variable; the first one is the default."""

CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
"""Errors of a read that was cancelled."""


class Headers(Protocol):
    """Header fields. Their names are in lower case."""

    def get(self, name: str, default: str = "") -> str: ...

    def items(self) -> Iterable[tuple[str, str]]: ...


class RequestHead(Protocol):
    """The request line and the headers; `path` is percent-decoded."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def query_string(self) -> str: ...

    @property
    def headers(self) -> Headers: ...


class Read(Protocol):
    """A read of a body that has been started; its methods are those of `concurrent.futures.Future`."""

    def add_done_callback(self, callback: Callable[["Read"], object]) -> None: ...

    def cancel(self) -> bool: ...

    def result(self) -> bytes:
        """Return what was read.

        Raises:
            RuntimeError: the connection broke, or the body is not valid HTTP.
            CancelledError: the read was cancelled (one of `CANCELLED`).
        """


class Exchange(Protocol):
    """The body of a request and its response. Any thread may call the methods."""

    def read_body(self) -> Read:
        """Start to read the whole body."""

    def read_chunk(self) -> Read:
        """Start to read the next part of the body. An empty part is the last one.

        Raises:
            StopAsyncIteration: the last part has been read, and the body is complete.
        """

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


Application = Callable[[RequestHead, Exchange], None]
"""Handles one request, at once or later. It never blocks and never raises."""

StartWorker = Callable[[], Application]
"""Prepares a worker process that has just been forked."""


@dataclass(frozen=True)
class ListenerSettings:
    """Where to listen, and the limits.

    Args:
        socket_path: a Unix socket to listen on, accessible to this user only, instead of address and port.
        max_connections: open connections per worker; more connections wait until one is closed.
        stop_timeout: seconds in which requests in flight may end after SIGTERM.
    """

    address: str
    port: int
    socket_path: Path | None
    workers: int
    max_connections: int
    stop_timeout: int


class Listener(Protocol):
    """An HTTP server."""

    def serve(self, start_worker: StartWorker, drain: Callable[[], None], settings: ListenerSettings) -> None:
        """Fork the workers and serve until SIGTERM or SIGINT. Workers that die are replaced.

        Args:
            drain: called after the signal, before the connections are closed.

        Raises:
            SystemExit: workers died again as soon as they were replaced.
        """


def make_listener(environ: Mapping[str, str]) -> Listener:
    """Return the listener that the environment names.

    Raises:
        UserError: the name is unknown.
    """
    name = environ.get(VARIABLE) or next(iter(IMPLEMENTATIONS))
    if name not in IMPLEMENTATIONS:
        raise UserError(f"{VARIABLE} is {name!r}: set it to {' or '.join(IMPLEMENTATIONS)}")
    module, class_name = IMPLEMENTATIONS[name]
    listener: Listener = getattr(importlib.import_module(f".{module}", __package__), class_name)()
    return listener
