"""Connections that no thread works on: they wait for a request, or for the client to read a last answer.

Cheroot gives each new connection to a worker thread at once, which then waits for the request: as many silent clients
as there are threads stop the server. Here one thread watches all connections that wait, receives the first line, the
headers and a small body, and gives a connection to a worker when they are complete.
"""

import logging
import re
import resource
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from microjobs_orchestrator.local.gateway.streams import BLOCK_BYTES, Reader

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Open connections of one listener, where the process may open four times as many files."""

HEAD_SECONDS = 10.0
"""Time for a request's first line, headers and small body together."""

IDLE_SECONDS = 60.0
"""Time that a connection is kept between two requests."""

LINGER_SECONDS = 1.0
LINGER_BYTES = 1 << 20
"""Received after a refusal: otherwise a client that still sends is reset before it has read the answer."""

CHECK_SECONDS = 0.25
"""Interval between two looks for connections whose time is up."""

SMALL_BODY_BYTES = 64 << 10
"""A body of this size is received together with the headers: clients that do not send it occupy no worker."""

_HEAD_END = re.compile(rb"\n\r?\n")
_SMALL_LENGTH = re.compile(rb"(?i)\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r?\n")
_EXPECT = re.compile(rb"(?i)\nexpect:")

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(Protocol):
    """A connection as cheroot has it, with what is needed here."""

    rfile: Reader
    socket: socket.socket
    has_served: bool
    """A request was answered: the client is no stranger that only occupies a place."""
    deadline: float
    needed_bytes: int | None
    """Bytes of the first line, the headers and a small body; None before the headers have come."""
    linger_bytes: int | None
    """Bytes that may still be received after the last answer; None while requests are expected."""

    def release(self) -> None:
        """Close the socket."""


def _count_small_body(head: bytes) -> int:
    """The bytes of a body that is received with the headers; 0 for one that a worker reads, or that is not sent yet."""
    length = _SMALL_LENGTH.search(head)
    return 0 if length is None or _EXPECT.search(head) else min(int(length[1]), SMALL_BODY_BYTES)


def _is_writable(connected: socket.socket) -> bool:
    """Whether there is room for an answer, because the client has read most of those before it."""
    poll = select.poll()
    poll.register(connected, select.POLLOUT)
    return bool(poll.poll(0))


class Connections:
    """Stands in for cheroot's `ConnectionManager`. `put` may be called from any thread.

    Args:
        listener: accepts connections; its timeout does not matter.
        connect: makes a connection of an accepted socket and its address.
        serve: gives a connection with a complete request to a worker.
        max_head_bytes: a longer first line and headers are given to a worker as they are, to be refused.
    """

    can_add_keepalive_connection = True

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[socket.socket, tuple[str, int]], Connection],
        serve: Callable[[Connection], None],
        max_head_bytes: int,
    ) -> None:
        self._listener = listener
        self._connect = connect
        self._serve = serve
        self._max_head_bytes = max_head_bytes
        self._max_connections = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._waiting: dict[int, Connection] = {}
        self._open_count = 0
        self._lock = threading.Lock()
        self._is_stopping = False
        self._is_running = False

    # --- called by workers ---

    def put(self, connection: Connection) -> None:
        """Take back a connection whose request was answered."""
        connection.has_served = True
        connection.needed_bytes = None
        if not self._is_complete(connection, 0):
            self._wait_or_close(connection, HEAD_SECONDS if connection.rfile.buffered else IDLE_SECONDS)
        elif _is_writable(connection.socket):
            self._serve(connection)
        else:  # a worker would wait for a client that sends requests and reads no answers
            self._wait_or_close(connection, HEAD_SECONDS, selectors.EVENT_WRITE)

    def linger(self, connection: Connection) -> None:
        """Receive the rest of a refused request for a moment, then close the connection."""
        connection.linger_bytes = LINGER_BYTES
        with suppress(OSError):  # the client is gone
            connection.socket.shutdown(socket.SHUT_WR)
        self._wait_or_close(connection, LINGER_SECONDS)

    def close_connection(self, connection: Connection) -> None:
        with self._lock:
            self._open_count -= 1
        connection.release()

    # --- called by the server ---

    def run(self, _: float) -> None:
        """Serve until `stop`."""
        self._is_running = True
        try:
            next_check = time.monotonic() + CHECK_SECONDS
            while not self._is_stopping:
                for key, _events in self._selector.select(CHECK_SECONDS):
                    self._advance(key)
                if time.monotonic() >= next_check:
                    self._close_late_ones()
                    next_check = time.monotonic() + CHECK_SECONDS
        finally:
            self._is_running = False

    def stop(self) -> None:
        self._is_stopping = True
        while self._is_running:
            time.sleep(0.01)

    def close(self) -> None:
        with self._lock:
            waiting = list(self._waiting.values())
            self._waiting.clear()
            self._selector.close()
        for connection in waiting:
            self.close_connection(connection)

    # --- inside ---

    def _wait(self, connection: Connection, seconds: float, event: int = selectors.EVENT_READ) -> None:
        connection.deadline = time.monotonic() + seconds
        connection.socket.settimeout(0)
        with self._lock:
            self._waiting[connection.socket.fileno()] = connection
            self._selector.register(connection.socket, event, connection)

    def _wait_or_close(self, connection: Connection, seconds: float, event: int = selectors.EVENT_READ) -> None:
        try:
            self._wait(connection, seconds, event)
        except (OSError, ValueError, KeyError):  # the server ends, and its selector is closed
            self.close_connection(connection)

    def _unwait(self, connection: Connection) -> None:
        with self._lock:
            del self._waiting[connection.socket.fileno()]
            self._selector.unregister(connection.socket)

    def _advance(self, key: selectors.SelectorKey) -> None:
        connection: Connection | None = key.data
        if connection is not None and self._waiting.get(key.fd) is not connection:
            return  # it was closed to make room
        try:
            if connection is None:
                self._accept()
            elif key.events == selectors.EVENT_WRITE:
                self._unwait(connection)
                self._serve(connection)
            elif connection.linger_bytes is None:
                self._receive(connection)
            else:
                self._discard(connection, connection.linger_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            if connection is None:  # such as too many open files
                logger.warning("cannot accept a connection: %s", error)
                time.sleep(CHECK_SECONDS)
            else:
                self._drop(connection)

    def _accept(self) -> None:
        accepted, address = self._listener.accept()
        if self._open_count >= self._max_connections and not self._make_room():
            with accepted, suppress(OSError):
                accepted.settimeout(0)
                accepted.send(_BUSY)
            return
        with self._lock:
            self._open_count += 1
        connection = self._connect(accepted, address)
        connection.socket.settimeout(0)
        try:
            self._receive_first(connection)
        except BlockingIOError:
            self._wait(connection, HEAD_SECONDS)
        except OSError:
            self.close_connection(connection)

    def _receive_first(self, connection: Connection) -> None:
        """Most clients have sent their request when they are accepted: then nothing needs to be registered."""
        connection.rfile.fill()
        if not connection.rfile.buffered:
            self.close_connection(connection)
        elif self._is_complete(connection, 0):
            self._serve(connection)
        else:
            self._wait(connection, HEAD_SECONDS)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest, of those that have sent no request if there are any."""
        with self._lock:
            waiting = list(self._waiting.values())
        if not waiting:
            return False
        self._drop(min(waiting, key=lambda connection: (connection.has_served, connection.deadline)))
        return True

    def _receive(self, connection: Connection) -> None:
        known = len(connection.rfile.buffered)
        if not known:
            connection.deadline = min(connection.deadline, time.monotonic() + HEAD_SECONDS)
        is_open = connection.rfile.fill()
        if self._is_complete(connection, known) or (not is_open and known):
            self._unwait(connection)
            self._serve(connection)
        elif not is_open:
            self._drop(connection)

    def _is_complete(self, connection: Connection, known: int) -> bool:
        """Whether a worker can read the first line, the headers and a small body without waiting."""
        buffered = connection.rfile.buffered
        if connection.needed_bytes is None and (end := _HEAD_END.search(buffered, max(known - 2, 0))):
            connection.needed_bytes = end.end() + _count_small_body(bytes(buffered[: end.end()]))
        if connection.needed_bytes is None:
            return len(buffered) > self._max_head_bytes
        return len(buffered) >= connection.needed_bytes

    def _discard(self, connection: Connection, left: int) -> None:
        received = len(connection.socket.recv(BLOCK_BYTES))
        connection.linger_bytes = left - received
        if not received or connection.linger_bytes <= 0:
            self._drop(connection)

    def _close_late_ones(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [connection for connection in self._waiting.values() if connection.deadline <= now]
        for connection in late:
            if connection.rfile.buffered and connection.linger_bytes is None:
                with suppress(OSError):
                    connection.socket.send(_LATE)
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._unwait(connection)
        self.close_connection(connection)
