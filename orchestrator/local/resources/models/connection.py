"""One persistent HTTP connection to a container, with one request at a time."""

import contextlib
import itertools
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from microjobs_orchestrator.local.tasks import READ, WRITE, wait

CHUNK_BYTES = 1 << 16
MAX_HEAD_BYTES = 1 << 16
MAX_HEADERS = 100
"""Limits for the status line and the headers of a response."""


class StaleError(Exception):
    """A reused connection was closed before the first byte of a response arrived."""


class Headers(Mapping[str, str]):
    """Headers of a response. Names are case-insensitive; repeated headers are joined by commas."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._count = self._size = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Add a header. Raise HttpParserError if the headers are too many or too long."""
        self._count += 1
        self._size += len(name) + len(value)
        if self._count > MAX_HEADERS or self._size > MAX_HEAD_BYTES:
            raise HttpParserError(f"it has more than {MAX_HEADERS} headers, or {MAX_HEAD_BYTES} bytes of headers")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._values[key] = f"{self._values[key]}, {text}" if key in self._values else text

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header as `Mapping.get` does, but faster: a missing header raises no internal exception."""
        return self._values.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _Message:
    """The received parts of a response. httptools calls the methods whose names begin with `on_`."""

    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self.reset()

    def reset(self) -> None:
        """Prepare for the next response."""
        self.status, self.headers = 0, Headers()
        self.parts: list[bytes] = []
        self.has_headers = self.has_ended = self.is_persistent = False
        self.has_surplus = False
        """Whether the container has sent more than one response to one request."""

    def on_message_begin(self) -> None:
        self.has_surplus = self.has_ended

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_surplus:
            self.headers.add(name, value)

    def on_headers_complete(self) -> None:
        if not self.has_surplus:
            self.status = self.parser.get_status_code()
            self.has_headers = not 100 <= self.status < 200

    def on_body(self, part: bytes) -> None:
        if not self.has_surplus:
            self.parts.append(part)

    def on_message_complete(self) -> None:
        if self.has_headers:
            self.has_ended, self.is_persistent = True, self.parser.should_keep_alive()
        else:  # the message is an interim response, such as 100
            self.headers = Headers()

    @property
    def ends_with_connection(self) -> bool:
        """Whether the response has no length, so that it ends with the connection."""
        is_chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        return self.has_headers and not is_chunked and "Content-Length" not in self.headers


class Connection:
    """A connection that is reused. The container may close it even while a request is being sent (RFC 9112, 9.5)."""

    def __init__(self, connected_socket: socket.socket) -> None:
        self._socket = connected_socket
        connected_socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(connected_socket, select.POLLIN)
        self._message = _Message()
        self._may_be_stale = False
        """Whether the connection is reused, and no byte of a response to the current request has arrived."""
        with contextlib.suppress(OSError):  # a Unix socket has no such option
            connected_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def is_reusable(self) -> bool:
        """Whether the response has been received, and another request can be sent."""
        message = self._message
        return message.has_ended and message.is_persistent and not message.has_surplus

    def is_idle(self) -> bool:
        """Return whether the container has neither closed the connection nor sent data without a request."""
        return not self._poll.poll(0)

    def send(self, head: bytes, body: Iterable[bytes], deadline: float) -> None:
        """Send a request. The first part of the body is sent with the head, if it is small."""
        self._may_be_stale = self._message.has_ended
        self._message.reset()
        parts = iter(body)
        try:
            first = next(parts, b"")
            is_small = len(first) <= CHUNK_BYTES
            for part in itertools.chain((head + first,) if is_small else (head, first), parts):
                self._send(part, deadline)
        except ConnectionError:  # the container may have responded to the first part; if not, `receive_head` raises
            pass

    def _send(self, data: bytes, deadline: float) -> None:
        unsent = memoryview(data)
        while unsent:
            try:
                unsent = unsent[self._socket.send(unsent) :]
            except BlockingIOError:
                wait(self._socket, WRITE, deadline)

    def receive_head(self, deadline: float) -> tuple[int, Headers]:
        """Receive the status and the headers.

        Raises:
            StaleError: the request can be sent again on another connection.
            OSError: the response is incomplete, or late (TimeoutError).
            HttpParserError: the response is not HTTP.
        """
        message, size = self._message, 0
        while not message.has_headers:
            size += self._receive(deadline)
            if size > MAX_HEAD_BYTES and not message.has_headers:
                raise HttpParserError(f"its headers have more than {MAX_HEAD_BYTES} bytes")
        if message.status < 100:
            raise HttpParserError(f"its status is {message.status}")
        return message.status, message.headers

    def receive_part(self, deadline: float) -> bytes:
        """Receive the next part of the body; empty at its end. Raise as `receive_head` does."""
        message = self._message
        while not (message.parts or message.has_ended):
            self._receive(deadline)
        return message.parts.pop(0) if message.parts else b""

    def _receive(self, deadline: float) -> int:
        """Receive and parse some bytes; return their number."""
        try:
            data = self._receive_bytes(deadline)
        except ConnectionError:
            self._raise_if_stale()
            raise
        if data:
            self._may_be_stale = False
            try:
                self._message.parser.feed_data(data)
            except HttpParserUpgrade as error:
                raise HttpParserError("the container changed the protocol") from error
        elif self._message.ends_with_connection:
            self._message.has_ended = True
        else:
            self._raise_if_stale()
            raise ConnectionResetError("the container closed the connection before the end of its response")
        return len(data)

    def _receive_bytes(self, deadline: float) -> bytes:
        while True:
            wait(self._socket, READ, deadline)
            with contextlib.suppress(BlockingIOError):
                return self._socket.recv(CHUNK_BYTES)

    def _raise_if_stale(self) -> None:
        if self._may_be_stale:
            raise StaleError

    def shut_down(self) -> None:
        """Shut the socket down, which ends a response that another thread receives. Any thread may call this method."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()
