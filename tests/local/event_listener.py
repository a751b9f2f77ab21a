"""An HTTP server that receives EventBridge events, as a user's webhook does."""

import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class EventListener:
    """A server that records the events of POST requests. Usage: `with EventListener() as listener`."""

    def __init__(self, port: int = 0) -> None:
        self.events: list[Any] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        """The statuses of the next responses. Later responses have the status 200."""
        self.location = ""
        """The header Location of the next responses, if it is not empty."""
        self.is_slow = False
        """Whether the listener sends a response header that never ends."""
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._make_handler())
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_slow = False
        self._server.shutdown()
        self._server.server_close()

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                listener.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                listener.paths.append(self.path)
                if listener.is_slow:
                    listener.send_slowly(self.connection)
                    return
                self.send_response(listener.statuses.pop(0) if listener.statuses else 200)
                if listener.location:
                    self.send_header("Location", listener.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        return Handler

    def send_slowly(self, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nA: ")
            while self.is_slow:
                connection.sendall(b"x")
                time.sleep(0.1)
