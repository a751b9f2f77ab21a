"""Copies between the standard streams of a program and a connection."""

import os
import socket
import threading

from microjobs_orchestrator.local.guard.relay import CHUNK_BYTES


def copy_streams(connection: socket.socket) -> None:
    """Copy data in both directions until the other side of the connection sends no more.

    The end of the standard input ends only the direction to the connection.
    """
    connection.settimeout(None)
    threading.Thread(target=_send, args=(connection,), daemon=True).start()
    while chunk := connection.recv(CHUNK_BYTES):
        write(chunk)


def write(chunk: bytes) -> None:
    """Write to the standard output, without a buffer."""
    while chunk:
        chunk = chunk[os.write(1, chunk) :]


def _send(connection: socket.socket) -> None:
    while chunk := os.read(0, CHUNK_BYTES):
        connection.sendall(chunk)
    connection.shutdown(socket.SHUT_WR)
