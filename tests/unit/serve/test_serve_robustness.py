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
from tests.bundles import write_linear_bundle
from tests.unit.serve.conftest import FEATURE_COUNT, SCALER, Server, run_server
from tests.unit.serve.test_serve_lifecycle import ROW

MAX_BODY_BYTES = 6 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one worker. The tests must not end the worker, increase its memory, or make it log problems."""
    root = tmp_path_factory.mktemp("robustness")
    write_linear_bundle(root / "model", [1.0] * FEATURE_COUNT, 0.0, SCALER)
    with run_server(root) as server:
        server.wait_until_ready()
        (worker_pid,) = server.list_worker_pids()
        yield server
        assert server.list_worker_pids() == [worker_pid]
        assert server.invoke(ROW).json == {"predictions": [[6.0]]}
        assert measure_private_megabytes(worker_pid) < 250
    assert server.process.returncode == 0
    assert server.find_logged_problems() == []


def test_worker_has_the_scheduling_policy_of_other_programs(server: Server) -> None:
    """With another scheduling policy, a worker that gets a request would wait for the programs that use its CPU."""
    assert [os.sched_getscheduler(pid) for pid in server.list_worker_pids()] == [os.sched_getscheduler(0)]


def measure_private_megabytes(pid: int) -> float:
    """Return the private memory of a process in megabytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@contextlib.contextmanager
def open_connections(server: Server, count: int, content: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as clients:
        sockets = []
        for _ in range(count):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            client.sendall(content)
            sockets.append(client)
        yield sockets


def make_head(length: int, *headers: str) -> bytes:
    lines = ["POST /invocations HTTP/1.1", "Host: x", "Content-Type: text/csv", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def read_status(client: socket.socket) -> int:
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
    with open_connections(server, 200, make_head(len(body))) as clients:
        for byte in body:
            for client in clients:
                client.sendall(bytes([byte]))
            # this request is answered although the requests of other clients are incomplete
            assert server.invoke(ROW).status == 200
            assert server.request("GET", "/ping").status == 200
        assert {read_status(client) for client in clients} == {200}


def test_a_thousand_connections_are_all_answered(server: Server) -> None:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with open_connections(server, 1000) as clients:
        for _ in range(3):
            for client in clients:
                client.sendall(make_head(5) + b"1,2,3")
            assert {read_status(client) for client in clients} == {200}


def test_truncated_bodies_leave_no_memory_behind(server: Server) -> None:
    with open_connections(server, 300, make_head(100) + b"1,2"):
        assert server.invoke(ROW).status == 200
    with open_connections(server, 20, make_head(MAX_BODY_BYTES) + b"1,2,3\n" * 100_000):
        assert server.invoke(ROW).status == 200
    assert server.invoke(ROW).status == 200


def test_truncated_heads_leave_no_memory_behind(server: Server) -> None:
    with open_connections(server, 300, make_head(5)[:40]):
        assert server.invoke(ROW).status == 200


@pytest.mark.parametrize("is_chunked", [False, True])
def test_100_mb_get_status_413_and_the_connection_stays_open(server: Server, is_chunked: bool) -> None:
    size, piece = 100 * 1024 * 1024, b"1,2,3\n" * 100_000
    pieces = (piece for _ in range(0, size, len(piece)))
    length_headers = {} if is_chunked else {"Content-Length": str(len(piece) * len(range(0, size, len(piece))))}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", "/invocations", pieces, {"Content-Type": "text/csv"} | length_headers)
        response = connection.getresponse()
        assert (response.status, b"the limit is" in response.read()) == (413, True)
        connection.request("POST", "/invocations", "1,2,3", {"Content-Type": "text/csv"})
        assert connection.getresponse().status == 200


def test_large_body_gets_status_413_before_it_is_sent(server: Server) -> None:
    with open_connections(server, 1, make_head(10 * MAX_BODY_BYTES, "Expect: 100-continue")) as (client,):
        assert client.recv(12) == b"HTTP/1.1 413"


def test_body_up_to_the_limit_is_answered(server: Server) -> None:
    body = b"1,2,3\n" * (MAX_BODY_BYTES // 6)
    reply = server.invoke(body, "text/csv")
    assert (reply.status, reply.body.count(b"6.0\n")) == (200, MAX_BODY_BYTES // 6)


MALFORMED_REQUESTS = {
    "not-http": (b"\x16\x03\x01\x02\x00", {0, 400}),
    "no-version": (b"GET /ping\r\n\r\n", {400}),
    "negative-length": (make_head(-1), {400}),
    "no-length": (make_head(5).replace(b": 5", b": five"), {400}),
    "two-lengths": (make_head(5, "Content-Length: 6") + b"1,2,3", {400}),
    "control-character": (make_head(5, "X-A: \x01") + b"1,2,3", {400}),
    "name-with-space": (make_head(5, "X A: 1") + b"1,2,3", {400}),
    "not-ascii": (make_head(5, "Accept: \u00fc") + b"1,2,3", {200, 406}),
    "huge": (make_head(5, "X-A: " + "a" * 1_000_000) + b"1,2,3", {0, 400, 431}),
    "many": (make_head(5, *(f"X-{n}: 1" for n in range(1000))) + b"1,2,3", {431}),
    "length-and-chunked": (make_head(5, "Transfer-Encoding: chunked") + b"5\r\n1,2,3\r\n0\r\n\r\n", {200, 400}),
    "unknown-coding": (make_head(5, "Transfer-Encoding: gzip") + b"1,2,3", {0, 400, 501}),
    "encoded": (make_head(5, "Content-Encoding: gzip") + b"1,2,3", {415}),
    "upgrade": (make_head(5, "Connection: Upgrade", "Upgrade: websocket") + b"1,2,3", {200}),
}


@pytest.mark.parametrize(("request_bytes", "expected_statuses"), MALFORMED_REQUESTS.values(), ids=MALFORMED_REQUESTS)
def test_malformed_head_gets_an_expected_status(
    server: Server, request_bytes: bytes, expected_statuses: set[int]
) -> None:
    with open_connections(server, 1) as (client,):
        with contextlib.suppress(OSError):  # the server may already have closed the connection
            client.sendall(request_bytes)
            if 0 in expected_statuses:
                client.shutdown(socket.SHUT_WR)
        assert read_status(client) in expected_statuses


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    requests = b"".join(make_head(5) + f"{n},2,3".encode() for n in range(9))
    with open_connections(server, 1, requests) as (client,):
        responses = b""
        while responses.count(b"HTTP/1.1 200") < 9 or not responses.endswith(b"\n"):
            assert select.select([client], [], [], 10)[0]
            responses += client.recv(65536)
    assert [float(part.split(b"\r\n\r\n")[1]) for part in responses.split(b"HTTP/1.1 ")[1:]] == [
        n + 5 for n in range(9)
    ]


@pytest.mark.parametrize("is_archive", [False, True])
def test_changed_model_files_do_not_affect_a_running_server(root: Path, is_archive: bool) -> None:
    model = root / "model"
    if is_archive:
        with tarfile.open(root / ARCHIVE_FILE, "w:gz") as tar:
            tar.add(model, arcname=".")
        shutil.rmtree(model)
        model.mkdir()
        shutil.move(root / ARCHIVE_FILE, model)
    with run_server(root) as server:
        server.wait_until_ready()
        for path in model.iterdir():
            if path.is_file():
                path.write_bytes(os.urandom(100))
        assert server.invoke(ROW).json == {"predictions": [[6.0]]}
        shutil.rmtree(model)
        assert server.invoke(ROW).json == {"predictions": [[6.0]]}
        assert server.stop() == 0
    assert server.find_logged_problems() == []
