"""HTTP/1.1 on one connection of an event loop: parses requests and writes responses in the same order.

httptools parses the data. This module passes the requests to the application, one at a time, and stops reading from the
connection while the client sends faster than the application reads.
"""

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools

from .connections import format_address
from .http_request import Request, Worker, format_status_line

MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 1024
"""Limits of a request's head; a larger head gets status 431."""
LINGER_SECONDS = 2.0
"""Time in which a client can read the response to malformed data, while the server drops what the client sends."""


class ConnectionWorker(Worker, Protocol):
    """The worker that serves a connection.

    Args:
        is_stopping: whether connections close after their current request.
    """

    is_stopping: bool

    def add(self, connection: "Connection") -> None: ...

    def remove(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, worker: ConnectionWorker) -> None:
        self.worker = worker
        self.head_start_time: float | None = None
        """Time of the event loop at which the first bytes of an incomplete head arrived; None without such a head."""
        self._parser = httptools.HttpRequestParser(self)
        self._requests: deque[Request] = deque()
        """The request that the application is answering, and the requests after it."""
        self._incoming_request: Request | None = None
        """The request that the parser is reading."""
        self._upgrade_request: Request | None = None
        """The request that asks for another protocol, until a new parser reads its body; see `_parse`."""
        self._is_in_head = True
        self._head_bytes = 0
        self._error_status = 0
        """Status of the response to malformed data; 0 without such data. The responses to all requests precede it."""
        self._is_advancing = False
        self._is_paused = False
        self._is_writing_paused = False
        self._has_sent_error = False
        self._transport: asyncio.Transport | None = None

    # asyncio calls these methods.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's class has all methods of `asyncio.Transport`, but is not derived from it
        self._transport = cast("asyncio.Transport", transport)
        self.worker.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        del self._parser  # the parser refers to this connection, and the cycle would keep both in memory
        self.worker.remove(self)
        for request in list(self._requests):
            request.fail()
        self._requests.clear()

    def eof_received(self) -> bool:
        """Answer the complete requests of a client that sends no more data. Return whether the connection remains."""
        if self._error_status and not self._requests:
            return False
        if self._incoming_request is not None and not self._is_in_head:
            self._incoming_request.fail()
        self.stop()
        return True

    def data_received(self, data: bytes) -> None:
        if self._error_status:
            return
        if self._is_in_head and self._incoming_request is not None:
            self._head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._reject(400)
        if self._is_in_head and self._incoming_request is not None:
            self._check_head()
        self._advance()

    def pause_writing(self) -> None:
        self._is_writing_paused = True
        self._update_reading()

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        self._advance()

    # The parser calls these methods.

    def on_message_begin(self) -> None:
        self._incoming_request = self._upgrade_request or Request(self)
        self._is_in_head = True

    def on_url(self, url: bytes) -> None:
        assert self._incoming_request is not None  # noqa: S101  the message has begun
        if self._upgrade_request is None:
            self._incoming_request.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._incoming_request is not None  # noqa: S101  the message has begun
        if self._upgrade_request is not None or not self._is_in_head:  # a field after a body in chunks is not a header
            return
        headers = self._incoming_request.fields
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if len(headers) > MAX_HEADERS:
            self._error_status = 431
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        request = self._incoming_request
        assert request is not None  # noqa: S101  the message has begun
        self._is_in_head, self._head_bytes, self.head_start_time = False, 0, None
        if self._upgrade_request is not None:
            self._upgrade_request = None
            return
        request.read_head(self._parser)
        self._requests.append(request)

    def on_body(self, data: bytes) -> None:
        assert self._incoming_request is not None  # noqa: S101  the message has begun
        self._incoming_request.chunks.append(data)

    def on_message_complete(self) -> None:
        assert self._incoming_request is not None  # noqa: S101  the message has begun
        self._incoming_request.is_complete = True
        self._incoming_request = None
        self._is_in_head = True

    # Requests and the server call these methods.

    @property
    def client(self) -> str:
        """Address of the client: `127.0.0.1:1234`, or the path of a Unix socket, or an empty string."""
        return format_address(self._transport.get_extra_info("peername") if self._transport else None)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def advance(self) -> None:
        """Start the next request if the current one has ended."""
        if not self._is_advancing:
            self._advance()

    def stop(self) -> None:
        """Close the connection when its requests are answered. Without requests, close it immediately."""
        for request in self._requests:
            request.keeps_alive = request.keeps_alive and request is not self._requests[-1]
        if not self._requests:
            self._close()

    def reject_slow_head(self) -> None:
        self._reject(408)
        self._advance()

    def _advance(self) -> None:
        if self._transport is None:
            return
        self._is_advancing = True  # a request that ends immediately would call this method again
        while self._requests and not self._is_writing_paused:
            request = self._requests[0]
            request.start()
            request.deliver()
            if not request.has_ended or not self._requests:
                break
            self._requests.popleft()
            if not request.keeps_alive or not request.is_complete or self.worker.is_stopping:
                self._close()
        self._is_advancing = False
        if self._error_status and not self._requests:
            self._respond_to_error()
        self._update_reading()

    def _respond_to_error(self) -> None:
        """Respond to malformed data. The connection is closed later, so that the client does not lose the response."""
        if self._transport is None or self._transport.is_closing() or self._has_sent_error:
            return
        self._has_sent_error = True
        self.write(format_status_line(self._error_status) + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self._transport.write_eof()
        self.worker.loop.call_later(LINGER_SECONDS, self._close)

    def _parse(self, data: bytes) -> None:
        """Parse data.

        Clients such as Java's ask for HTTP/2 in their first request. httptools stops parsing after the head of this
        request, but this server answers it like any other request. Therefore, a new parser gets a head that states the
        same length of the body, and reads the body.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_request = request = self._requests[-1]
            request.is_complete = False
            names = ("transfer-encoding", "content-length")
            fields = "".join(f"{name}: {request.fields[name]}\r\n" for name in names if name in request.fields)
            self._parser = httptools.HttpRequestParser(self)
            self._parse(f"POST / HTTP/1.1\r\n{fields}\r\n".encode("latin-1") + data[upgrade.args[0] :])

    def _reject(self, status: int) -> None:
        self._error_status = self._error_status or status
        if self._requests and not self._requests[-1].is_complete:  # the error is in the body of this request
            self._requests[-1].fail()

    def _check_head(self) -> None:
        if self.head_start_time is None:
            self.head_start_time = self.worker.loop.time()
        if self._head_bytes > MAX_HEAD_BYTES:
            self._reject(431)

    def _update_reading(self) -> None:
        """Read from the connection, unless requests wait for the application, or responses wait for the client."""
        requests = self._requests
        is_behind = bool(requests) and (len(requests) > 1 or requests[0].is_behind)
        pause = is_behind or self._is_writing_paused
        if self._transport is None or pause == self._is_paused:
            return
        self._is_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _close(self) -> None:
        self._requests.clear()
        if self._transport is not None:
            self._transport.close()
