"""A client's connection, and the data that the server has received on it."""

import errno
import re
import select
import socket
from functools import partial
from typing import Any, Protocol

from cheroot.server import HTTPConnection, HTTPRequest

from microjobs_orchestrator.local.console_address import CHANGES_PATH
from microjobs_orchestrator.local.gateway.streams import Reader, Writer

SMALL_BODY_BYTES = 64 << 10
"""Bodies up to this size are received with the headers, so that slow clients occupy no worker thread."""

NO_EVENT = 0
"""The value of `Connection.watched_event` if the listener does not watch the connection."""

_HEAD_END_PATTERN = re.compile(rb"\n\r?\n")
_SHORT_LENGTH_PATTERN = re.compile(rb"(?i)\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r?\n")
_EXPECT_PATTERN = re.compile(rb"(?i)\nexpect:")

_TASK_LINE_PATTERN = re.compile(
    rb"POST (?:/endpoints/[^/? ]+/invocations|%b) HTTP/1\.1\r\n" % re.escape(CHANGES_PATH.encode())
)
"""The first line of a request that is served in a task: an invocation, or a stream of the console's changes."""


class ConnectionManager(Protocol):
    """The methods of `Connections` that a connection calls."""

    def receive_next_request(self, connection: "Connection", /) -> bool: ...

    def put(self, connection: "Connection", /) -> None: ...


class Connection(HTTPConnection):
    """A client's connection.

    Args:
        parser_class: the class that parses the requests.
    """

    def __init__(
        self, server: Any, parser_class: type[HTTPRequest], client_socket: socket.socket, address: tuple[str, int]
    ) -> None:
        super().__init__(server, client_socket, partial(_open, server.timeout))
        self.RequestHandlerClass = parser_class
        self.remote_addr, self.remote_port = address
        self.deadline = 0.0
        """The time (`time.monotonic`) at which the listener stops waiting for the client and closes the connection."""
        self.has_served = False
        """Whether the server has answered a request of this connection."""
        self.is_closing = False
        """Whether no further request is served: the connection ends when the client has received all responses."""
        self.lingers = False
        """Whether the server still receives and discards data after the last response."""
        self.needed_bytes: int | None = None
        """Bytes that must be received before the request is served: the first line, the headers, and at most
        SMALL_BODY_BYTES of the body; None before the headers are complete."""
        self.needs_worker_thread = True
        """Whether a worker thread serves the request, instead of a task."""
        self.watched_event = NO_EVENT
        """The event that the listener waits for on this connection, or NO_EVENT. The listener continues to wait while a
        task serves the connection. To stop waiting would cost a system call, and save nothing: most clients send no
        data until they have received the response."""
        self.linger_bytes: int | None = None
        """Bytes that may still be received after the last response; None while requests are expected."""
        self._poll = select.poll()
        self._poll.register(client_socket, select.POLLIN)

    def communicate(self) -> bool:
        """Serve a request, and the requests that follow it immediately. Return whether the connection stays open."""
        connections: ConnectionManager = self.server._connections
        while super().communicate():  # type: ignore[no-untyped-call]
            if not connections.receive_next_request(self):
                return True
        return False

    def receive(self, milliseconds: int) -> bool:
        """Wait for data, and receive it. Return False if there is none, or if the client has closed the connection."""
        return bool(self._poll.poll(milliseconds)) and self.rfile.fill_at_once()

    def send_and_check_client(self) -> None:
        """Send the remaining bytes. Raise ConnectionError if the client has closed the connection."""
        self.wfile.send()
        timeout = self.socket.gettimeout()
        self.socket.setblocking(False)
        try:
            if not self.socket.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError(errno.ECONNRESET, "the client has closed the connection")
        except BlockingIOError:  # the client waits
            pass
        finally:
            self.socket.settimeout(timeout)

    def close(self) -> None:
        """Close the connection as soon as the client has received all responses."""
        connections: ConnectionManager = self.server._connections
        self.is_closing = True
        connections.put(self)

    def release(self) -> None:
        """Close the reader and the socket."""
        self.rfile.close()
        self.socket.close()

    def has_complete_request(self, max_head_bytes: int, old_size: int = 0) -> bool:
        """Return whether the first line, the headers and a small body have been received.

        Also return True if the first line and the headers are too long: a worker thread then refuses the request. As
        soon as all headers have been received, set `needed_bytes` and `needs_worker_thread`.

        Args:
            max_head_bytes: limit for the first line and the headers.
            old_size: received bytes that are known not to contain the end of the headers.
        """
        if not (buffered := self.rfile.received_bytes):
            return False
        if self.needed_bytes is None and (end := _HEAD_END_PATTERN.search(buffered, max(old_size - 2, 0))):
            size = _find_body_size(buffered, end.end())
            self.needed_bytes = end.end() + min(size or 0, SMALL_BODY_BYTES)
            self.needs_worker_thread = size is None or size > SMALL_BODY_BYTES or not _TASK_LINE_PATTERN.match(buffered)
        if self.needed_bytes is None:
            return len(buffered) > max_head_bytes
        return len(buffered) >= self.needed_bytes


def _open(timeout: float, client_socket: socket.socket, mode: str, _: int) -> Reader | Writer:
    """Create the reader or the writer of a connection. Cheroot calls this function once for each of them."""
    return Reader(client_socket) if "r" in mode else Writer(client_socket, timeout)


def _find_body_size(received_bytes: bytearray, head_size: int) -> int | None:
    """Return the value of Content-Length if it has at most five digits; None without such a value, and with Expect."""
    length = _SHORT_LENGTH_PATTERN.search(received_bytes, 0, head_size)
    return None if length is None or _EXPECT_PATTERN.search(received_bytes, 0, head_size) else int(length[1])
