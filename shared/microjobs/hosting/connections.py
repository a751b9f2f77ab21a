"""Finds the socket of a request's connection, because the HTTP server does not provide it."""

import contextlib
import os
import socket
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")


def find_socket(client: str) -> socket.socket | None:
    """Return a duplicate of the socket that is connected to a client, or None if there is none.

    Args:
        client: the client's address, such as `127.0.0.1:1234`. On a Unix socket, it is the path to which the client's
            own socket is bound, see `microjobs.network.connect_unix`.
    """
    for file in DESCRIPTORS.iterdir() if client else ():
        with contextlib.suppress(OSError), contextlib.ExitStack() as cleanup:  # not a socket, not connected, or closed
            if str(file.readlink()).startswith("socket:"):
                connection = cleanup.enter_context(socket.socket(fileno=os.dup(int(file.name))))
                if format_address(connection.getpeername()) == client:
                    cleanup.pop_all()
                    return connection
    return None


def format_address(address: object) -> str:
    """Return the address of a socket in the HTTP server's format."""
    if not isinstance(address, tuple):
        return os.fsdecode(address) if isinstance(address, bytes | str) else ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
