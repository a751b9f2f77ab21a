"""HTTP client for one container that serves a model.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import contextlib
import io
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ClosedPoolError, HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as ResponseTimeoutError

MAX_IDLE_CONNECTIONS = 100
"""Connections that stay open without a request; more may be in use."""
PING_SECONDS = 2.0
CONNECT_SECONDS = 5.0
CHUNK_BYTES = 1 << 16

HOST = "localhost"
"""The Host header. The runtime knows the real address of the container."""

PRIMARY = "primary"
"""SageMaker's name for the only container of a model."""

Connect = Callable[[float], socket.socket]

Body = bytes | Callable[[], Iterable[bytes]] | None
"""A request's body. A function returns all parts of the body each time it is called."""


@dataclass(frozen=True)
class Answer:
    """Status and headers of a response, whose body was written to the caller's file."""

    status: int
    headers: Mapping[str, str]
    """The names are case-insensitive."""
    container: str = PRIMARY
    """The host name of the container in its model."""


class NoAnswerError(Exception):
    """The container did not respond completely, or not in time."""

    def __init__(self, message: str, *, timed_out: bool = False, was_sent: bool = True) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.was_sent = was_sent
        """Whether the container may have received the request."""
        self.container = PRIMARY
        """The host name of the container in its model."""


class TooLargeError(Exception):
    """The response is larger than the caller's limit."""


class _StaleError(Exception):
    """A reused connection was closed before the first byte of a response arrived on it."""


class _Connection(HTTPConnection):
    """A connection that is reused. Its server may close it even while a request is on its way (RFC 9112, 9.5)."""

    def __init__(self, *arguments: Any, connect: Connect, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connect = connect
        self._responses = 0

    def connect(self) -> None:
        self._responses = 0
        try:
            self.sock = self._connect(min(self.timeout or CONNECT_SECONDS, CONNECT_SECONDS))
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        with contextlib.suppress(OSError):  # a Unix socket has no such option
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: object) -> None:
        if self.sock is not None:
            self.sock.settimeout(self.timeout)  # replaces the timeout of `connect`, or of an earlier request
        super().send(data)  # type: ignore[arg-type]  # http.client passes several types

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as in urllib3
        if self._responses and not self._has_response():
            raise _StaleError
        self._responses += 1
        return super().getresponse()

    def _has_response(self) -> bool:
        """Wait for the first byte of a response; return whether it arrives."""
        self.sock.settimeout(self.timeout)
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except ConnectionError:
            return False


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class Client:
    """Requests to one container, from any thread. `connect(seconds)` opens a connection in time, or raises OSError."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._pool = self._make_pool(MAX_IDLE_CONNECTIONS)

    def _make_pool(self, connections: int) -> _Pool:
        return _Pool(HOST, maxsize=connections, retries=False, connect=self._connect)

    def is_healthy(self) -> bool:
        """Return whether `/ping` answers 200 in time."""
        with contextlib.suppress(NoAnswerError):
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
    ) -> Answer:
        """Send a request, and write the body of the response to a file; None discards the body.

        A request is sent again, once and on a new connection, if a reused connection was closed before the first byte
        of a response arrived.

        Args:
            body: the parts that a function returns are sent in chunked encoding, unless `headers` has Content-Length.
            timeout: seconds for the whole exchange.

        Raises:
            NoAnswerError: there is no complete response.
            TooLargeError: the body of the response is larger than `max_bytes`.
        """
        with self.open(method, path, body, headers, timeout=timeout) as response:
            size, file = 0, into or io.BytesIO()
            for chunk in response.chunks():
                size += len(chunk)
                if size > max_bytes:
                    raise TooLargeError(f"the answer has more than {max_bytes} bytes")
                file.write(chunk)
        return Answer(response.status, response.headers)

    def open(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None, *, timeout: float
    ) -> "Response":
        """Send a request as `request` does, and return the response as soon as its headers have arrived.

        Raises:
            NoAnswerError: there is no response.
        """
        headers, deadline = {"User-Agent": "microjobs", **(headers or {})}, time.monotonic() + timeout
        request = _Request(method, path, body, headers, deadline)
        with contextlib.suppress(_StaleError):
            return Response(request.send(self._pool), deadline)
        pool = self._make_pool(1)
        try:
            return Response(request.send(pool), deadline, pool)
        except NoAnswerError as error:
            pool.close()
            error.was_sent = True  # the first request, over the reused connection, may have ended the container
            raise

    def close(self) -> None:
        self._pool.close()


class Response:
    """A response whose body has not been read yet. It must be closed.

    Args:
        deadline: the end of the time for the whole body, in seconds of the monotonic clock.
        pool: connections that only this response uses.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, deadline: float, pool: _Pool | None = None) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._deadline = deadline
        self._pool = pool

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the parts of the body as they arrive. Raise NoAnswerError if the body is incomplete or late."""
        chunk = None
        while chunk != b"":  # the empty chunk at the end may come late, too
            with _translate_errors():
                chunk = self._response.read1(CHUNK_BYTES)  # `stream` would wait for a complete chunk
            if time.monotonic() > self._deadline:
                raise NoAnswerError("the answer took too long", timed_out=True)
            if chunk:
                yield chunk

    def abort(self) -> None:
        """End the body for the thread that reads it. Any thread may call this method."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # the connection is closed already
            self._response.shutdown()

    def close(self) -> None:
        """Close the response. At the end of its body, the connection returns to the pool; otherwise it is closed."""
        self._response.close()
        if self._pool is not None:
            self._pool.close()


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise NoAnswerError for errors of a connection."""
    try:
        yield
    except (HTTPError, OSError) as error:
        unsent = isinstance(error, NewConnectionError | ClosedPoolError)
        # The error of a request that could not be sent in time has a TimeoutError as its cause.
        is_late = isinstance(error, ResponseTimeoutError) or isinstance(
            error.__cause__ or error.__context__, TimeoutError
        )
        raise NoAnswerError(str(error), timed_out=is_late and not unsent, was_sent=not unsent) from error


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: Body
    headers: Mapping[str, str]
    deadline: float

    def send(self, pool: _Pool) -> urllib3.BaseHTTPResponse:
        """Send the request, and return the response with an unread body."""
        timeout = max(0.001, self.deadline - time.monotonic())
        with _translate_errors():
            return pool.urlopen(
                self.method,
                self.path,
                body=self.body() if callable(self.body) else self.body,
                headers=self.headers,
                timeout=urllib3.Timeout(connect=timeout, read=timeout),
                chunked=callable(self.body) and "Content-Length" not in self.headers,
                redirect=False,
                preload_content=False,
            )
