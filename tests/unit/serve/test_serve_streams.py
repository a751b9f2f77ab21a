"""Handlers that yield: the client receives each part before the next one is computed."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs.contract import DEFAULT_ROOT
from microjobs.hosting.listener import LISTENER_NAMES, LISTENER_VARIABLE
from microjobs.network import Network, connect_unix
from tests.polling import wait_until
from tests.unit.serve.conftest import Server, run_server
from tests.unit.serve.test_serve_code import write_files
from tests.unit.serve.test_serve_handlers import run_server_with_program

PROGRAM = """
import json, os, time

def model_fn(model_dir):
    return model_dir

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)

def transform_fn(model, body, content_type, accept, context):
    settings = json.loads(body)
    try:
        context.set_response_header(0, "x-words", "7")
        for number in range(settings["parts"]):
            if number == settings.get("pause_at"):
                wait_for(settings["file"])
            if number == settings.get("fail_at"):
                raise ValueError("no more words")
            yield b"%06d" % number * settings.get("size", 1)
            if "progress" in settings:
                open(settings["progress"], "w").write(str(number))
    finally:
        if "ended" in settings:
            open(settings["ended"], "w").write("ended")
"""


@pytest.fixture(params=LISTENER_NAMES)
def server(request: pytest.FixtureRequest, root: Path) -> Iterator[Server]:
    with run_server_with_program(root, PROGRAM, **{LISTENER_VARIABLE: request.param}) as server:
        yield server


@contextlib.contextmanager
def open_stream(server: Server, path: str = "/invocations", **settings: object) -> Iterator[http.client.HTTPResponse]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request(
            "POST", path, json.dumps(settings), {"Content-Type": "application/json", "Accept": "text/plain"}
        )
        with connection.getresponse() as response:
            yield response


def test_client_receives_a_part_before_the_next_one_is_computed(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with open_stream(server, parts=3, pause_at=1, file=str(file)) as response:
        assert response.read(6) == b"000000"
        assert not file.exists()
        file.touch()
        assert response.read() == b"000001000002"
        assert (response.status, response.getheader("content-type"), response.chunked) == (200, "text/plain", True)
        assert response.getheader("x-words") == "7"
    assert server.find_logged_problems() == []


@pytest.mark.parametrize("parts", [0, 1, 1000])
def test_stream_of_any_length_is_complete(server: Server, parts: int) -> None:
    with open_stream(server, parts=parts) as response:
        assert response.read() == b"".join(b"%06d" % number for number in range(parts))


def test_large_parts_arrive_unchanged(server: Server) -> None:
    with open_stream(server, parts=3, size=1_000_000) as response:
        assert response.read() == b"".join(b"%06d" % number * 1_000_000 for number in range(3))


def test_other_requests_are_answered_during_a_stream(server: Server) -> None:
    with open_stream(server, parts=1_000_000, size=1000) as slow_client:
        slow_client.read(6)
        with open_stream(server, parts=2) as response:
            assert response.read() == b"000000000001"
        assert server.request("GET", "/ping").status == 200


def test_handler_waits_while_the_client_does_not_read(server: Server, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    size = 10_000  # each part has 60 KB
    with open_stream(server, parts=100_000, size=size, progress=str(progress)) as response:
        response.read(6)
        previous = -1
        while (number := int(progress.read_text() or 0) if progress.exists() else 0) != previous:
            previous = number
            time.sleep(0.5)
        assert number * 6 * size < 20_000_000, "the kernel stores some megabytes, and the server stores nothing"
        response.read(60 * size)
        wait_until(lambda: int(progress.read_text() or 0) > number)


def test_error_before_the_first_part_is_a_response(server: Server) -> None:
    with open_stream(server, parts=3, fail_at=0) as response:
        assert response.status == 500
        assert json.loads(response.read())["error"] == "the model's own code failed: ValueError: no more words"
    assert server.invoke('{"parts": 1}').status == 200


def test_error_in_the_middle_makes_the_body_incomplete(server: Server) -> None:
    with open_stream(server, parts=3, fail_at=2) as response:
        with pytest.raises(http.client.IncompleteRead) as failure:
            response.read()
        assert failure.value.partial == b"000000000001"
    assert "ValueError: no more words" in server.log
    assert server.invoke('{"parts": 1}').status == 200
    metrics = server.request("GET", "/metrics").body.decode()
    assert 'route="/invocations",status="500"} 1.0' in metrics


def test_disconnected_client_ends_the_handler(server: Server, tmp_path: Path) -> None:
    end_file = tmp_path / "ended"
    with open_stream(server, parts=100_000_000, ended=str(end_file)) as response:
        assert response.read(6) == b"000000"
    wait_until(end_file.exists)
    assert server.find_logged_problems() == []


def test_client_with_http_1_0_gets_a_body_without_chunks(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        body = b'{"parts": 3}'
        client.sendall(b"POST /invocations HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        response = b"".join(iter(lambda: client.recv(1000), b""))
    assert response.endswith(b"\r\n\r\n000000000001000002")


def test_stream_in_flight_at_sigterm_is_completed(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with open_stream(server, parts=3, pause_at=1, file=str(file)) as response:
        assert response.read(6) == b"000000"
        threading.Timer(1, file.touch).start()
        assert server.stop() == 0
        assert response.read() == b"000001000002"
    assert server.find_logged_problems() == []


def test_killed_worker_leaves_an_incomplete_body(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with open_stream(server, parts=3, pause_at=1, file=str(file)) as response:
        assert response.read(6) == b"000000"
        (worker,) = server.list_worker_pids()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    wait_until(lambda: worker not in server.list_worker_pids())
    server.wait_until_ready()
    assert server.invoke('{"parts": 1}').body == b"000000"


def test_streams_of_many_clients_are_complete(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        responses = [stack.enter_context(open_stream(server, parts=3)) for _ in range(30)]
        assert {response.read() for response in responses} == {b"000000000001000002"}


def request_over_unix_socket(path: Path, *, client_has_name: bool) -> bytes:
    """Return the response to a request on a Unix socket; empty if the server does not listen yet.

    Args:
        client_has_name: whether the client's socket has a name.
    """
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(connect_unix(path, 20) if client_has_name else socket.socket(socket.AF_UNIX))
            if not client_has_name:
                client.connect(str(path))
        except OSError:
            return b""
        body = b'{"parts": 3}'
        lines = b"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        client.sendall(lines % (len(body), body))
        return b"".join(iter(lambda: client.recv(1000), b""))


@pytest.mark.parametrize("client_has_name", [True, False])
def test_stream_on_a_unix_socket_is_complete(root: Path, client_has_name: bool) -> None:
    """The server cannot find the connection of a client socket without a name, so it sends the stream as one body."""
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(PROGRAM)
    path = Network.make_socket_path(str(root))
    with run_server(root, MICROJOBS_SOCKET_FOLDER=str(root)):
        wait_until(lambda: b" 200 " in request_over_unix_socket(path, client_has_name=client_has_name))
        answer = request_over_unix_socket(path, client_has_name=client_has_name)
    assert b"000002" in answer
    assert (b"transfer-encoding: chunked" in answer) == client_has_name
    client_sockets = [item.name for item in root.iterdir() if item.name.startswith("c")]  # see `connect_unix`
    assert client_sockets == []


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
    with run_server_with_program(root, f"def model_fn(d): return d\n{function}") as server:
        assert server.invoke("[1]").body == expected


def test_part_that_is_neither_text_nor_bytes_is_an_error(root: Path) -> None:
    with run_server_with_program(root, "def model_fn(d): return d\ndef predict_fn(d, m): yield {'a': 1}\n") as server:
        reply = server.invoke("[1]")
    assert (reply.status, "yields a value of type dict: yield text or bytes" in reply.error) == (500, True)


@pytest.mark.parametrize("body", ["return 1", "yield 1"])
def test_async_function_ends_the_job(root: Path, body: str) -> None:
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(f"async def predict_fn(data, model):\n    {body}\n")
    with run_server(root) as server:
        assert server.wait() == 2
    assert "predict_fn is async: define it without async" in (server.failure or "")


def test_stream_of_a_multi_model_container_reaches_the_client(tmp_path: Path) -> None:
    with run_server(tmp_path, SAGEMAKER_MULTI_MODEL="true") as server:
        server.wait_until_ready()
        write_files(tmp_path / "models" / "a" / "model" / "code", {"inference.py": PROGRAM})
        load_request = json.dumps({"model_name": "a", "url": f"{DEFAULT_ROOT}/models/a/model"})
        assert server.request("POST", "/models", load_request.encode()).status == 200
        file, end_file = tmp_path / "go", tmp_path / "ended"
        with open_stream(server, "/models/a/invoke", parts=3, pause_at=1, file=str(file)) as response:
            assert response.read(6) == b"000000"
            file.touch()
            assert response.read() == b"000001000002"
        with (
            open_stream(server, "/models/a/invoke", parts=3, fail_at=2) as response,
            pytest.raises(http.client.IncompleteRead),
        ):
            response.read()
        with open_stream(server, "/models/a/invoke", parts=100_000_000, ended=str(end_file)) as response:
            response.read(6)
        wait_until(end_file.exists)
        assert server.request("DELETE", "/models/a").status == 200
