"""HTTP/1.1 on one connection of an event loop: parses requests and writes responses in the same order.

httptools parses; this module passes requests on, one at a time, and stops reading while a client sends faster than the
application reads.
"""

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools

from .connections import format_address
from .http_request import Loop, Request, status_line

MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 1024
"""Limits of a request's head; a larger head gets status 431."""
LINGER_SECONDS = 2.0
"""Time in which a client can read the response to malformed data, while the server drops what the client sends."""


class Owner(Loop, Protocol):
    """The server of a connection.

    Args:
        is_stopping: whether connections close after their current request.
    """

    is_stopping: bool

    def add(self, connection: "Connection") -> None: ...

    def remove(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.head_started: float | None = None
        """Time of the event loop at which a head began to arrive that is still incomplete."""
        self._parser = httptools.HttpRequestParser(self)
        self._requests: deque[Request] = deque()
        """The request that the application answers, and those that follow it."""
        self._incoming: Request | None = None
        """The request that the parser is reading."""
        self._upgrading: Request | None = None
        """The request that asks for another protocol, until another parser reads its body."""
        self._is_in_head = True
        self._head_bytes = 0
        self._error_status = 0
        """Status of the response to malformed data, which follows the responses to all requests."""
        self._is_advancing = False
        self._is_paused = False
        self._is_writing_paused = False
        self._has_lingered = False
        self._transport: asyncio.Transport | None = None

    # asyncio calls these methods.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class has the methods, not the base class
        self.owner.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        del self._parser  # it refers to this connection
        self.owner.remove(self)
        for request in list(self._requests):
            request.fail()
        self._requests.clear()

    def eof_received(self) -> bool:
        """Answer the complete requests of a client that sends no more data; return False to close the connection."""
        if self._error_status and not self._requests:
            return False
        if self._incoming is not None and not self._is_in_head:
            self._incoming.fail()
        self.stop()
        return True

    def data_received(self, data: bytes) -> None:
        if self._error_status:
            return
        if self._is_in_head and self._incoming is not None:
            self._head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._reject(400)
        if self._is_in_head and self._incoming is not None:
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
        self._incoming = self._upgrading or Request(self)
        self._is_in_head = True

    def on_url(self, url: bytes) -> None:
        assert self._incoming is not None  # noqa: S101  the message has begun
        if self._upgrading is None:
            self._incoming.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._incoming is not None  # noqa: S101  the message has begun
        if self._upgrading is not None or not self._is_in_head:  # a field after a body in chunks is no header
            return
        headers = self._incoming.fields
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if len(headers) > MAX_HEADERS:
            self._error_status = 431
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        request = self._incoming
        assert request is not None  # noqa: S101  the message has begun
        self._is_in_head, self._head_bytes, self.head_started = False, 0, None
        if self._upgrading is not None:
            self._upgrading = None
            return
        request.read_head(self._parser)
        self._requests.append(request)

    def on_body(self, data: bytes) -> None:
        assert self._incoming is not None  # noqa: S101  the message has begun
        self._incoming.chunks.append(data)

    def on_message_complete(self) -> None:
        assert self._incoming is not None  # noqa: S101  the message has begun
        self._incoming.is_complete = True
        self._incoming = None
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
        """Close the connection as soon as its requests are answered, at once if there are none."""
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
        self._is_advancing = True  # requests may end at once, and would call this method again
        while self._requests and not self._is_writing_paused:
            request = self._requests[0]
            request.start()
            request.deliver()
            if not request.has_ended or not self._requests:
                break
            self._requests.popleft()
            if not request.keeps_alive or not request.is_complete or self.owner.is_stopping:
                self._close()
        self._is_advancing = False
        if self._error_status and not self._requests:
            self._respond_to_error()
        self._update_reading()

    def _respond_to_error(self) -> None:
        """Respond to malformed data. If the connection were closed at once, the client could lose the response."""
        if self._transport is None or self._transport.is_closing() or self._has_lingered:
            return
        self._has_lingered = True
        self.write(status_line(self._error_status) + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self._transport.write_eof()
        self.owner.loop.call_later(LINGER_SECONDS, self._close)

    def _parse(self, data: bytes) -> None:
        """Parse data.

        Clients such as Java's ask for HTTP/2 in their first request. The parser stops after its head, but this server
        answers it as any other request: another parser gets a head with the same length, and reads the body.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrading = request = self._requests[-1]
            request.is_complete = False
            names = ("transfer-encoding", "content-length")
            fields = "".join(f"{name}: {request.fields[name]}\r\n" for name in names if name in request.fields)
            self._parser = httptools.HttpRequestParser(self)
            self._parse(f"POST / HTTP/1.1\r\n{fields}\r\n".encode("latin-1") + data[upgrade.args[0] :])

    def _reject(self, status: int) -> None:
        self._error_status = self._error_status or status
        if self._requests and not self._requests[-1].is_complete:  # the error is in its body
            self._requests[-1].fail()

    def _check_head(self) -> None:
        if self.head_started is None:
            self.head_started = self.owner.loop.time()
        if self._head_bytes > MAX_HEAD_BYTES:
            self._reject(431)

    def _update_reading(self) -> None:
        """Read from the connection, unless the application or the client is slower."""
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
