"""Passes connections of the host to carriers, if the host cannot connect to the server's machine.

The server starts carriers in the guard's container, one after the other: see `carrier`.
"""

import socket
import threading
from contextlib import suppress
from pathlib import Path

from microjobs_orchestrator.local.guard.settings import SERVER_PORT

CARRIER_SOCKET = "forwarding.sock"
"""The path at which carriers wait for a connection, in the working directory of the guard. The host cannot see it."""
HAND_OVER_TIMEOUT_SECONDS = 5.0
"""Seconds that a carrier may take to receive a connection."""
MAX_WAITING_CONNECTIONS = 128
"""Maximum number of connections that wait for a carrier."""


def start() -> None:
    """Listen for connections of the host, and for carriers. Serve in the background."""
    client_listener = socket.create_server(("127.0.0.1", SERVER_PORT), backlog=MAX_WAITING_CONNECTIONS)
    carrier_listener = socket.socket(socket.AF_UNIX)
    Path(CARRIER_SOCKET).unlink(missing_ok=True)  # left by an earlier start of this container
    carrier_listener.bind(CARRIER_SOCKET)
    carrier_listener.listen(MAX_WAITING_CONNECTIONS)
    threading.Thread(target=serve, args=(client_listener, carrier_listener), daemon=True).start()


def serve(client_listener: socket.socket, carrier_listener: socket.socket) -> None:
    """Pass each connection to the next carrier that still exists."""
    while True:
        client, _ = client_listener.accept()
        with client:
            while not _hand_over(client, carrier_listener):
                pass


def _hand_over(client: socket.socket, carrier_listener: socket.socket) -> bool:
    """Give a client's connection to the next carrier. Return False if the carrier has ended or does not answer."""
    carrier, _ = carrier_listener.accept()
    carrier.settimeout(HAND_OVER_TIMEOUT_SECONDS)
    with carrier, suppress(OSError):
        socket.send_fds(carrier, [b"\n"], [client.fileno()])
        return carrier.recv(1) != b""
    return False
