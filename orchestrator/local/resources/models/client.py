"""HTTP client for one container that serves a model.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import contextlib
import io
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ClosedPoolError, HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as TookTooLongError

CONNECTIONS = 100
"""Connections that are kept open; more may be in use."""
PING_SECONDS = 2.0
CONNECT_SECONDS = 5.0
CHUNK = 1 << 16

HOST = "localhost"
"""The Host header. The runtime knows the real address of the container."""

Connect = Callable[[float], socket.socket]

Body = bytes | Callable[[], Iterable[bytes]] | None
"""A request's body. A function returns its pieces, from the first one on each time it is called."""


@dataclass(frozen=True)
class Answer:
    """The head of an answer. Its body is in the caller's file."""

    status: int
    headers: Mapping[str, str]
    """By names of any case."""


class NoAnswerError(Exception):
    """The container did not answer completely, or not in time."""

    def __init__(self, message: str, *, timed_out: bool = False, was_sent: bool = True) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.was_sent = was_sent
        """Whether the container may have seen the request."""


class TooLargeError(Exception):
    """The answer is larger than the caller's limit."""


class _StaleError(Exception):
    """A reused connection was closed before the first byte of a response arrived on it."""


class _Connection(HTTPConnection):
    """A connection that can be reused.

    A server may close an idle connection at any time, also while a request is on its way (RFC 9112, section 9.5).
    """

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
            self.sock.settimeout(self.timeout)  # the connection has that of connecting, or of the request before
        super().send(data)  # type: ignore[arg-type]  # what http.client passes on

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as in urllib3
        if self._responses and not self._has_response():
            raise _StaleError
        self._responses += 1
        return super().getresponse()

    def _has_response(self) -> bool:
        """Wait for the first byte of a response; return whether there is one."""
        self.sock.settimeout(self.timeout)
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except ConnectionError:
            return False


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class Client:
    """Requests to one container, over connections that stay open. Methods may be called from any thread.

    Args:
        connect: opens a connection within so many seconds, or raises an OSError.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._pool = self._new_pool(CONNECTIONS)

    def _new_pool(self, connections: int) -> _Pool:
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
        most: float = float("inf"),
    ) -> Answer:
        """Ask, and copy the answer's body.

        A request on a reused connection that is closed before the first byte of a response is sent once more, on a
        new connection. No other request is.

        Args:
            body: the pieces that a function returns are sent in HTTP's chunks, unless there is a header
                Content-Length.
            timeout: seconds for all of it.
            into: where to write the body; None: it is thrown away.
            most: bytes of the body.

        Raises:
            NoAnswerError: there is no whole answer.
            TooLargeError: it has more bytes.
        """
        sending = _Request(method, path, body, {"User-Agent": "microjobs", **(headers or {})})
        receiving = _Receiver(into or io.BytesIO(), time.monotonic() + timeout, most)
        try:
            return _exchange(self._pool, sending, receiving)
        except _StaleError:
            return self._resend(sending, receiving)

    def _resend(self, sending: "_Request", receiving: "_Receiver") -> Answer:
        try:
            with self._new_pool(1) as fresh:
                return _exchange(fresh, sending, receiving)
        except NoAnswerError as error:
            error.was_sent = True  # the first time: the container may have died of the request
            raise

    def close(self) -> None:
        self._pool.close()


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: Body
    headers: Mapping[str, str]

    def send(self, pool: _Pool, timeout: float) -> urllib3.BaseHTTPResponse:
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


@dataclass(frozen=True)
class _Receiver:
    into: IO[bytes]
    deadline: float
    most: float
    """Bytes."""

    def copy(self, response: urllib3.BaseHTTPResponse) -> None:
        size = 0
        chunk = None
        while chunk != b"":
            chunk = response.read1(CHUNK)  # what there is: `stream` would wait for a whole chunk
            size += len(chunk)
            if size > self.most:
                raise TooLargeError(f"the answer has more than {self.most} bytes")
            if time.monotonic() > self.deadline:
                raise NoAnswerError("the answer took too long", timed_out=True)
            self.into.write(chunk)


def _exchange(pool: _Pool, request: _Request, receiver: _Receiver) -> Answer:
    try:
        response = request.send(pool, max(0.001, receiver.deadline - time.monotonic()))
        try:
            receiver.copy(response)
        finally:
            response.close()  # read to its end, its connection is kept; what is left would be the next answer
    except (HTTPError, OSError) as error:
        unsent = isinstance(error, NewConnectionError | ClosedPoolError)
        raise NoAnswerError(str(error), timed_out=not unsent and _is_late(error), was_sent=not unsent) from error
    return Answer(response.status, response.headers)


def _is_late(error: Exception) -> bool:
    """Return whether the time was over, also while the request was being sent."""
    return isinstance(error, TookTooLongError) or isinstance(error.__cause__ or error.__context__, TimeoutError)
