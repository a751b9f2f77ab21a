"""A proxy between the engine and a registry. It breaks a connection in the middle of a layer."""

import contextlib
import socket
import threading
from collections.abc import Callable

NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n"
    b"Content-Length: 8\r\nConnection: close\r\n\r\nno route"
)
"""A gateway's response, after which the engine immediately gives up. Without a response, it retries for 50 seconds."""


class Proxy:
    """Forwards bytes to a port of this machine.

    Args:
        port: the registry's port.
        max_bytes: number of bytes of requests after which a connection breaks. From then on, all requests get
            `NOT_FOUND` until the test calls `repair`. After `repair`, no connection breaks.
        before_break: a function that is called before the connection breaks. It may wait.
    """

    def __init__(self, port: int, max_bytes: int, before_break: Callable[[], object]) -> None:
        self.registry_port = port
        self.max_bytes = max_bytes
        self.before_break = before_break
        self.is_broken = threading.Event()
        self.is_repaired = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def repair(self) -> None:
        self.is_repaired = True
        self.is_broken.clear()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            _close(connection)
        for thread in self.threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self.registry_port))
            self.connections += [client, upstream]
            for source, target, is_request in ((client, upstream, True), (upstream, client, False)):
                thread = threading.Thread(target=self._forward, args=(source, target, is_request))
                self.threads.append(thread)
                thread.start()

    def _forward(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        received_bytes = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                received_bytes += len(data)
                if is_request and self.is_broken.is_set():
                    source.sendall(NOT_FOUND)
                    break
                if is_request and not self.is_repaired and received_bytes > self.max_bytes:
                    self.before_break()
                    self.is_broken.set()
                    break
                target.sendall(data)
        _close(source)
        _close(target)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
