"""Connections that wait for a request, or for the client to read the last response.

Without this module, cheroot would pass each new connection to a worker thread, which would wait for the request.
Silent clients could then occupy all threads. With this module, one thread watches all waiting connections, receives the
first line, the headers and a small body, and then passes the connection to a worker thread, called worker here. After a
response, a worker itself waits a short time for the next request: passing a connection to another thread would take
longer than a small request. Invocations and the console's streams of changes run as tasks on the thread that watches
the connections, so they need no worker.
"""

import logging
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from cheroot.server import HTTPConnection

from microjobs_orchestrator.local.gateway.connection import NO_EVENT, Connection
from microjobs_orchestrator.local.gateway.streams import BLOCK_BYTES
from microjobs_orchestrator.local.tasks import IN_TIME, READ, WRITE, Task, Tasks, Watcher

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Maximum number of connections of one listener. The limit is lower if the process may open fewer than 2048 files."""

HEAD_TIMEOUT = 10.0
"""Seconds for a request's first line, headers and small body together, and for a client to read some of a response."""

IDLE_TIMEOUT = 60.0
"""Seconds after which a connection without a new request is closed."""

NEXT_REQUEST_MILLISECONDS = 20
"""Time for which a worker waits for the next request of a connection."""

MAX_WAITING_WORKERS = 4
"""Maximum number of workers that wait for the next request of their connection. If the machine has idle processors, a
higher limit would save processor time. But if other programs use all processors, a switch to a waiting worker takes as
long as a request. A worker that takes requests from the queue does not need such a switch."""

DRAIN_TIMEOUT = 5.0
"""Seconds for the tasks to end when the server stops."""

LINGER_TIMEOUT = 1.0
LINGER_BYTES = 1 << 20
"""Limits, in seconds and bytes, for receiving and discarding the rest of a refused request. A client that is still
sending would lose the response if the server closed the connection at once."""

CHECK_INTERVAL = 0.25
"""Seconds between two checks for connections that have timed out."""

_BUSY_RESPONSE = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_TIMEOUT_RESPONSE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connections:
    """Replaces cheroot's `ConnectionManager`. Any thread may call `put`.

    Args:
        listener: accepts connections.
        make_connection: creates a connection from an accepted socket and its address.
        pass_to_worker: passes a connection with a complete request to a worker.
        max_head_bytes: limit for the first line and the headers. A worker refuses longer ones.
    """

    can_add_keepalive_connection = True

    def __init__(
        self,
        listener: socket.socket,
        make_connection: Callable[[socket.socket, tuple[str, int]], Connection],
        pass_to_worker: Callable[[Connection], None],
        max_head_bytes: int,
    ) -> None:
        self._listener = listener
        self._make_connection = make_connection
        self._pass_to_worker = pass_to_worker
        self._max_head_bytes = max_head_bytes
        self._max_connections = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._watcher = Watcher()
        self._watcher.register(listener, READ, listener)
        self._waiting_connections: dict[int, Connection] = {}
        """The connections that no worker and no task serves, by the descriptor of their socket."""
        self._open_count = 0
        self._lock, self._run_lock = threading.Lock(), threading.Lock()
        self._waiting_worker_slots = threading.BoundedSemaphore(MAX_WAITING_WORKERS)
        self._tasks = Tasks(self._watcher)
        self._is_stopping = False
        self._next_check_time = time.monotonic() + CHECK_INTERVAL

    # --- called by workers ---

    def put(self, connection: Connection) -> None:
        """Take back a connection after a response. Send the bytes that are not sent yet, and wait for the next
        request."""
        try:
            is_sent = connection.wfile.try_send()
        except OSError:  # the client has closed the connection
            self.close_connection(connection)
            return
        if not is_sent:
            self._start_waiting(connection, HEAD_TIMEOUT, WRITE)
        elif connection.is_closing:
            self._close_or_linger(connection)
        else:
            self._await_request(connection)

    def receive_next_request(self, connection: Connection) -> bool:
        """Wait a short time for the next request of a connection, and receive it. Return whether it is complete.

        Do not wait if the response is not sent yet, or if MAX_WAITING_WORKERS already wait.
        """
        if not (connection.wfile.try_send() and self._waiting_worker_slots.acquire(blocking=False)):
            return False
        connection.has_served = True
        connection.needed_bytes = None
        try:
            return connection.has_complete_request(self._max_head_bytes) or (
                connection.receive(NEXT_REQUEST_MILLISECONDS) and connection.has_complete_request(self._max_head_bytes)
            )
        except OSError:  # the client has closed the connection, and `put` will find out
            return False
        finally:
            self._waiting_worker_slots.release()

    def close_connection(self, connection: Connection) -> None:
        with self._lock:
            self._open_count -= 1
            with suppress(OSError, ValueError):  # the server stops, and its watcher is closed
                self._watch(connection, NO_EVENT)
        connection.release()

    # --- called by the server ---

    def run(self, _: float) -> None:
        with self._run_lock:
            while not self._is_stopping:
                self._handle_events()
            self._watcher.unregister(self._listener)
            deadline = time.monotonic() + DRAIN_TIMEOUT
            while self._tasks.count and time.monotonic() < deadline:
                self._handle_events()

    def stop(self) -> None:
        self._is_stopping = True
        self._tasks.call_soon(lambda: None)  # wake the thread that watches the connections
        with self._run_lock:  # wait until `run` has returned
            pass

    def close(self) -> None:
        with self._lock:
            waiting_connections = list(self._waiting_connections.values())
            self._waiting_connections.clear()
            self._watcher.close()
        self._tasks.close()
        for connection in waiting_connections:
            self.close_connection(connection)

    # --- called by this module ---

    def _await_request(self, connection: Connection) -> None:
        connection.has_served = True
        connection.needed_bytes = None
        if connection.has_complete_request(self._max_head_bytes):
            self._stop_waiting(connection)
            self._pass_to_worker(connection)
        else:
            self._start_waiting(connection, HEAD_TIMEOUT if connection.rfile.received_bytes else IDLE_TIMEOUT)

    def _close_or_linger(self, connection: Connection) -> None:
        """Close a connection. After a refused request, receive the rest of the request for a short time first."""
        if not connection.lingers:
            self.close_connection(connection)
            return
        connection.linger_bytes = LINGER_BYTES
        with suppress(OSError):  # the client has closed the connection
            connection.socket.shutdown(socket.SHUT_WR)
        self._start_waiting(connection, LINGER_TIMEOUT)

    def _start_waiting(self, connection: Connection, seconds: float, event: int = READ) -> None:
        connection.deadline = time.monotonic() + seconds
        if connection.socket.gettimeout() != 0:
            connection.socket.settimeout(0)
        try:
            with self._lock:
                self._waiting_connections[connection.socket.fileno()] = connection
                self._watch(connection, event)
        except (OSError, ValueError):  # the server stops, and its watcher is closed
            self.close_connection(connection)

    def _watch(self, connection: Connection, event: int) -> None:
        """Watch a connection for an event; NO_EVENT: do not watch it."""
        if connection.watched_event not in (NO_EVENT, event):
            self._watcher.unregister(connection.socket)
        if event not in (NO_EVENT, connection.watched_event):
            self._watcher.register(connection.socket, event, connection)
        connection.watched_event = event

    def _stop_waiting(self, connection: Connection) -> None:
        with self._lock:
            self._waiting_connections.pop(connection.socket.fileno(), None)
            self._watch(connection, NO_EVENT)

    def _handle_events(self) -> None:
        for waiter in self._watcher.select(CHECK_INTERVAL):
            if isinstance(waiter, Task):
                waiter.switch(IN_TIME)  # the socket that the task waits for is ready
            elif isinstance(waiter, Connection):
                self._handle_connection_event(waiter)
            elif isinstance(waiter, Tasks):
                waiter.run_calls()
            else:
                self._accept()
        if time.monotonic() >= self._next_check_time:
            self._next_check_time = time.monotonic() + CHECK_INTERVAL
            self._tasks.resume_late_tasks(time.monotonic())
            self._close_late_connections()

    def _handle_connection_event(self, connection: Connection) -> None:
        with self._lock:
            if self._waiting_connections.get(connection.socket.fileno()) is not connection:  # a task serves it
                self._watch(connection, NO_EVENT)
                return
        try:
            if connection.watched_event == WRITE:
                self._stop_waiting(connection)
                self.put(connection)
            elif connection.linger_bytes is None:
                self._receive(connection)
            else:
                self._discard(connection, connection.linger_bytes)
        except BlockingIOError:
            return
        except OSError:
            self._close_waiting_connection(connection)

    def _accept(self) -> None:
        try:
            client_socket, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # such as too many open files
            logger.warning("cannot accept a connection: %s", error)
            time.sleep(CHECK_INTERVAL)
            return
        if self._open_count >= self._max_connections and not self._make_room():
            with client_socket, suppress(OSError):
                client_socket.settimeout(0)
                client_socket.send(_BUSY_RESPONSE)
            return
        with self._lock:
            self._open_count += 1
        self._receive_first(self._make_connection(client_socket, address))

    def _receive_first(self, connection: Connection) -> None:
        """Receive data of a new connection. Most clients have sent their whole request by now."""
        connection.socket.settimeout(0)
        is_open = True
        try:
            is_open = connection.rfile.fill()
        except BlockingIOError:
            pass
        except OSError:
            is_open = False
        if not is_open:
            self.close_connection(connection)
        elif connection.has_complete_request(self._max_head_bytes):
            self._dispatch(connection)
        else:
            self._start_waiting(connection, HEAD_TIMEOUT)

    def _dispatch(self, connection: Connection) -> None:
        """Serve a complete request in a task, or pass it to a worker."""
        if connection.needs_worker_thread:
            self._stop_waiting(connection)
            self._pass_to_worker(connection)
        else:
            self._waiting_connections.pop(connection.socket.fileno(), None)
            self._tasks.start(partial(self._serve_in_task, connection))

    def _serve_in_task(self, connection: Connection) -> None:
        if HTTPConnection.communicate(connection):  # type: ignore[no-untyped-call]
            self.put(connection)
        else:
            connection.close()

    def _make_room(self) -> bool:
        """Close a waiting connection, to make room for a new one. Return False if no connection waits.

        Prefer connections that have not received a response yet. Among these, take the one with the earliest deadline.
        """
        with self._lock:
            waiting_connections = list(self._waiting_connections.values())
        if not waiting_connections:
            return False
        self._close_waiting_connection(
            min(waiting_connections, key=lambda connection: (connection.has_served, connection.deadline))
        )
        return True

    def _receive(self, connection: Connection) -> None:
        """Receive data of a request, and serve the request if it is complete."""
        old_size = len(connection.rfile.received_bytes)
        if not old_size:
            connection.deadline = min(connection.deadline, time.monotonic() + HEAD_TIMEOUT)
        is_open = connection.rfile.fill()
        if self._is_stopping:
            self._close_waiting_connection(connection)
        elif connection.has_complete_request(self._max_head_bytes, old_size):
            self._dispatch(connection)
        elif not is_open and old_size:  # a worker reports that the request is incomplete
            self._stop_waiting(connection)
            self._pass_to_worker(connection)
        elif not is_open:
            self._close_waiting_connection(connection)

    def _discard(self, connection: Connection, limit: int) -> None:
        """Receive and discard data of a refused request. Close the connection at the end, or after `limit` bytes."""
        count = len(connection.socket.recv(BLOCK_BYTES))
        connection.linger_bytes = limit - count
        if not count or connection.linger_bytes <= 0:
            self._close_waiting_connection(connection)

    def _close_late_connections(self) -> None:
        now = time.monotonic()
        with self._lock:
            late_connections = [
                connection for connection in self._waiting_connections.values() if connection.deadline <= now
            ]
        for connection in late_connections:
            if connection.rfile.received_bytes and connection.linger_bytes is None:
                with suppress(OSError):
                    if connection.wfile.try_send():  # all earlier bytes have been sent
                        connection.socket.send(_TIMEOUT_RESPONSE)
            self._close_waiting_connection(connection)

    def _close_waiting_connection(self, connection: Connection) -> None:
        self._stop_waiting(connection)
        self.close_connection(connection)
