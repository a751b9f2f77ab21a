"""The local server with a runtime that starts no processes: `python -m tests.local.security.stub HOME`.

Jobs succeed immediately, and training jobs print their hyperparameters. Models return the body of the request, or
status 500 for the body `fail`. For the body `parts`, they send the lines `part 0` to `part 3` with pauses. For the body
`cut`, they announce one byte more than they send, and close the connection. The models have the API of multi-model
containers.
"""

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from microjobs.contract import Layout
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import Exit, Host, HostPlan, Image, Line, Plan
from microjobs_orchestrator.local.server import serve
from tests.local.hosts import HostWithoutFolders


class ModelHandler(BaseHTTPRequestHandler):
    """Handler of the HTTP server that all hosts with a model share."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/models":
            return self._answer(200, b'{"models": []}')
        return self._answer(200 if self.path == "/ping" else 404, b"")

    def do_DELETE(self) -> None:
        self._answer(200, b"")

    def do_POST(self) -> None:
        is_chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        body = b"".join(self._read_chunks()) if is_chunked else self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"parts":
            self._send_parts()
        else:
            self._answer(500 if body == b"fail" else 200, body)

    def _send_parts(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        for number in range(4):
            self.wfile.write(b"7\r\npart %d\n\r\n" % number)
            time.sleep(0.5)
        self.wfile.write(b"0\r\n\r\n")

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + (body == b"cut")))
        self.close_connection |= body == b"cut"
        self.send_header("Content-Type", self.headers.get("Content-Type", "application/octet-stream"))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: the log contains only messages of the local server."""


class ModelServer(ThreadingHTTPServer):
    """The HTTP server of all models. It ignores connections that the local server closes early."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class StubHost(HostWithoutFolders):
    """A host without a process. If its plan has a port, the host runs until it is stopped; otherwise, it ends
    immediately."""

    def __init__(self, plan: HostPlan, address: tuple[str, int]) -> None:
        self.name = plan.name
        self._address = address
        self._ended = threading.Event()
        path = Layout(plan.files).input_config / "hyperparameters.json"
        self._hyperparameters = path.read_bytes().replace(b"\n", b" ") if path.exists() else b""
        if plan.port is None:
            self._ended.set()

    def lines(self, after: float = 0.0) -> Iterator[Line]:
        yield Line(max(time.time(), after), f"{self.name} has started".encode())
        if self._hyperparameters:
            yield Line(max(time.time(), after), self._hyperparameters)
        self._ended.wait()

    def wait(self) -> Exit:
        self._ended.wait()
        return Exit(0)

    def stop(self, grace: float) -> None:  # noqa: ARG002
        self._ended.set()

    def measure(self) -> None:
        """Return None: the use of resources is unknown."""

    def copy(self, path: str, target: Path) -> None:
        """Return None: the host has no files."""

    def connect(self, timeout: float) -> socket.socket:
        return socket.create_connection(self._address, timeout)


class StubRuntime:
    """A runtime that accepts every plan and runs nothing."""

    name = "stub"
    machine_address = "127.0.0.1"
    machine_address_exists_only_while_hosts_run = False

    def __init__(self) -> None:
        self._server = ModelServer(("127.0.0.1", 0), ModelHandler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self._hosts: dict[str, list[StubHost]] = {}

    def forward(self, port: int) -> None:
        """Return None: hosts connect directly."""

    def prepare(self, image: str, stopped: threading.Event | None = None) -> None:
        """Do nothing: every image is available."""

    def images(self) -> Sequence[Image]:
        return ()

    def start(self, plan: Plan) -> Sequence[Host]:
        address = ("127.0.0.1", int(self._server.server_address[1]))
        self._hosts[plan.name] = [StubHost(host, address) for host in plan.hosts]
        return list(self._hosts[plan.name])

    def find_hosts(self) -> Mapping[str, Sequence[Host]]:
        return {}

    def remove(self, plan_name: str) -> None:
        for host in self._hosts.pop(plan_name, []):
            host.stop(0)

    def cancel_installations(self) -> None:
        """Do nothing: nothing is installed."""

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    serve(
        Home(Path(sys.argv[1])),
        Config(port=0),
        stops_when_unused=True,
        choose=lambda *_: (StubRuntime(), "a test chose it"),
    )
