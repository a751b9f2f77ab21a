"""Forwards connections of hosts to this machine, on engines whose containers cannot connect to it.

Each guard has one carrier that waits for a connection; see `orchestrator/local/guard/carrier.py`. When a client has
connected to the carrier, the server connects the carrier to a port of this machine, and starts the next carrier.
"""

import contextlib
import logging
import socket
import threading
from http import HTTPStatus

from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from microjobs_orchestrator.local.guard import carrier
from microjobs_orchestrator.local.guard.relay import pump_both_directions
from microjobs_orchestrator.local.runtimes.docker.engine import RETRY_DELAY_SECONDS, UNREACHABLE_ERRORS
from microjobs_orchestrator.local.runtimes.docker.guards import make_command
from microjobs_orchestrator.local.runtimes.docker.networks import LOOPBACK
from microjobs_orchestrator.local.runtimes.docker.tunnel import open_tunnel

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds to connect to the port of this machine."""


class Forwarding:
    """Connects the hosts of many guards to one port of this machine. Methods may be called from any thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_closed = threading.Event()
        self._waiting_connections: set[socket.socket] = set()
        """Connections to carriers that wait for a client."""

    def start(self, guard: Container) -> None:
        """Forward connections in the background until the guard ends."""
        threading.Thread(target=self._run, args=(guard,), name=f"forwarding {guard.name}", daemon=True).start()

    def close(self) -> None:
        """End the waiting carriers, and start no more carriers."""
        self._is_closed.set()
        for connection in self._waiting_connections.copy():
            with contextlib.suppress(OSError):  # the thread of the connection closes it
                connection.shutdown(socket.SHUT_RDWR)

    def _run(self, guard: Container) -> None:
        while not self._is_closed.is_set():
            try:
                connection = open_tunnel(guard, make_command(carrier))
            except (DockerException, *UNREACHABLE_ERRORS) as error:
                if isinstance(error, NotFound) or getattr(error, "status_code", 0) == HTTPStatus.CONFLICT:
                    return  # no carrier can start, because the guard has ended
                logger.debug("no carrier starts in %s: %s", guard.name, error)
            else:
                if self._await_client(connection):
                    continue
            self._is_closed.wait(RETRY_DELAY_SECONDS)

    def _await_client(self, connection: socket.socket) -> bool:
        """Wait until a client has connected to a carrier, and connect the carrier to the port. Return False if the
        carrier ended first."""
        self._waiting_connections.add(connection)
        try:
            if not self._is_closed.is_set() and connection.recv(1) == carrier.CONNECTED_REPLY:
                threading.Thread(target=self._connect, args=(connection,), daemon=True).start()
                return True
        except OSError as error:
            logger.debug("a carrier has ended: %s", error)
        finally:
            self._waiting_connections.discard(connection)
        connection.close()
        return False

    def _connect(self, connection: socket.socket) -> None:
        with (
            connection,
            contextlib.suppress(OSError),
            socket.create_connection((LOOPBACK, self._port), CONNECT_TIMEOUT) as server,
        ):
            server.settimeout(None)
            pump_both_directions(connection, server)
