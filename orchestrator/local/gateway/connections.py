"""Connections that wait: for a request, or for the client to read the last response.

Cheroot passes each new connection to a worker thread, which then waits for the request. Therefore, silent clients can
occupy all threads. This module replaces that: one thread watches all waiting connections, receives the first line, the
headers and a small body, and then passes the connection to a worker. After a response, a worker waits for the next
request itself for a short time, because passing a connection between threads takes longer than a small request.
"""

import errno
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
from typing import Any

from cheroot.server import HTTPConnection, HTTPRequest

from microjobs_orchestrator.local.gateway.streams import BLOCK_BYTES, Reader, Writer

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Maximum number of connections of one listener. It is lower if the process may open fewer than 2048 files."""

HEAD_TIMEOUT = 10.0
"""Time for a request's first line, headers and small body together, and for a client to read some of a response."""

IDLE_TIMEOUT = 60.0
"""Time after which a connection without a new request is closed."""

FOLLOW_MILLISECONDS = 20
"""Time for which a worker waits for the next request of a connection."""

MAX_FOLLOWING = 4
"""Maximum number of workers that wait so. More of them would use less processor time, but if other programs use all
processors, each switch between them takes as long as a request; a worker that takes requests from the queue need not
switch."""

LINGER_TIMEOUT = 1.0
LINGER_BYTES = 1 << 20
"""Limits for receiving and discarding a refused request. A client that is still sending would lose the response if the
server closed the connection at once."""

CHECK_INTERVAL = 0.25
"""Interval between two checks for connections that have timed out."""

SMALL_BODY_BYTES = 64 << 10
"""Bodies up to this size are received with the headers, so that slow clients occupy no worker."""

_HEAD_END = re.compile(rb"\n\r?\n")
_SMALL_LENGTH = re.compile(rb"(?i)\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r?\n")
_EXPECT = re.compile(rb"(?i)\nexpect:")

_BUSY_RESPONSE = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_TIMEOUT_RESPONSE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(HTTPConnection):
    """A client's connection.

    Args:
        parser_class: the class that parses the requests.
    """

    def __init__(
        self, server: Any, parser_class: type[HTTPRequest], client_socket: socket.socket, address: tuple[str, int]
    ) -> None:
        super().__init__(server, client_socket, _open)
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
        self.linger_bytes: int | None = None
        """Bytes that may still be received after the last response; None while requests are expected."""
        self._poll = select.poll()
        self._poll.register(client_socket, select.POLLIN)

    def communicate(self) -> bool:
        """Serve a request, and those that follow it at once. Return whether the connection stays open."""
        connections: Connections = self.server._connections
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
        connections: Connections = self.server._connections
        self.is_closing = True
        connections.put(self)

    def release(self) -> None:
        self.rfile.close()
        self.socket.close()


def _open(client_socket: socket.socket, mode: str, _: int) -> Reader | Writer:
    """Create the two streams of a connection, for cheroot."""
    return Reader(client_socket) if "r" in mode else Writer(client_socket)


def _small_body_size(head: bytes) -> int:
    """Return the size of a body that is received with the headers; 0 if a worker reads it later."""
    length = _SMALL_LENGTH.search(head)
    return 0 if length is None or _EXPECT.search(head) else min(int(length[1]), SMALL_BODY_BYTES)


class Connections:
    """Replaces cheroot's `ConnectionManager`. Any thread may call `put`.

    Args:
        listener: accepts connections.
        make_connection: creates a connection from an accepted socket and its address.
        serve: passes a connection with a complete request to a worker.
        max_head_bytes: limit for the first line and the headers. A worker refuses longer ones.
    """

    can_add_keepalive_connection = True

    def __init__(
        self,
        listener: socket.socket,
        make_connection: Callable[[socket.socket, tuple[str, int]], Connection],
        serve: Callable[[Connection], None],
        max_head_bytes: int,
    ) -> None:
        self._listener = listener
        self._make_connection = make_connection
        self._serve = serve
        self._max_head_bytes = max_head_bytes
        self._max_connections = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._waiting: dict[int, Connection] = {}
        self._open_count = 0
        self._lock, self._run_lock = threading.Lock(), threading.Lock()
        self._following = threading.BoundedSemaphore(MAX_FOLLOWING)
        self._is_stopping = False

    # --- called by workers ---

    def put(self, connection: Connection) -> None:
        """Take back a connection from a worker after a response: send the rest, and wait for the next request."""
        try:
            is_sent = connection.wfile.try_send()
        except OSError:  # the client has closed the connection
            self.close_connection(connection)
            return
        if not is_sent:
            self._wait(connection, HEAD_TIMEOUT, selectors.EVENT_WRITE)
        elif connection.is_closing:
            self._end(connection)
        else:
            self._await_request(connection)

    def has_next_request(self, connection: Connection) -> bool:
        """Wait a short time for the next request of a connection. Return whether it is complete."""
        if not (connection.wfile.try_send() and self._following.acquire(blocking=False)):
            return False
        connection.has_served = True
        connection.needed_bytes = None
        try:
            return self._is_complete(connection, 0) or (
                connection.receive(FOLLOW_MILLISECONDS) and self._is_complete(connection, 0)
            )
        except OSError:  # the client has closed the connection, and `put` will find out
            return False
        finally:
            self._following.release()

    def close_connection(self, connection: Connection) -> None:
        with self._lock:
            self._open_count -= 1
        connection.release()

    # --- called by the server ---

    def run(self, _: float) -> None:
        next_check = time.monotonic() + CHECK_INTERVAL
        with self._run_lock:
            while not self._is_stopping:
                for key, _events in self._selector.select(CHECK_INTERVAL):
                    self._handle_event(key)
                if time.monotonic() >= next_check:
                    self._close_late_connections()
                    next_check = time.monotonic() + CHECK_INTERVAL

    def stop(self) -> None:
        self._is_stopping = True
        with self._run_lock:  # wait until `run` has returned
            pass

    def close(self) -> None:
        with self._lock:
            waiting = list(self._waiting.values())
            self._waiting.clear()
            self._selector.close()
        for connection in waiting:
            self.close_connection(connection)

    # --- called by this module ---

    def _await_request(self, connection: Connection) -> None:
        connection.has_served = True
        connection.needed_bytes = None
        if self._is_complete(connection, 0):
            self._serve(connection)
        else:
            self._wait(connection, HEAD_TIMEOUT if connection.rfile.buffered else IDLE_TIMEOUT)

    def _end(self, connection: Connection) -> None:
        """Close a connection. After a refused request, receive the rest of the request for a short time first."""
        if not connection.lingers:
            self.close_connection(connection)
            return
        connection.linger_bytes = LINGER_BYTES
        with suppress(OSError):  # the client has closed the connection
            connection.socket.shutdown(socket.SHUT_WR)
        self._wait(connection, LINGER_TIMEOUT)

    def _wait(self, connection: Connection, seconds: float, event: int = selectors.EVENT_READ) -> None:
        connection.deadline = time.monotonic() + seconds
        connection.socket.settimeout(0)
        try:
            with self._lock:
                self._waiting[connection.socket.fileno()] = connection
                self._selector.register(connection.socket, event, connection)
        except (OSError, ValueError, KeyError):  # the server stops, and its selector is closed
            self.close_connection(connection)

    def _stop_waiting(self, connection: Connection) -> None:
        with self._lock:
            del self._waiting[connection.socket.fileno()]
            self._selector.unregister(connection.socket)

    def _handle_event(self, key: selectors.SelectorKey) -> None:
        connection: Connection | None = key.data
        if connection is not None and self._waiting.get(key.fd) is not connection:
            return  # it was closed to make room for a new connection
        try:
            if connection is None:
                self._accept()
            else:
                self._handle_connection_event(connection, key.events)
        except BlockingIOError:
            return
        except OSError as error:
            if connection is None:  # such as too many open files
                logger.warning("cannot accept a connection: %s", error)
                time.sleep(CHECK_INTERVAL)
            else:
                self._drop(connection)

    def _handle_connection_event(self, connection: Connection, event: int) -> None:
        if event == selectors.EVENT_WRITE:
            self._stop_waiting(connection)
            self.put(connection)
        elif connection.linger_bytes is None:
            self._receive(connection)
        else:
            self._discard(connection, connection.linger_bytes)

    def _accept(self) -> None:
        client_socket, address = self._listener.accept()
        if self._open_count >= self._max_connections and not self._make_room():
            with client_socket, suppress(OSError):
                client_socket.settimeout(0)
                client_socket.send(_BUSY_RESPONSE)
            return
        with self._lock:
            self._open_count += 1
        connection = self._make_connection(client_socket, address)
        connection.socket.settimeout(0)
        is_open = True
        try:  # most clients have sent their request by now, so most connections need not wait
            is_open = connection.rfile.fill()
        except BlockingIOError:
            pass
        except OSError:
            is_open = False
        if not is_open:
            self.close_connection(connection)
        elif self._is_complete(connection, 0):
            self._serve(connection)
        else:
            self._wait(connection, HEAD_TIMEOUT)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest, preferably one that has sent no request."""
        with self._lock:
            waiting = list(self._waiting.values())
        if not waiting:
            return False
        self._drop(min(waiting, key=lambda connection: (connection.has_served, connection.deadline)))
        return True

    def _receive(self, connection: Connection) -> None:
        old_size = len(connection.rfile.buffered)
        if not old_size:
            connection.deadline = min(connection.deadline, time.monotonic() + HEAD_TIMEOUT)
        is_open = connection.rfile.fill()
        if self._is_complete(connection, old_size) or (not is_open and old_size):
            self._stop_waiting(connection)
            self._serve(connection)
        elif not is_open:
            self._drop(connection)

    def _is_complete(self, connection: Connection, old_size: int) -> bool:
        """Return whether a worker can read the first line, the headers and a small body without waiting."""
        buffered = connection.rfile.buffered
        if connection.needed_bytes is None and (end := _HEAD_END.search(buffered, max(old_size - 2, 0))):
            connection.needed_bytes = end.end() + _small_body_size(bytes(buffered[: end.end()]))
        if connection.needed_bytes is None:
            return len(buffered) > self._max_head_bytes
        return len(buffered) >= connection.needed_bytes

    def _discard(self, connection: Connection, limit: int) -> None:
        received = len(connection.socket.recv(BLOCK_BYTES))
        connection.linger_bytes = limit - received
        if not received or connection.linger_bytes <= 0:
            self._drop(connection)

    def _close_late_connections(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [connection for connection in self._waiting.values() if connection.deadline <= now]
        for connection in late:
            if connection.rfile.buffered and connection.linger_bytes is None:
                with suppress(OSError):
                    if connection.wfile.try_send():  # not in the middle of a response
                        connection.socket.send(_TIMEOUT_RESPONSE)
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._stop_waiting(connection)
        self.close_connection(connection)
