"""HTTP client for one container that serves a model.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import contextlib
import io
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO

from httptools import HttpParserError

from microjobs_orchestrator.local.resources.models.connection import Connection, StaleError
from microjobs_orchestrator.local.tasks import call_in_thread

MAX_IDLE_CONNECTIONS = 100
"""Maximum number of open connections without a request. More connections may be in use."""
PING_SECONDS = 2.0
"""Maximum number of seconds until a response to `GET /ping`."""
CONNECT_SECONDS, MIN_CONNECT_SECONDS = 5.0, 0.001
"""Time limit in seconds for opening a connection. The second value applies if the request has no time left."""

HOST_HEADER = "localhost"
"""The Host header. A client does not know the address of the container: the runtime opens the connections."""

PRIMARY = "primary"
"""SageMaker's name for the only container of a model."""

_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Connect = Callable[[float], socket.socket]
"""A function that opens a connection within a number of seconds, or raises OSError."""

Body = bytes | Callable[[], Iterable[bytes]] | None
"""A request's body. A function returns all parts of the body each time it is called."""


@dataclass
class ResponseHead:
    """Status and headers of a response. The body was written to the caller's file."""

    status: int
    headers: Mapping[str, str]
    """The names are case-insensitive."""
    container: str = PRIMARY
    """The host name of the container in its model."""


class NoResponseError(Exception):
    """The container did not respond completely, or not in time."""

    def __init__(
        self, message: str, *, timed_out: bool = False, was_sent: bool = True, container: str = PRIMARY
    ) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.was_sent = was_sent
        """Whether the container may have received the request."""
        self.container = container
        """The host name of the container in its model."""


class TooLargeError(Exception):
    """The response is larger than the caller's limit."""


class Client:
    """Sends requests to one container. Any thread may call the methods."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._idle_connections: deque[Connection] = deque()
        self._closed = threading.Event()

    def is_healthy(self) -> bool:
        """Return whether the container answers `GET /ping` with 200."""
        with contextlib.suppress(NoResponseError):
            return self.request("GET", "/ping", timeout=PING_SECONDS).status == 200
        return False

    def request(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float,
        into: IO[bytes] | None = None,
        max_bytes: float = float("inf"),
    ) -> ResponseHead:
        """Send a request, and write the body of the response to `into`. If `into` is None, discard the body.

        If a reused connection was closed before the first byte of a response arrived, the request is sent once more, on
        a new connection.

        Args:
            body: the parts that a function returns are sent in chunked encoding, unless `headers` has Content-Length.
            timeout: seconds for the whole exchange.

        Raises:
            NoResponseError: there is no complete response.
            TooLargeError: the body of the response is larger than `max_bytes`.
        """
        with self.open(method, path, body, headers, timeout=timeout) as response:
            response.copy_to(into or io.BytesIO(), max_bytes)
        return ResponseHead(response.status, response.headers)

    def open(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None, *, timeout: float
    ) -> "Response":
        """Send a request as `request` does, and return the response as soon as its headers have arrived.

        Raises:
            NoResponseError: there is no response.
        """
        deadline = time.monotonic() + timeout
        request = Request(method, path, body, headers or {})
        is_stale = False
        if (connection := self._take_idle_connection()) is not None:
            try:
                return self._exchange(connection, request, deadline)
            except StaleError:
                is_stale = True
        try:
            return self._exchange(self._open_connection(deadline), request, deadline)
        except NoResponseError as error:
            # The container may have received the request over the stale connection, and may have ended because of it.
            error.was_sent |= is_stale
            raise

    def _take_idle_connection(self) -> Connection | None:
        """Return the idle connection that was used last; None if there is none. Close idle connections that the
        container has closed."""
        try:
            while not (connection := self._idle_connections.pop()).is_idle():
                connection.close()
        except IndexError:
            return None
        return connection

    def _open_connection(self, deadline: float) -> Connection:
        if self._closed.is_set():
            raise NoResponseError("the container is being stopped", was_sent=False)
        seconds = max(MIN_CONNECT_SECONDS, min(CONNECT_SECONDS, deadline - time.monotonic()))
        try:
            return Connection(call_in_thread(partial(self._connect, seconds)))
        except OSError as error:
            raise NoResponseError(f"the container accepts no connection: {error}", was_sent=False) from error

    def _exchange(self, connection: Connection, request: "Request", deadline: float) -> "Response":
        """Send a request, and receive the headers of its response."""
        try:
            connection.send(request.head, request.make_parts(), deadline)
            status, headers = connection.receive_head(deadline)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError | HttpParserError):
                raise _make_no_response_error(error) from error
            raise
        return Response(status, headers, connection, deadline, self._put_back)

    def _put_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, if it can be used again; otherwise close it."""
        if self._closed.is_set() or not connection.is_reusable or len(self._idle_connections) >= MAX_IDLE_CONNECTIONS:
            connection.close()
            return
        self._idle_connections.append(connection)
        if self._closed.is_set():  # another thread may have called `close` after the first check
            self.close()

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(IndexError):
            while True:
                self._idle_connections.pop().close()


class Response:
    """A response whose body has not been read yet. It must be closed.

    Args:
        deadline: the end of the time for the whole body, in seconds of the monotonic clock.
        put_back: takes the connection when the response is closed.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        connection: Connection,
        deadline: float,
        put_back: Callable[[Connection], None],
    ) -> None:
        self.status = status
        self.headers = headers
        self._connection: Connection | None = connection
        self._deadline = deadline
        self._put_back = put_back
        self._lock = threading.Lock()
        self.container = PRIMARY
        """The host name of the container in its model."""

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_chunks(self) -> Iterator[bytes]:
        """Yield the parts of the body as they arrive. Raise NoResponseError if the body is incomplete or late."""
        connection = self._connection
        while connection is not None:
            try:
                part = connection.receive_part(self._deadline)
            except (OSError, HttpParserError) as error:
                raise _make_no_response_error(error, self.container) from error
            if not part:
                return
            yield part

    def copy_to(self, file: IO[bytes], max_bytes: float = float("inf")) -> None:
        """Write the body to a file. Raise NoResponseError if it is incomplete or late, and
        TooLargeError if it has more than `max_bytes` bytes."""
        size = 0
        for chunk in self.read_chunks():
            size += len(chunk)
            if size > max_bytes:
                raise TooLargeError(f"the response has more than {max_bytes} bytes")
            file.write(chunk)

    def abort(self) -> None:
        """End the body for the thread that reads it. Any thread may call this method."""
        with self._lock, contextlib.suppress(OSError):  # an error means that the container has closed the connection
            if self._connection is not None:
                self._connection.shut_down()

    def close(self) -> None:
        """Close the response. If its body has ended, the connection can be used again; otherwise, it is closed."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            self._put_back(connection)


def _make_no_response_error(error: Exception, container: str = PRIMARY) -> NoResponseError:
    message = f"the response is not valid HTTP: {error}" if isinstance(error, HttpParserError) else str(error)
    return NoResponseError(message, timed_out=isinstance(error, TimeoutError), container=container)


class Request:
    """A request that can be sent more than once."""

    def __init__(self, method: str, path: str, body: Body, headers: Mapping[str, str]) -> None:
        fields = {"Host": HOST_HEADER, "User-Agent": "microjobs", "Accept-Encoding": "identity", **headers}
        if callable(body):
            self._is_chunked = "Content-Length" not in headers
            fields |= {"Transfer-Encoding": "chunked"} if self._is_chunked else {}
        elif body is not None or method == "POST":
            fields["Content-Length"] = str(len(body or b""))
        lines = [f"{method} {path} HTTP/1.1", *[f"{name}: {value}" for name, value in fields.items()]]
        if " " in path or _CONTROL_CHARACTER.search("".join(lines)):
            raise ValueError(f"the path has a space, or a header has a control character: {lines!r:.200}")
        self.head = "\r\n".join((*lines, "", "")).encode("latin-1")
        self._body = body

    def make_parts(self) -> Iterable[bytes]:
        """Return the parts of the body as they are sent."""
        if not callable(self._body):
            return (self._body,) if self._body else ()
        return _encode_chunks(self._body()) if self._is_chunked else self._body()


def _encode_chunks(parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in filter(None, parts):
        yield b"%x\r\n%b\r\n" % (len(part), part)
    yield b"0\r\n\r\n"
