"""One HTTP request of a connection: its head, its body as it arrives, and its response."""

import asyncio
import email.utils
import http.client
import threading
import time
from collections.abc import Callable
from typing import Protocol, cast
from urllib.parse import unquote

import httptools

from .listener import Application, Headers, PendingRead

MAX_BUFFERED_BYTES = 64 * 1024
"""Number of unread bytes of a body at which reading from the connection pauses."""
HTTP_VERSIONS = {"1.0": "1", "1.1": "1.1"}
"""Versions as `listener.RequestHead` names them, by httptools's names."""
CONTINUE_RESPONSE = b"HTTP/1.1 100 Continue\r\n\r\n"
STATUSES_WITHOUT_BODY = (204, 304)

_STATUS_LINES = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in http.client.responses.items()}


def format_status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()


class Worker(Protocol):
    """The worker that serves a request: its event loop, and the application that answers the request.

    Args:
        thread_id: identifier of the thread that runs the event loop.
    """

    loop: asyncio.AbstractEventLoop
    application: Application
    thread_id: int


class ClientConnection(Protocol):
    """The connection of a request."""

    @property
    def worker(self) -> Worker: ...

    @property
    def client(self) -> str: ...

    def write(self, data: bytes) -> None: ...

    def advance(self) -> None:
        """Start the next request if the current one has ended."""


class Request:
    """One request. It implements the protocols `listener.RequestHead` and `listener.ServerExchange`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.url = b""
        self.method = self.path = self.query_string = self.http_version = ""
        self.fields: dict[str, str] = {}
        """The headers; names are in lower case."""
        self.headers = cast("Headers", self.fields)
        self.keeps_alive = True
        self.chunks: list[bytes] = []
        """Parts of the body that the application has not read."""
        self.is_complete = False
        self.has_failed = False
        """Whether the rest of the body will never arrive."""
        self._has_started = self._has_responded = self._has_sent_continue = self._was_end_delivered = False
        self._is_delivering = False
        self._read: _Read | None = None

    @property
    def client(self) -> str:
        return self._connection.client

    def read_head(self, parser: "httptools.HttpRequestParser") -> None:
        """Set the attributes of the request line, and `keeps_alive`, from the parser and `url`.

        Raises:
            ValueError: the version of HTTP is not supported.
        """
        self.method, version = parser.get_method().decode(), parser.get_http_version()
        if version not in HTTP_VERSIONS:
            raise ValueError("the version of HTTP is not supported")
        self.http_version = HTTP_VERSIONS[version]
        self.keeps_alive = parser.should_keep_alive()
        path, _, query = self.url.partition(b"?")
        if not path.startswith(b"/") and path != b"*":
            path = httptools.parse_url(self.url).path or b"/"
        self.path, self.query_string = path.decode("latin-1"), query.decode("latin-1")
        if "%" in self.path:
            self.path = unquote(self.path)

    # The application calls these methods.

    def take_body(self) -> bytes | None:
        return self._take_chunks() if self.is_complete else None

    def read_body(self) -> PendingRead:
        return _Read(self, is_whole=True)

    def read_chunk(self) -> PendingRead:
        if self._was_end_delivered and self.is_complete:
            raise StopAsyncIteration
        return _Read(self, is_whole=False)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._connection.worker.loop.call_soon(callback)

    def run_in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function in the thread of the event loop. In this thread itself, call the function at once."""
        worker = self._connection.worker
        if threading.get_ident() == worker.thread_id:
            function(*arguments)
        elif not worker.loop.is_closed():
            worker.loop.call_soon_threadsafe(function, *arguments)

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.run_in_loop(self._respond, status, headers, body)

    # The connection and the reads call these methods.

    @property
    def has_ended(self) -> bool:
        return self._has_responded and not self._is_delivering and (self.is_complete or self._read is None)

    @property
    def is_behind(self) -> bool:
        """Whether the application is slower than the client: much of the body has arrived, but is not read."""
        return self._read is None and not self.is_complete and sum(map(len, self.chunks)) > MAX_BUFFERED_BYTES

    def start(self) -> None:
        """Pass the request to the application, once."""
        if not self._has_started:
            self._has_started = True
            self._connection.worker.application(self, self)

    def fail(self) -> None:
        """Record that the rest of the body will never arrive."""
        self.has_failed, self.keeps_alive = True, False
        self.deliver()

    def start_read(self, read: "_Read") -> None:
        self._read = read
        if "expect" in self.fields and not self._has_sent_continue and not self.is_complete and not self._has_responded:
            self._has_sent_continue = True
            self._connection.write(CONTINUE_RESPONSE)
        self.deliver()
        self._connection.advance()

    def end_read(self, read: "_Read", result: bytes | BaseException) -> None:
        """End a read with its result, unless it has ended."""
        if self._read is read:
            self._read = None
            # During the callback, the request has not ended, even after the response: the callback may start a read.
            self._is_delivering = True
            read.finish(result)
            self._is_delivering = False
            self._connection.advance()

    def deliver(self) -> None:
        """End the pending read if its data have arrived, or will never arrive."""
        read = self._read
        if read is None:
            return
        if self.has_failed and not self.is_complete:
            self.end_read(read, RuntimeError("the connection broke, or the body is not valid HTTP"))
        elif self.is_complete or (self.chunks and not read.is_whole):
            self._was_end_delivered = not self.chunks
            self.end_read(read, self._take_chunks())

    def _take_chunks(self) -> bytes:
        content = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks = []
        return content

    def _respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if self._has_responded:
            return
        self._has_responded = True
        leaves_body_unread = not self.is_complete and self._read is None and not self._is_delivering
        if ("connection", "close") in headers or leaves_body_unread:
            self.keeps_alive = False
        self._connection.write(self._format_response(status, headers, body))
        self._connection.advance()

    def _format_response(self, status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        if status not in STATUSES_WITHOUT_BODY:
            lines.append(f"content-length: {len(body)}\r\n")
        if not self.keeps_alive:
            if ("connection", "close") not in headers:
                lines.append("connection: close\r\n")
        elif self.http_version == "1":
            lines.append("connection: keep-alive\r\n")
        status_line = format_status_line(status)
        lines.append(_format_end_of_head(int(time.time())))
        content = b"" if self.method == "HEAD" or status in STATUSES_WITHOUT_BODY else body
        return status_line + "".join(lines).encode("latin-1") + content


class _Read:
    """A read of a body. It starts when `add_done_callback` is called; see `listener.PendingRead`."""

    __slots__ = ("_callback", "_request", "_result", "is_whole")

    def __init__(self, request: Request, *, is_whole: bool) -> None:
        self._request = request
        self._result: bytes | BaseException = b""
        self._callback: Callable[[PendingRead], object] | None = None
        self.is_whole = is_whole

    def add_done_callback(self, callback: Callable[[PendingRead], object]) -> None:
        self._callback = callback
        self._request.run_in_loop(self._request.start_read, self)

    def cancel(self) -> bool:
        self._request.run_in_loop(self._request.end_read, self, asyncio.CancelledError())
        return True

    def finish(self, result: bytes | BaseException) -> None:
        self._result = result
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)

    def result(self) -> bytes:
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


_date = (0, "")


def _format_end_of_head(seconds: int) -> str:
    """Return the header Date, formatted once per second, and the empty line that ends the head."""
    global _date
    if _date[0] != seconds:
        _date = (seconds, f"date: {email.utils.formatdate(seconds, usegmt=True)}\r\n\r\n")
    return _date[1]
