"""A runtime whose containers are small HTTP servers in this process, so that tests can have models of any kind."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Host, HostPlan, Image, Line, Plan


@dataclass(frozen=True)
class Asked:
    """A request to `/invocations`."""

    host: str
    headers: Mapping[str, str]
    body: bytes
    chunked: bool


@dataclass(frozen=True)
class Reply:
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/plain"})


def echo(asked: Asked) -> Reply:
    return Reply(asked.body)


@dataclass
class Model:
    """What an image does; a test changes it and looks at what came."""

    invoke: Callable[[Asked], Reply] = echo
    ping: int = 200
    unhealthy: set[str] = field(default_factory=set)
    """Hosts whose `/ping` answers 503."""
    exits: Exit | None = None
    """Given: the container ends at once."""
    parameters: Mapping[str, object] | None = None
    """What `/execution-parameters` answers; None: 404."""
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def watched(model: Model) -> list[int]:
    """Lets a model take its time, and notes at each request how many are under way."""
    under_way: list[int] = []
    most: list[int] = []

    def watch(asked: Asked) -> Reply:
        under_way.append(1)
        most.append(len(under_way))
        time.sleep(0.02)
        under_way.pop()
        return Reply(asked.body)

    model.invoke = watch
    return most


class FakeHost:
    """A container."""

    def __init__(self, plan: HostPlan, model: Model) -> None:
        self.name = plan.name
        self.plan = plan
        self.model = model
        self.files = {
            path.name: path.read_bytes()
            for item in plan.inputs[:1]
            for path in item.source.rglob("*")
            if path.is_file()
        }
        self.graces: list[float] = []
        self.began = time.monotonic()
        self._said: list[Line] = []
        self._exit: Exit | None = None
        self._over = threading.Event()
        self._server = Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.say("hello")
        if model.exits is not None:
            self.end(model.exits)

    def say(self, text: str) -> None:
        self._said.append(Line(time.time(), text.encode()))

    def end(self, ended: Exit) -> None:
        """End as if by itself, whatever is under way."""
        if self._exit is not None:
            return
        self._exit = ended
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._over.set()

    @property
    def has_ended(self) -> bool:
        return self._over.is_set()

    def lines(self) -> Iterator[Line]:
        read = 0
        while True:
            ended = self._over.wait(0.01)
            new = self._said[read:]
            read += len(new)
            yield from new
            if ended:
                return

    def wait(self) -> Exit:
        self._over.wait()
        assert self._exit is not None
        return self._exit

    def stop(self, grace: float) -> None:
        self.graces.append(grace)
        self.end(Exit(0))

    def copy(self, path: str, to: Path) -> None:
        """It leaves no files."""

    def connect(self, timeout: float) -> socket.socket:
        if self.has_ended:
            raise ConnectionRefusedError
        host, port = self._server.server_address[:2]
        return socket.create_connection((str(host), port), timeout)


class Server(ThreadingHTTPServer):
    """What listens in a container."""

    request_queue_size = 64

    def __init__(self, host: FakeHost) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = host
        self.connections: set[socket.socket] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes, or a container that ends, is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Tests look at what came, not at a log."""

    def do_GET(self) -> None:
        model = self.server.host.model
        if self.path == "/ping":
            self._answer(Reply(status=503 if self.server.host.name in model.unhealthy else model.ping))
        elif self.path == "/execution-parameters" and model.parameters is not None:
            self._answer(Reply(json.dumps(model.parameters).encode()))
        else:
            self._answer(Reply(status=404))

    def do_POST(self) -> None:
        host = self.server.host
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        body = b"".join(self._chunks()) if chunked else self.rfile.read(int(self.headers["Content-Length"]))
        asked = Asked(host.name, dict(self.headers), body, chunked)
        with host.model.lock:
            host.model.asked.append(asked)
        self._answer(host.model.invoke(asked))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)


class FakeRuntime:
    """Runs models by their images' names."""

    name = "fake"
    machine = "127.0.0.1"

    def __init__(self) -> None:
        self.models: dict[str, Model] = {"model": Model()}
        self.plans: dict[str, Plan] = {}
        self.hosts: dict[str, list[FakeHost]] = {}
        """What runs, or has run and was not removed."""
        self.ever: list[FakeHost] = []

    def prepare(self, image: str) -> None:
        if image not in self.models:
            raise CannotRunError(f"image {image} is not here")

    def images(self) -> Sequence[Image]:
        return [Image((name,), f"sha256:{name}", 1, 1.0) for name in self.models]

    def start(self, plan: Plan) -> Sequence[Host]:
        assert plan.name not in self.hosts
        started = [FakeHost(host, self.models[host.image]) for host in plan.hosts]
        self.ever += started
        self.plans[plan.name] = plan
        self.hosts[plan.name] = started
        return list(started)

    def running(self) -> Mapping[str, Sequence[Host]]:
        return {name: list(hosts) for name, hosts in list(self.hosts.items())}

    def remove(self, plan_name: str) -> None:
        for host in self.hosts.pop(plan_name, []):
            host.end(Exit(137, "removed"))

    def close(self) -> None:
        for name in list(self.hosts):
            self.remove(name)
