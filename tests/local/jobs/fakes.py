"""A runtime whose containers are small HTTP servers in this process. Tests define the responses of the models."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Host, HostPlan, Image, Line, Plan
from tests.local.jobs.fake_models import ContainerModels, ModelsBehaviour


@dataclass(frozen=True)
class ReceivedRequest:
    """A request to `/invocations` that a container received."""

    host: str
    headers: Mapping[str, str]
    body: bytes
    chunked: bool


@dataclass(frozen=True)
class Reply:
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/plain"})
    chunks: Iterable[bytes] | None = None
    """The body in chunks, in place of `body`."""


def return_body(request: ReceivedRequest) -> Reply:
    return Reply(request.body)


@dataclass
class ImageBehaviour:
    """The behaviour of an image, and the requests to `/invocations` that its containers received.

    Tests change the behaviour.
    """

    invoke: Callable[[ReceivedRequest], Reply] = return_body
    ping: int | None = 200
    """The status of the response of `/ping`; None if `/ping` gets no response until the container ends."""
    unhealthy_hosts: set[str] = field(default_factory=set)
    """The names of hosts whose `/ping` answers 503."""
    exit_at_start: Exit | None = None
    """The exit with which each container ends immediately after its start; None if containers keep running."""
    execution_parameters: Mapping[str, object] | None = None
    """The response of `/execution-parameters`; None for the status 404."""
    labels: Mapping[str, str] = field(default_factory=dict)
    models_api: ModelsBehaviour | None = None
    """The behaviour of the `/models` API; None for the status 404."""
    supports_adapters: bool = False
    """Whether the container has the API `/adapters`."""
    requests: list[ReceivedRequest] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def track_concurrency(behaviour: ImageBehaviour) -> list[int]:
    """Make an image slow; return a list to which each request appends the number of requests in progress."""
    in_progress: list[int] = []
    counts: list[int] = []

    def invoke(request: ReceivedRequest) -> Reply:
        in_progress.append(1)
        counts.append(len(in_progress))
        time.sleep(0.02)
        in_progress.pop()
        return Reply(request.body)

    behaviour.invoke = invoke
    return counts


class FakeHost:
    """A container: an HTTP server in this process, with the behaviour of the container's image."""

    def __init__(self, plan: HostPlan, behaviour: ImageBehaviour) -> None:
        self.name = plan.name
        self.plan = plan
        self.behaviour = behaviour
        self.files: dict[str, bytes] = {
            path.name: path.read_bytes()
            for item in plan.inputs[:1]
            for path in item.source.rglob("*")
            if path.is_file()
        }
        """The contents of the files of the first input, by name."""
        self.models = ContainerModels(behaviour.models_api or ModelsBehaviour())
        self.adapters: dict[str, str] = {}
        """The folders of the loaded adapters, by name."""
        self.graces: list[float] = []
        """The grace period of each call of `stop`, in seconds."""
        self.start_time = time.monotonic()
        self._lines: list[Line] = []
        self._exit: Exit | None = None
        self._ended = threading.Event()
        self._server = Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.print_line("hello")
        if behaviour.exit_at_start is not None:
            self.end(behaviour.exit_at_start)

    def print_line(self, text: str) -> None:
        self._lines.append(Line(time.time(), text.encode()))

    def end(self, host_exit: Exit) -> None:
        """End as if the container had ended by itself, and close all connections."""
        if self._exit is not None:
            return
        self._exit = host_exit
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._ended.set()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def lines(self) -> Iterator[Line]:
        line_count = 0
        while True:
            is_last_pass = self._ended.wait(0.01)
            new_lines = self._lines[line_count:]
            line_count += len(new_lines)
            yield from new_lines
            if is_last_pass:
                return

    def wait(self) -> Exit:
        self._ended.wait()
        assert self._exit is not None
        return self._exit

    def stop(self, grace: float) -> None:
        self.graces.append(grace)
        self.end(Exit(0))

    def measure(self) -> None:
        """Return None: the host's use of CPU, memory and GPUs is unknown."""

    def copy(self, path: str, target: Path) -> None:
        """Return None: the path does not exist in the host."""

    def add_folder(self, source: Path, path: str) -> None:
        self.models.add_folder(source, path)

    def remove_folder(self, path: str) -> None:
        self.models.remove_folder(path)

    def connect(self, timeout: float) -> socket.socket:
        if self.has_ended:
            raise ConnectionRefusedError
        host, port = self._server.server_address[:2]
        return socket.create_connection((str(host), port), timeout)


class Server(ThreadingHTTPServer):
    """The HTTP server of a container."""

    request_queue_size = 64

    def __init__(self, host: FakeHost) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = host
        self.connections: set[socket.socket] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connections that a client or a container closed."""


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
        """Log nothing: tests read the received requests."""

    def do_GET(self) -> None:
        behaviour = self.server.host.behaviour
        if self.path == "/ping":
            self._answer_ping(behaviour)
        elif self.path == "/execution-parameters" and behaviour.execution_parameters is not None:
            self._answer(Reply(json.dumps(behaviour.execution_parameters).encode()))
        elif behaviour.models_api is not None:
            self._answer_models(b"")
        else:
            self._answer(Reply(status=404))

    def _answer_ping(self, behaviour: ImageBehaviour) -> None:
        host, status = self.server.host, behaviour.ping
        if status is None:
            host.wait()
        else:
            self._answer(Reply(status=503 if host.name in behaviour.unhealthy_hosts else status))

    def do_POST(self) -> None:
        host = self.server.host
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        body = b"".join(self._read_chunks()) if chunked else self.rfile.read(int(self.headers["Content-Length"]))
        if host.behaviour.models_api is not None:
            return self._answer_models(body)
        if self.path == "/adapters":
            return self._add_adapter(json.loads(body))
        request = ReceivedRequest(host.name, dict(self.headers), body, chunked)
        with host.behaviour.lock:
            host.behaviour.requests.append(request)
        return self._answer(host.behaviour.invoke(request))

    def do_DELETE(self) -> None:
        if self.path.startswith("/adapters/"):
            folder = self.server.host.adapters.pop(self.path.rpartition("/")[2], None)
            return self._answer(Reply(status=404 if folder is None else 200))
        return self._answer_models(b"")

    def _add_adapter(self, members: Mapping[str, str]) -> None:
        host = self.server.host
        if not host.behaviour.supports_adapters:
            return self._answer(Reply(b"no such path", 404))
        host.adapters[members["name"]] = members["src"]
        return self._answer(Reply())

    def _answer_models(self, body: bytes) -> None:
        target = self.headers.get("X-Amzn-SageMaker-Target-Model")
        status, content = self.server.host.models.answer(self.command, self.path, body, target)
        self._answer(Reply(content, status))

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, reply: Reply) -> None:
        self.send_response(reply.status)
        length = (
            {"Transfer-Encoding": "chunked"} if reply.chunks is not None else {"Content-Length": str(len(reply.body))}
        )
        for name, value in {**reply.headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
        if reply.chunks is not None:
            for chunk in reply.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")


class FakeRuntime:
    """A runtime whose hosts are `FakeHost`s. The name of a host's image selects the behaviour of the host."""

    name = "fake"
    machine_address = "127.0.0.1"  # see `Runtime` for this attribute and the next one
    machine_address_exists_only_while_hosts_run = False

    def __init__(self) -> None:
        self.behaviours: dict[str, ImageBehaviour] = {"model": ImageBehaviour()}
        """The behaviour of each image, by the name of the image."""
        self.plans: dict[str, Plan] = {}
        """All plans that were started, including removed ones, by name."""
        self.hosts: dict[str, list[FakeHost]] = {}
        """All hosts that were not removed, including ended hosts, by plan."""
        self.started_hosts: list[FakeHost] = []
        """All hosts that were started, including removed ones, in the order of their starts."""

    def forward(self, port: int) -> None:
        """Return None: this runtime forwards no ports."""

    def prepare(self, image: str, stopped: threading.Event | None = None) -> None:  # noqa: ARG002
        if image not in self.behaviours:
            raise CannotRunError(f"image {image} does not exist")

    def images(self) -> Sequence[Image]:
        return [
            Image((name,), f"sha256:{name}", size=1, created=1.0, labels=behaviour.labels)
            for name, behaviour in self.behaviours.items()
        ]

    def start(self, plan: Plan) -> Sequence[Host]:
        assert plan.name not in self.hosts
        new_hosts = [FakeHost(host, self.behaviours[host.image]) for host in plan.hosts]
        self.started_hosts += new_hosts
        self.plans[plan.name] = plan
        self.hosts[plan.name] = new_hosts
        return list(new_hosts)

    def find_hosts(self) -> Mapping[str, Sequence[Host]]:
        return {name: list(hosts) for name, hosts in list(self.hosts.items())}

    def remove(self, plan_name: str) -> None:
        for host in self.hosts.pop(plan_name, []):
            host.end(Exit(137, "removed"))

    def cancel_installations(self) -> None:
        """Do nothing: nothing is installed."""

    def close(self) -> None:
        for name in list(self.hosts):
            self.remove(name)
