"""Programs that are small HTTP servers in this process, on Unix sockets. Each response contains its request."""

import json
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from microjobs_orchestrator.local.resources.mlflow.process import SOCKET
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Line

STARTED_LINE = Line(1.0, b"started")
KILLED_EXIT_CODE = 137


class _Handler(BaseHTTPRequestHandler):
    """Answers every request with the request's method, path, headers and body, as JSON."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("latin-1")
        received = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        content = json.dumps(received).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Set-Cookie", "of=program")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class FakeProgram:
    """A program that runs until it is stopped, or until a test ends it."""

    def __init__(self, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.variables = variables
        self.working_folder = tempfile.mkdtemp(prefix="microjobs-")
        self.exit_code: int | None = None
        self._ended = threading.Event()
        self._server = _Server(str(Path(self.working_folder) / SOCKET), _Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def lines(self) -> Iterator[Line]:
        yield STARTED_LINE
        self._ended.wait()

    def stop(self, grace: float) -> int:  # noqa: ARG002  the program always ends immediately
        self.end(0)
        return self.exit_code or 0

    def end(self, code: int) -> None:
        """End the program, as a process that exits with this code."""
        if self.exit_code is None:
            self._server.shutdown()
            self._server.server_close()
            shutil.rmtree(self.working_folder)
            self.exit_code = code
            self._ended.set()


@dataclass
class FakePrograms:
    """Starts `FakeProgram`s. If `error` is set, programs cannot be started."""

    error: str = ""

    def __post_init__(self) -> None:
        self.started_programs: list[FakeProgram] = []

    def start(
        self, name: str, lock_file: Path, arguments: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> FakeProgram:
        assert lock_file.is_file()
        assert log.parent.is_dir(), name
        if self.error:
            raise CannotRunError(self.error)
        program = FakeProgram(arguments, variables)
        self.started_programs.append(program)
        return program

    def close(self) -> None:
        for program in self.started_programs:
            program.end(KILLED_EXIT_CODE)
