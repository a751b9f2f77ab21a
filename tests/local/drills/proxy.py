"""A proxy between a server and its engine. It can be disconnected, like an engine that is restarted."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

ENGINE = "/var/run/docker.sock"
CHUNK_BYTES = 1 << 16


class Proxy:
    """Forwards connections to the engine's socket."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path = path
        self._engine = engine
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None

    def listen(self) -> None:
        self._listener = listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(128)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def disconnect(self) -> None:
        """Close all connections, and accept no new ones."""
        self.path.unlink(missing_ok=True)
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
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._engine)
                with self._lock:
                    self._sockets |= {client, engine}
                for source, target in ((client, engine), (engine, client)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one of the connections was closed
            while chunk := source.recv(CHUNK_BYTES):
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def running_proxy(path: Path, engine: str = ENGINE) -> Iterator[Proxy]:
    running = Proxy(path, engine)
    running.listen()
    try:
        yield running
    finally:
        running.disconnect()
