"""A proxy in front of an engine or a server. It can be disconnected, like an engine that is restarted."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

ENGINE_SOCKET = "/var/run/docker.sock"
CHUNK_BYTES = 1 << 16

Address = str | tuple[str, int]
"""The path of a Unix socket, or a host and a port."""


class Proxy:
    """A proxy that forwards connections from one address to another address."""

    def __init__(self, address: Address, target: Address) -> None:
        self.address = address
        self._target = target
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None

    def listen(self) -> None:
        self._listener = listener = _make_socket(self.address)
        listener.bind(self.address)
        listener.listen(128)
        self.address = listener.getsockname()  # if the port was 0, the address now has the port that the system chose
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def disconnect(self) -> None:
        """Close all connections, and accept no new connections."""
        if isinstance(self.address, str):
            Path(self.address).unlink(missing_ok=True)
        if self._listener is not None:
            _close(self._listener)
        with self._lock:
            for connection in self._sockets:
                _close(connection)
            self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = listener.accept()
                server = _make_socket(self._target)
                server.connect(self._target)
                with self._lock:
                    self._sockets |= {client, server}
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one of the connections was closed
            while chunk := source.recv(CHUNK_BYTES):
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)


def _make_socket(address: Address) -> socket.socket:
    if isinstance(address, str):
        return socket.socket(socket.AF_UNIX)
    new_socket = socket.socket(socket.AF_INET)
    new_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return new_socket


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the connection may already be closed
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextlib.contextmanager
def run_proxy(address: Address, target: Address = ENGINE_SOCKET) -> Iterator[Proxy]:
    proxy = Proxy(address, target)
    proxy.listen()
    try:
        yield proxy
    finally:
        proxy.disconnect()
