"""Connections to a port of a container through the engine's API, for engines whose networks this machine cannot reach.

A command in the container copies between its standard streams and the port. The engine sends the command's output in
frames with a header of 8 bytes; see `log_frames`.
"""

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

from docker.models.containers import Container

from microjobs_orchestrator.local.runtimes.docker import log_frames

CHUNK_BYTES = 1 << 16


def open_tunnel(container: Container, command: Sequence[str]) -> socket.socket:
    """Start a command in a container, and return a socket that is connected to its standard input and output.

    Raises:
        docker.errors.APIError: the engine refuses the command, or the container has ended.
    """
    assert container.client is not None  # noqa: S101  for mypy
    api = container.client.api
    exec_id: str = api.exec_create(container.id, list(command), stdin=True, stderr=False)["Id"]
    connection: Any = api.exec_start(exec_id, socket=True)
    stream = getattr(connection, "_sock", connection)  # docker-py returns a file for reading, not the socket
    stream.settimeout(None)
    ours, theirs = socket.socketpair()
    to_container = threading.Thread(target=_send, args=(theirs, stream), daemon=True)
    to_container.start()
    threading.Thread(target=_receive, args=(stream, theirs, connection, to_container), daemon=True).start()
    return ours


def _send(source: socket.socket, stream: Any) -> None:
    """Copy until the caller has sent all. Then end the command's input."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            stream.sendall(chunk)
        stream.shutdown(socket.SHUT_WR)


def _receive(stream: Any, sink: socket.socket, connection: Any, to_container: threading.Thread) -> None:
    """Copy the command's output until it ends or the caller reads no more. Then close both connections."""
    with contextlib.suppress(OSError):
        for _, data in log_frames.split_frames(iter(lambda: stream.recv(CHUNK_BYTES), b"")):
            sink.sendall(data)
    for end in (sink, stream):  # also ends the other thread
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    to_container.join()
    for resource in (connection, stream, sink):
        resource.close()
