"""The same requests to both listeners: httptools on an event loop, and Granian's RSGI interface."""

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from microjobs.hosting import asyncio_listener, rsgi_listener
from microjobs.hosting.listener import LISTENER_NAMES, LISTENER_VARIABLE, RequestHead, ServerExchange
from tests.bundles import write_linear_bundle
from tests.unit.serve.conftest import FEATURE_COUNT, SCALER, Reply, Server, run_server
from tests.unit.serve.exchanges import FakeHead
from tests.unit.serve.test_serve_handlers import SLOW_PROGRAM, invoke_in_parallel, run_server_with_program
from tests.unit.serve.test_serve_robustness import make_head, open_connections, read_status

ROW = '{"instances": [[1, 2, 3]]}'
MAX_BODY_BYTES = 6 * 1024 * 1024


@pytest.fixture(scope="module", params=LISTENER_NAMES)
def listener(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(listener: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that must log no warnings and lose no worker."""
    root = tmp_path_factory.mktemp(listener)
    write_linear_bundle(root / "model", [1.0] * FEATURE_COUNT, 0.0, SCALER)
    with run_server(root, **{LISTENER_VARIABLE: listener}) as running_server:
        running_server.wait_until_ready()
        worker_pids = running_server.list_worker_pids()
        yield running_server
        assert running_server.list_worker_pids() == worker_pids
    assert running_server.process.returncode == 0
    assert running_server.find_logged_problems() == []


@contextlib.contextmanager
def open_connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as client:
        yield client


def test_ping_gets_status_200(server: Server) -> None:
    reply = server.request("GET", "/ping")
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize("rows", [1, 1000, 50_000], ids=["small", "larger", "in-chunks"])
def test_invocation_is_answered(server: Server, rows: int) -> None:
    reply = server.invoke("1,2,3\n" * rows, "text/csv")
    assert (reply.status, reply.body) == (200, b"6.0\n" * rows)
    assert reply.headers["content-type"] == "text/csv"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunked_body_is_answered(server: Server, size: int) -> None:
    body = b"1,2,3\n" * 100
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    with open_connection(server) as client:
        client.request("POST", "/invocations", pieces, {"Content-Type": "text/csv"})
        response = client.getresponse()
        assert (response.status, response.read()) == (200, b"6.0\n" * 100)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_too_large_body_gets_status_413_and_the_connection_stays_open(server: Server, is_chunked: bool) -> None:
    body = b"1,2,3\n" * (2 * MAX_BODY_BYTES // 6)
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    length_headers = {} if is_chunked else {"Content-Length": str(len(body))}
    with open_connection(server) as client:
        client.request("POST", "/invocations", pieces, {"Content-Type": "text/csv"} | length_headers)
        response = client.getresponse()
        assert (response.status, b"the limit is" in response.read()) == (413, True)
        client.request("POST", "/invocations", "1,2,3", {"Content-Type": "text/csv"})
        assert client.getresponse().status == 200


def test_empty_body_gets_status_400(server: Server) -> None:
    assert server.invoke("").status == 400


@pytest.mark.parametrize(
    ("method", "path", "expected_status"),
    [("GET", "/absent", 404), ("POST", "/metrics", 405), ("GET", "/metrics", 200)],
)
def test_other_routes_are_answered_and_the_connection_stays_open(
    server: Server, method: str, path: str, expected_status: int
) -> None:
    with open_connection(server) as client:
        for _ in range(2):
            client.request(method, path, b"x" * 300_000 if method == "POST" else None)
            response = client.getresponse()
            response.read()
            assert response.status == expected_status


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\n1,2,3\r\n0\r\n\r\n", b"5\r\n1,2,3XX0\r\n\r\n", b"5\r\n1,2,3\r\nff", b"ffffffffffffffffff\r\n1"],
    ids=["no-number", "no-end", "cut", "overflow"],
)
def test_malformed_chunks_never_get_a_prediction(server: Server, chunks: bytes) -> None:
    lines = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
    with open_connections(server, 1, lines + chunks) as (client,):
        client.shutdown(socket.SHUT_WR)
        assert read_status(client) in (0, 400)


def test_clients_that_disconnect_do_no_harm(server: Server) -> None:
    for body in (b"1,", b"1,2,3\n" * 100_000):
        for _ in range(20):
            with open_connections(server, 1, make_head(MAX_BODY_BYTES) + body):
                pass
    assert server.invoke(ROW).json == {"predictions": [[6.0]]}


def test_slow_clients_do_not_delay_others(server: Server) -> None:
    with open_connections(server, 50, make_head(5) + b"1,2") as clients:
        assert server.invoke(ROW).status == 200
        for client in clients:
            client.sendall(b",3")
        assert {read_status(client) for client in clients} == {200}


def test_user_code_is_served(root: Path, listener: str) -> None:
    with run_server_with_program(root, SLOW_PROGRAM, **{LISTENER_VARIABLE: listener}) as server:
        assert {reply.status for reply in invoke_in_parallel(server, ["0.01"] * 8)} == {200}


def test_requests_in_flight_at_sigterm_are_answered(root: Path, listener: str) -> None:
    with run_server_with_program(root, SLOW_PROGRAM, **{LISTENER_VARIABLE: listener}) as server:
        replies: list[Reply] = []
        client = threading.Thread(target=lambda: replies.extend(invoke_in_parallel(server, ["0.5"] * 3)))
        client.start()
        time.sleep(0.3)
        start_time = time.monotonic()
        assert server.stop() == 0
        client.join()
    assert [reply.status for reply in replies] == [200] * 3
    assert 0.7 < time.monotonic() - start_time < 20
    assert server.find_logged_problems() == []


def test_worker_that_dies_is_replaced(root: Path, listener: str) -> None:
    with run_server(root, **{LISTENER_VARIABLE: listener}) as server:
        server.wait_until_ready()
        (worker_pid,) = server.list_worker_pids()
        os.kill(worker_pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while server.list_worker_pids() in ([worker_pid], []) and time.monotonic() < deadline:
            time.sleep(0.05)
        server.wait_until_ready()
        assert server.invoke(ROW).status == 200
        assert 'route="/invocations",status="200"} 1.0' in server.request("GET", "/metrics").body.decode()


def test_listener_serves_on_a_unix_socket(root: Path, listener: str) -> None:
    with run_server(root, MICROJOBS_SOCKET_FOLDER=str(root), **{LISTENER_VARIABLE: listener}) as server:
        path = root / "http.socket"
        deadline = time.monotonic() + 30
        response = b""
        while not response and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(str(path))
                client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
                response = client.recv(100)
            time.sleep(0.02)
        assert response.startswith(b"HTTP/1.1 200")
        assert path.stat().st_mode & 0o777 == 0o600
        assert server.stop() == 0


def test_rsgi_exchange_ends_although_the_application_keeps_a_reference() -> None:
    class Protocol:
        statuses: ClassVar[list[int]] = []

        async def __call__(self) -> bytes:
            return b"body"

        def response_bytes(self, status: int, _headers: object, _body: bytes) -> None:
            self.statuses.append(status)

    exchanges: list[ServerExchange] = []

    def application(_head: object, exchange: ServerExchange) -> None:
        exchanges.append(exchange)
        exchange.read_body().add_done_callback(lambda read: exchange.respond(200, [], read.result()))

    asyncio.run(asyncio.wait_for(rsgi_listener.handle(application, FakeHead(), Protocol()), 5))
    assert (Protocol.statuses, len(exchanges)) == ([200], 1)


def test_connections_above_the_limit_wait_until_one_is_closed() -> None:
    requests: list[str] = []

    def application(head: RequestHead, exchange: ServerExchange) -> None:
        requests.append(head.path)
        exchange.respond(200, [], b"")

    async def run() -> list[str]:
        with socket.create_server(("127.0.0.1", 0)) as listening_socket:
            listening_socket.setblocking(False)
            server = asyncio_listener.Server(application, listening_socket, 2, asyncio.get_running_loop())
            task = asyncio.create_task(server.run())
            clients = [await asyncio.open_connection(*listening_socket.getsockname()) for _ in range(3)]
            for number, (_, writer) in enumerate(clients):
                writer.write(f"GET /{number} HTTP/1.1\r\n\r\n".encode())
            for reader, _ in clients[:2]:
                await reader.readline()
            first_requests = [*requests]
            clients[0][1].close()
            await clients[2][0].readline()
            server.stop()
            await task
            for _, writer in clients:
                writer.close()
                await writer.wait_closed()
            return first_requests

    first_requests = asyncio.run(asyncio.wait_for(run(), 20))
    assert (sorted(first_requests), requests[2:]) == (["/0", "/1"], ["/2"])


def test_unknown_listener_ends_the_job(root: Path) -> None:
    with run_server(root, **{LISTENER_VARIABLE: "fast"}) as server:
        assert server.wait() == 2
    assert f"{LISTENER_VARIABLE} is 'fast': set it to asyncio or rsgi" in (server.failure or "")
