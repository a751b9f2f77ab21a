"""A client's connection, and what has been received from it."""

import errno
import re
import select
import socket
from functools import partial
from typing import Any, Protocol

from cheroot.server import HTTPConnection, HTTPRequest

from microjobs_orchestrator.local.gateway.streams import Reader, Writer

SMALL_BODY_BYTES = 64 << 10
"""Bodies up to this size are received with the headers, so that slow clients occupy no worker."""

_HEAD_END = re.compile(rb"\n\r?\n")
_SMALL_LENGTH = re.compile(rb"(?i)\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r?\n")
_EXPECT = re.compile(rb"(?i)\nexpect:")

_INVOCATION = re.compile(rb"POST /endpoints/[^/? ]+/invocations HTTP/1\.1\r\n")
"""The first line of a request that is served in a task."""


class Owner(Protocol):
    """What watches the connections of a listener."""

    def has_next_request(self, connection: "Connection", /) -> bool: ...

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
        self.has_served = False
        """Whether the server has answered one of its requests."""
        self.is_closing = False
        """Whether the last response ends the connection."""
        self.lingers = False
        """Whether the server still receives and discards data after the last response."""
        self.needed_bytes: int | None = None
        """Bytes of the first line, the headers and a small body; None before the headers are complete."""
        self.needs_worker = True
        """Whether a worker serves the request, instead of a task."""
        self.watched_event = 0
        """The event for which the connection is watched; 0: none. It is watched while a task serves it, because most
        clients send nothing until they have received the response."""
        self.linger_bytes: int | None = None
        """Bytes that may still be received after the last response; None while requests are expected."""
        self._poll = select.poll()
        self._poll.register(client_socket, select.POLLIN)

    def communicate(self) -> bool:
        """Serve a request, and those that follow it at once. Return whether the connection stays open."""
        connections: Owner = self.server._connections
        while super().communicate():  # type: ignore[no-untyped-call]
            if not connections.has_next_request(self):
                return True
        return False

    def receive(self, milliseconds: int) -> bool:
        """Wait for data, and receive it. Return False if there is none, or if the client has closed the connection."""
        return bool(self._poll.poll(milliseconds)) and self.rfile.fill_at_once()

    def check_client(self) -> None:
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
        """Close the connection once the client has received the last response."""
        connections: Owner = self.server._connections
        self.is_closing = True
        connections.put(self)

    def release(self) -> None:
        self.rfile.close()
        self.socket.close()

    def is_complete(self, max_head_bytes: int, old_size: int = 0) -> bool:
        """Return whether the first line, the headers and a small body have been received.

        Args:
            max_head_bytes: limit for the first line and the headers. A worker refuses longer ones.
            old_size: received bytes that are known not to contain the end of the headers.
        """
        buffered = self.rfile.buffered
        if self.needed_bytes is None and (end := _HEAD_END.search(buffered, max(old_size - 2, 0))):
            size = _find_body_size(bytes(buffered[: end.end()]))
            self.needed_bytes = end.end() + min(size or 0, SMALL_BODY_BYTES)
            self.needs_worker = size is None or size > SMALL_BODY_BYTES or not _INVOCATION.match(buffered)
        if self.needed_bytes is None:
            return len(buffered) > max_head_bytes
        return len(buffered) >= self.needed_bytes


def _open(timeout: float, client_socket: socket.socket, mode: str, _: int) -> Reader | Writer:
    """Create the two streams of a connection, for cheroot."""
    return Reader(client_socket) if "r" in mode else Writer(client_socket, timeout)


def _find_body_size(head: bytes) -> int | None:
    """Return the size of a small body; None if the headers have no small Content-Length, or have Expect."""
    length = _SMALL_LENGTH.search(head)
    return None if length is None or _EXPECT.search(head) else int(length[1])
