"""Handlers that yield: the client receives each part before the next one is computed."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microjobs.contract import DEFAULT_ROOT
from microjobs.hosting.listener import IMPLEMENTATIONS, VARIABLE
from microjobs.network import Network, connect_unix
from tests.unit.serve.conftest import Server, running_server
from tests.unit.serve.test_serve_code import write
from tests.unit.serve.test_serve_handlers import server_with_program

PROGRAM = """
import json, os, time

def model_fn(model_dir):
    return model_dir

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)

def transform_fn(model, body, content_type, accept, context):
    order = json.loads(body)
    try:
        context.set_response_header(0, "x-words", "7")
        for number in range(order["parts"]):
            if number == order.get("pause_at"):
                wait_for(order["file"])
            if number == order.get("fail_at"):
                raise ValueError("no more words")
            yield b"%06d" % number * order.get("size", 1)
            if "progress" in order:
                open(order["progress"], "w").write(str(number))
    finally:
        if "ended" in order:
            open(order["ended"], "w").write("ended")
"""


@pytest.fixture(params=IMPLEMENTATIONS)
def server(request: pytest.FixtureRequest, root: Path) -> Iterator[Server]:
    with server_with_program(root, PROGRAM, **{VARIABLE: request.param}) as running:
        yield running


@contextlib.contextmanager
def streaming(server: Server, path: str = "/invocations", **order: object) -> Iterator[http.client.HTTPResponse]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request(
            "POST", path, json.dumps(order), {"Content-Type": "application/json", "Accept": "text/plain"}
        )
        with connection.getresponse() as response:
            yield response


def wait_until(is_true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_client_receives_a_part_before_the_next_one_is_computed(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with streaming(server, parts=3, pause_at=1, file=str(file)) as response:
        assert response.read(6) == b"000000"
        assert not file.exists()
        file.touch()
        assert response.read() == b"000001000002"
        assert (response.status, response.getheader("content-type"), response.chunked) == (200, "text/plain", True)
        assert response.getheader("x-words") == "7"
    assert server.logged_problems() == []


@pytest.mark.parametrize("parts", [0, 1, 1000])
def test_stream_of_any_length_is_complete(server: Server, parts: int) -> None:
    with streaming(server, parts=parts) as response:
        assert response.read() == b"".join(b"%06d" % number for number in range(parts))


def test_large_parts_arrive_unchanged(server: Server) -> None:
    with streaming(server, parts=3, size=1_000_000) as response:
        assert response.read() == b"".join(b"%06d" % number * 1_000_000 for number in range(3))


def test_other_requests_are_answered_during_a_stream(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with streaming(server, parts=1_000_000, size=1000) as slow_client:
        slow_client.read(6)
        with streaming(server, parts=2) as response:
            assert response.read() == b"000000000001"
        assert server.request("GET", "/ping").status == 200
    assert not file.exists()


def test_client_that_does_not_read_stops_the_handler(server: Server, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    size = 10_000  # parts of 60 KB
    with streaming(server, parts=100_000, size=size, progress=str(progress)) as response:
        response.read(6)
        previous = -1
        while (number := int(progress.read_text() or 0) if progress.exists() else 0) != previous:
            previous = number
            time.sleep(0.5)
        assert number * 6 * size < 20_000_000, "the kernel stores some megabytes, and the server stores nothing"
        response.read(60 * size)
        wait_until(lambda: int(progress.read_text() or 0) > number)


def test_error_before_the_first_part_is_a_response(server: Server) -> None:
    with streaming(server, parts=3, fail_at=0) as response:
        assert response.status == 500
        assert json.loads(response.read())["error"] == "the model's own code failed: ValueError: no more words"
    assert server.invoke('{"parts": 1}').status == 200


def test_error_in_the_middle_makes_the_body_incomplete(server: Server) -> None:
    with streaming(server, parts=3, fail_at=2) as response:
        with pytest.raises(http.client.IncompleteRead) as failure:
            response.read()
        assert failure.value.partial == b"000000000001"
    assert "ValueError: no more words" in server.log
    assert server.invoke('{"parts": 1}').status == 200
    statuses = server.request("GET", "/metrics").body.decode()
    assert 'route="/invocations",status="500"} 1.0' in statuses


def test_disconnected_client_ends_the_handler(server: Server, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    with streaming(server, parts=100_000_000, ended=str(ended)) as response:
        assert response.read(6) == b"000000"
    wait_until(ended.exists)
    assert server.logged_problems() == []


def test_client_with_http_1_0_gets_a_body_without_chunks(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        body = b'{"parts": 3}'
        client.sendall(b"POST /invocations HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        received = b"".join(iter(lambda: client.recv(1000), b""))
    assert received.endswith(b"\r\n\r\n000000000001000002")


def test_stream_in_flight_at_sigterm_is_completed(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with streaming(server, parts=3, pause_at=1, file=str(file)) as response:
        assert response.read(6) == b"000000"
        threading.Timer(1, file.touch).start()
        assert server.stop() == 0
        assert response.read() == b"000001000002"
    assert server.logged_problems() == []


def test_killed_worker_leaves_an_incomplete_body(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with streaming(server, parts=3, pause_at=1, file=str(file)) as response:
        assert response.read(6) == b"000000"
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    wait_until(lambda: worker not in server.worker_pids())
    server.wait_until_ready()
    assert server.invoke('{"parts": 1}').body == b"000000"


def test_many_streams_run_at_the_same_time(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with contextlib.ExitStack() as stack:
        streams = [streaming(server, parts=3, pause_at=1, file=str(file)) for _ in range(30)]
        file.touch()
        responses = [stack.enter_context(stream) for stream in streams]
        assert {response.read() for response in responses} == {b"000000000001000002"}


def ask(path: Path, *, named: bool) -> bytes:
    """Return the response to a request on a Unix socket; empty if the server does not listen yet."""
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(connect_unix(path, 20) if named else socket.socket(socket.AF_UNIX))
            if not named:
                client.connect(str(path))
        except OSError:
            return b""
        body = b'{"parts": 3}'
        lines = b"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        client.sendall(lines % (len(body), body))
        return b"".join(iter(lambda: client.recv(1000), b""))


@pytest.mark.parametrize("named", [True, False])
def test_stream_on_a_unix_socket_is_complete(root: Path, named: bool) -> None:
    """A client's socket without a name cannot be found: its stream is sent as one body."""
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(PROGRAM)
    path = Network.socket_in(str(root))
    with running_server(root, MICROJOBS_SOCKET_FOLDER=str(root)):
        wait_until(lambda: b" 200 " in ask(path, named=named))
        answer = ask(path, named=named)
    assert b"000002" in answer
    assert (b"transfer-encoding: chunked" in answer) == named
    assert [item.name for item in root.iterdir() if item.name.startswith("c")] == []


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("def predict_fn(data, model):\n    yield 'a'\n    yield b'b'\n", b"ab"),
        ("def predict_fn(d, m): return d\ndef output_fn(p, accept): return iter(['x', 'y']), 'text/plain'\n", b"xy"),
        ("def predict_fn(d, m): return 'abc'\ndef output_fn(p, accept):\n    yield from p\n", b"abc"),
        ("def predict_fn(d, m):\n    yield from 'ab'\ndef output_fn(p, accept): return ''.join(p)\n", b"ab"),
        ("def transform_fn(m, b, c, a): return map(str, range(3))\n", b"012"),
    ],
)
def test_each_function_may_return_a_stream(root: Path, function: str, expected: bytes) -> None:
    with server_with_program(root, f"def model_fn(d): return d\n{function}") as server:
        assert server.invoke("[1]").body == expected


def test_part_that_is_neither_text_nor_bytes_is_an_error(root: Path) -> None:
    with server_with_program(root, "def model_fn(d): return d\ndef predict_fn(d, m): yield {'a': 1}\n") as server:
        reply = server.invoke("[1]")
    assert (reply.status, "yields a value of type dict: yield text or bytes" in reply.error) == (500, True)


@pytest.mark.parametrize("body", ["return 1", "yield 1"])
def test_async_function_ends_the_job(root: Path, body: str) -> None:
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(f"async def predict_fn(data, model):\n    {body}\n")
    with running_server(root) as server:
        assert server.wait() == 2
    assert "predict_fn is async: define it without async" in (server.failure or "")


def test_stream_of_one_of_several_models_is_passed_on(tmp_path: Path) -> None:
    with running_server(tmp_path, SAGEMAKER_MULTI_MODEL="true") as server:
        server.wait_until_ready()
        write(tmp_path / "models" / "a" / "model" / "code", {"inference.py": PROGRAM})
        order = json.dumps({"model_name": "a", "url": f"{DEFAULT_ROOT}/models/a/model"})
        assert server.request("POST", "/models", order.encode()).status == 200
        file, ended = tmp_path / "go", tmp_path / "ended"
        with streaming(server, "/models/a/invoke", parts=3, pause_at=1, file=str(file)) as response:
            assert response.read(6) == b"000000"
            file.touch()
            assert response.read() == b"000001000002"
        with (
            streaming(server, "/models/a/invoke", parts=3, fail_at=2) as response,
            pytest.raises(http.client.IncompleteRead),
        ):
            response.read()
        with streaming(server, "/models/a/invoke", parts=100_000_000, ended=str(ended)) as response:
            response.read(6)
        wait_until(ended.exists)
        assert server.request("DELETE", "/models/a").status == 200
