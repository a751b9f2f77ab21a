"""Slow clients, malformed and huge requests, many connections, and model files that change while the server runs."""

import contextlib
import http.client
import os
import resource
import select
import shutil
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs.bundle import ARCHIVE_FILE
from tests.bundles import linear_bundle
from tests.unit.serve.conftest import FEATURES, SCALER, Server, running_server
from tests.unit.serve.test_serve_lifecycle import ROW

LIMIT = 6 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with one worker. The tests must not end the worker, increase its memory, or make it log problems."""
    root = tmp_path_factory.mktemp("fire")
    linear_bundle(root / "model", [1.0] * FEATURES, 0.0, SCALER)
    with running_server(root) as server:
        server.wait_until_ready()
        (worker,) = server.worker_pids()
        yield server
        assert server.worker_pids() == [worker]
        assert server.invoke(ROW).json == {"predictions": [[6.0]]}
        assert memory(worker) < 250
    assert server.process.returncode == 0
    assert server.logged_problems() == []


def memory(pid: int) -> float:
    """Return the private memory of a process in megabytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@contextlib.contextmanager
def connections(server: Server, number: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as clients:
        opened = []
        for _ in range(number):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            client.sendall(sent)
            opened.append(client)
        yield opened


def head(length: int, *more: str) -> bytes:
    lines = ["POST /invocations HTTP/1.1", "Host: x", "Content-Type: text/csv", f"Content-Length: {length}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def status(client: socket.socket) -> int:
    """Return the status of the next response; 0 if the connection ended without one."""
    response = http.client.HTTPResponse(client)
    try:
        response.begin()
        response.read()
    except (http.client.HTTPException, ConnectionError):
        return 0
    return response.status


def test_200_clients_that_send_one_byte_at_a_time_do_not_delay_others(server: Server) -> None:
    body = b"1,2,3"
    with connections(server, 200, head(len(body))) as clients:
        for byte in body:
            for client in clients:
                client.sendall(bytes([byte]))
            assert server.invoke(ROW).status == 200  # although the requests of the others are incomplete
            assert server.request("GET", "/ping").status == 200
        assert {status(client) for client in clients} == {200}


def test_a_thousand_connections_are_all_answered(server: Server) -> None:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with connections(server, 1000) as clients:
        for _ in range(3):
            for client in clients:
                client.sendall(head(5) + b"1,2,3")
            assert {status(client) for client in clients} == {200}


def test_truncated_bodies_leave_no_memory_behind(server: Server) -> None:
    with connections(server, 300, head(100) + b"1,2"):
        assert server.invoke(ROW).status == 200
    with connections(server, 20, head(LIMIT) + b"1,2,3\n" * 100_000):
        assert server.invoke(ROW).status == 200
    assert server.invoke(ROW).status == 200


def test_truncated_heads_leave_no_memory_behind(server: Server) -> None:
    with connections(server, 300, head(5)[:40]):
        assert server.invoke(ROW).status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_100_mb_are_413_and_the_connection_stays_open(server: Server, chunked: bool) -> None:
    size, piece = 100 * 1024 * 1024, b"1,2,3\n" * 100_000
    pieces = (piece for _ in range(0, size, len(piece)))
    length = {} if chunked else {"Content-Length": str(len(piece) * len(range(0, size, len(piece))))}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", "/invocations", pieces, {"Content-Type": "text/csv"} | length)
        response = connection.getresponse()
        assert (response.status, b"the limit is" in response.read()) == (413, True)
        connection.request("POST", "/invocations", "1,2,3", {"Content-Type": "text/csv"})
        assert connection.getresponse().status == 200


def test_large_body_is_413_before_it_is_sent(server: Server) -> None:
    with connections(server, 1, head(10 * LIMIT, "Expect: 100-continue")) as (client,):
        assert client.recv(12) == b"HTTP/1.1 413"


def test_body_up_to_the_limit_is_answered(server: Server) -> None:
    body = b"1,2,3\n" * (LIMIT // 6)
    reply = server.invoke(body, "text/csv")
    assert (reply.status, reply.body.count(b"6.0\n")) == (200, LIMIT // 6)


MALFORMED = {
    "not-http": (b"\x16\x03\x01\x02\x00", {0, 400}),
    "no-version": (b"GET /ping\r\n\r\n", {400}),
    "negative-length": (head(-1), {400}),
    "no-length": (head(5).replace(b": 5", b": five"), {400}),
    "two-lengths": (head(5, "Content-Length: 6") + b"1,2,3", {400}),
    "control-character": (head(5, "X-A: \x01") + b"1,2,3", {400}),
    "name-with-space": (head(5, "X A: 1") + b"1,2,3", {400}),
    "not-ascii": (head(5, "Accept: \u00fc") + b"1,2,3", {200, 406}),
    "huge": (head(5, "X-A: " + "a" * 1_000_000) + b"1,2,3", {0, 400, 431}),
    "many": (head(5, *(f"X-{n}: 1" for n in range(1000))) + b"1,2,3", {431}),
    "length-and-chunked": (head(5, "Transfer-Encoding: chunked") + b"5\r\n1,2,3\r\n0\r\n\r\n", {200, 400}),
    "unknown-coding": (head(5, "Transfer-Encoding: gzip") + b"1,2,3", {0, 400, 501}),
    "encoded": (head(5, "Content-Encoding: gzip") + b"1,2,3", {415}),
    "upgrade": (head(5, "Connection: Upgrade", "Upgrade: websocket") + b"1,2,3", {200}),
}


@pytest.mark.parametrize(("sent", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_head_gets_the_documented_status(server: Server, sent: bytes, expected: set[int]) -> None:
    with connections(server, 1) as (client,):
        with contextlib.suppress(OSError):  # the server may already have closed the connection
            client.sendall(sent)
            if 0 in expected:
                client.shutdown(socket.SHUT_WR)
        assert status(client) in expected


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    requests = b"".join(head(5) + f"{n},2,3".encode() for n in range(9))
    with connections(server, 1, requests) as (client,):
        received = b""
        while received.count(b"HTTP/1.1 200") < 9 or not received.endswith(b"\n"):
            assert select.select([client], [], [], 10)[0]
            received += client.recv(65536)
    assert [float(part.split(b"\r\n\r\n")[1]) for part in received.split(b"HTTP/1.1 ")[1:]] == [n + 5 for n in range(9)]


@pytest.mark.parametrize("archived", [False, True])
def test_changed_model_files_do_not_affect_a_running_server(root: Path, archived: bool) -> None:
    model = root / "model"
    if archived:
        with tarfile.open(root / ARCHIVE_FILE, "w:gz") as tar:
            tar.add(model, arcname=".")
        shutil.rmtree(model)
        model.mkdir()
        shutil.move(root / ARCHIVE_FILE, model)
    with running_server(root) as server:
        server.wait_until_ready()
        for path in model.iterdir():
            if path.is_file():
                path.write_bytes(os.urandom(100))
        assert server.invoke(ROW).json == {"predictions": [[6.0]]}
        shutil.rmtree(model)
        assert server.invoke(ROW).json == {"predictions": [[6.0]]}
        assert server.stop() == 0
    assert server.logged_problems() == []
