"""Interface between the application and the HTTP server, which forks the workers and passes requests to them.

Two modules implement it: `asyncio_listener` and `rsgi_listener`.
"""

import asyncio
import concurrent.futures
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from microjobs.errors import UserError

LISTENER_VARIABLE = "MICROJOBS_SERVE_LISTENER"
LISTENER_NAMES = ("asyncio", "rsgi")
"""Values of the variable; the first one is the default. The module of the listener NAME is `NAME_listener`."""

CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
"""Errors of a read that was cancelled."""


class Headers(Protocol):
    """Header fields. Their names are in lower case."""

    def get(self, name: str, default: str = "") -> str: ...

    def items(self) -> Iterable[tuple[str, str]]: ...


class RequestHead(Protocol):
    """The request line and the headers; `path` is percent-decoded.

    Args:
        http_version: `1` (HTTP/1.0) or `1.1`.
    """

    method: str
    path: str
    query_string: str
    headers: Headers
    http_version: str

    @property
    def client(self) -> str:
        """Address of the client; for a Unix socket the path of the client's own socket, or an empty string."""


class PendingRead(Protocol):
    """A read of a request's body. Its methods are some of the methods of `concurrent.futures.Future`."""

    def add_done_callback(self, callback: Callable[["PendingRead"], object]) -> None: ...

    def cancel(self) -> bool: ...

    def result(self) -> bytes:
        """Return the bytes that were read.

        Raises:
            RuntimeError: the connection broke, or the body is not valid HTTP.
            CancelledError: the read was cancelled (one of `CANCELLED`).
        """


class ServerExchange(Protocol):
    """The body of a request and its response. Any thread may call the methods, except `call_soon`."""

    def take_body(self) -> bytes | None:
        """Return the whole body if it has arrived already; otherwise None, and the body must be read."""

    def read_body(self) -> PendingRead:
        """Start to read the whole body."""

    def read_chunk(self) -> PendingRead:
        """Start to read the next part of the body. An empty part is the last part.

        Raises:
            StopAsyncIteration: the last part has been read, and the body is complete.
        """

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call a function after the application has received all requests that are ready now.

        Only the thread that calls the application may call `call_soon`. The function runs in this thread.
        """

    def run_in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function in the thread that calls the application."""

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


Application = Callable[[RequestHead, ServerExchange], None]
"""Handles one request, at once or later. It never blocks and never raises."""

StartWorker = Callable[[], Application]
"""Function that prepares a worker process, which has just been forked."""


@dataclass(frozen=True)
class ListenerSettings:
    """Address or socket to listen on, number of workers, and limit of connections.

    Args:
        socket_path: a Unix socket to listen on, accessible to this user only, instead of address and port.
        max_connections: maximum number of open connections per worker. At this number, new connections wait until an
            open connection is closed.
    """

    address: str
    port: int
    socket_path: Path | None
    workers: int
    max_connections: int


Serve = Callable[[StartWorker, Callable[[], None], ListenerSettings], None]
"""An HTTP server. It forks the workers, replaces workers that die, and serves until SIGTERM or SIGINT.

After the signal, it calls its second argument before it closes the connections. It raises SystemExit if new workers
keep dying."""


def find_listener(environ: Mapping[str, str]) -> Serve:
    """Return the listener that the environment names.

    Raises:
        UserError: the name is unknown.
    """
    name = environ.get(LISTENER_VARIABLE) or LISTENER_NAMES[0]
    if name not in LISTENER_NAMES:
        raise UserError(f"{LISTENER_VARIABLE} is {name!r}: set it to {' or '.join(LISTENER_NAMES)}")
    serve: Serve = importlib.import_module(f".{name}_listener", __package__).serve
    return serve
