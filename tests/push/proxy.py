"""A proxy between the engine and a registry that breaks a connection in the middle of a layer."""

import contextlib
import socket
import threading
from collections.abc import Callable

DOWN = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n"
    b"Content-Length: 8\r\nConnection: close\r\n\r\nno route"
)
"""Response of a gateway. It makes the engine give up at once; without a response the engine retries for 50 s."""


class Proxy:
    """Forwards bytes to a port of this machine.

    Args:
        port: the registry's port.
        cut_after: the number of bytes of one connection after which it breaks. After that, all requests get `DOWN`
            until `heal` is called.
        before_cut: called before the connection breaks; may wait.
    """

    def __init__(self, port: int, cut_after: int, before_cut: Callable[[], object]) -> None:
        self.upstream = port
        self.cut_after = cut_after
        self.before_cut = before_cut
        self.broken = threading.Event()
        self.healed = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def heal(self) -> None:
        self.healed = True
        self.broken.clear()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.open:
            _end(connection)
        for thread in self.threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self.upstream))
            self.open += [client, upstream]
            for source, target, cuts in ((client, upstream, True), (upstream, client, False)):
                thread = threading.Thread(target=self._pass, args=(source, target, cuts))
                self.threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, target: socket.socket, cuts: bool) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                count += len(data)
                if cuts and self.broken.is_set():
                    source.sendall(DOWN)
                    break
                if cuts and not self.healed and count > self.cut_after:
                    self.before_cut()
                    self.broken.set()
                    break
                target.sendall(data)
        _end(source)
        _end(target)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
