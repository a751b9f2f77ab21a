"""A proxy in front of an engine or a server. It can be disconnected, like an engine that is restarted."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

ENGINE = "/var/run/docker.sock"
CHUNK_BYTES = 1 << 16

Address = str | tuple[str, int]
"""The path of a Unix socket, or a host and a port."""


class Proxy:
    """Forwards connections from one address to another one."""

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
        self.address = listener.getsockname()  # with the port
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def disconnect(self) -> None:
        """Close all connections, and accept no new ones."""
        if isinstance(self.address, str):
            Path(self.address).unlink(missing_ok=True)
        if self._listener is not None:
            _close(self._listener)
        with self._lock:
            for end in self._sockets:
                _close(end)
            self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it is closed
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
    made = socket.socket(socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def running_proxy(address: Address, target: Address = ENGINE) -> Iterator[Proxy]:
    running = Proxy(address, target)
    running.listen()
    try:
        yield running
    finally:
        running.disconnect()
