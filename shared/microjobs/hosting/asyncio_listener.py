"""The default listener: HTTP on an event loop, with the parser httptools. Granian forks and replaces the workers.

Before the application answers the first request that is ready, the listener reads all requests that are ready.
Therefore, the application can answer several requests together, and the code of each step stays in the processor's
caches. One thread reads and answers, so that requests need no handoff between threads.
"""

import asyncio
import functools
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from granian.server.mp import WorkerProcess

from .granian_server import make_server
from .http_connection import Connection
from .listener import Application, ListenerSettings, StartWorker

HEAD_TIMEOUT = 30.0
"""Seconds within which a request's head must arrive completely."""
CHECK_INTERVAL = 5.0
"""Seconds between two checks for heads that arrive too slowly."""
BACKLOG = 1024
"""Maximum number of connections that the system queues until the worker accepts them."""
ACCEPT_RETRY_SECONDS = 0.1
"""Seconds after which the worker accepts connections again if the system had no resources for a connection."""


def serve(start_worker: StartWorker, drain: Callable[[], None], settings: ListenerSettings) -> None:
    """See `listener.Serve`. Calls the application in the thread of an event loop."""
    run_worker = WorkerProcess.wrap_target(functools.partial(_run_worker, settings))  # type: ignore[no-untyped-call]
    make_server(drain, settings).serve(run_worker, start_worker, wrap_loader=False)


class Server:
    """Accepts the connections of one worker."""

    def __init__(
        self,
        application: Application,
        listening_socket: socket.socket,
        max_connections: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.loop = loop
        self.application = application
        self.thread_id = threading.get_ident()
        self.is_stopping = False
        self._listening_socket = listening_socket
        self._max_connections = max_connections
        self._connections: set[Connection] = set()
        self._opening_tasks: set[asyncio.Task[None]] = set()
        self._stopped_event = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop` has been called and the last connection is closed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stop)
        self._update_accepting()
        self._check_heads()
        await self._stopped_event.wait()

    def stop(self) -> None:
        self.is_stopping = True
        self._update_accepting()
        for connection in list(self._connections):
            connection.stop()
        self._end_if_idle()

    def add(self, connection: Connection) -> None:
        self._connections.add(connection)

    def remove(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._update_accepting()
        self._end_if_idle()

    def _update_accepting(self) -> None:
        """Accept connections unless too many are open, or the worker stops.

        If too many are open, new connections wait until an open connection is closed.
        """
        is_full = len(self._connections) + len(self._opening_tasks) >= self._max_connections
        if self.is_stopping or is_full:
            self.loop.remove_reader(self._listening_socket)
        else:
            self.loop.add_reader(self._listening_socket, self._accept)

    def _accept(self) -> None:
        """Accept one connection, unless another worker that shares the socket has accepted it first."""
        try:
            client, _ = self._listening_socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self.loop.remove_reader(self._listening_socket)
            self.loop.call_later(ACCEPT_RETRY_SECONDS, self._update_accepting)
            return
        client.setblocking(False)
        task = self.loop.create_task(self._open(client))
        self._opening_tasks.add(task)
        task.add_done_callback(self._end_opening)
        self._update_accepting()

    async def _open(self, client: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: Connection(self), client)
        except OSError:  # the client has closed the connection
            client.close()

    def _end_opening(self, task: "asyncio.Task[None]") -> None:
        self._opening_tasks.discard(task)
        self._update_accepting()

    def _check_heads(self) -> None:
        """Reject heads that arrive too slowly."""
        min_start_time = self.loop.time() - HEAD_TIMEOUT
        for connection in list(self._connections):
            if connection.head_start_time is not None and connection.head_start_time < min_start_time:
                connection.reject_slow_head()
        self.loop.call_later(CHECK_INTERVAL, self._check_heads)

    def _end_if_idle(self) -> None:
        if self.is_stopping and not self._connections:
            self._stopped_event.set()


def _run_worker(
    settings: ListenerSettings,
    _number: int,
    application: Application,
    sockets: Any,
    _ipc: Any,
    loop: asyncio.AbstractEventLoop,
    *_: Any,
) -> None:
    """Run a worker process, as Granian's own functions do for its interfaces."""
    specification, shared_socket = sockets  # a TCP port that each worker binds, or a Unix socket that all workers share
    holder = specification.build() if specification else shared_socket
    with socket.socket(fileno=holder.get_fd()) as listening_socket:
        listening_socket.setblocking(False)
        listening_socket.listen(BACKLOG)

        async def run() -> None:
            await Server(application, listening_socket, settings.max_connections, loop).run()

        loop.run_until_complete(run())
