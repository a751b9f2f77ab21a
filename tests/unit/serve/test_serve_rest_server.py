"""The server that offers TensorFlow Serving's REST API to a user's handlers."""

import json
import socket
from collections.abc import Iterator

import pytest

from microjobs.hosting.responses import HttpResponse
from microjobs_train_tensorflow.serving import rest_server
from microjobs_train_tensorflow.serving.rest_api import RestApi
from microjobs_train_tensorflow.serving.rest_server import RestServer
from tests.unit.serve.saved_models import make_fake_models

PREDICT = "POST /v1/models/sum:predict HTTP/1.1\r\n"
BODY = '{"instances": [[1, 2, 3]]}'


@pytest.fixture(scope="module")
def api_server() -> Iterator[RestServer]:
    server = RestServer(RestApi(make_fake_models()))
    yield server
    server.close()


def send(server: RestServer, request: str, *, shuts_down_writing: bool = True) -> tuple[int, bytes]:
    """Send the text of a request; return the status and the body of the response."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(request.encode())
        if shuts_down_writing:
            connection.shutdown(socket.SHUT_WR)
        response = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def make_request_with_length(length: object, body: str = BODY) -> str:
    return f"{PREDICT}content-length: {length}\r\n\r\n{body}"


@pytest.mark.parametrize(
    ("request_text", "status", "reason"),
    [
        (make_request_with_length(len(BODY)), 200, "60.0"),
        ("GET /v1/models/sum HTTP/1.1\r\n\r\n", 200, "AVAILABLE"),
        (f"{PREDICT}\r\n", 411, "the request has no Content-Length: send the body in one piece"),
        (f"{PREDICT}transfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n", 411, "has no Content-Length"),
        ("GET /v1/models/sum HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 411, "has no Content-Length"),
        (make_request_with_length(-1), 400, "Content-Length '-1' is not a number of bytes"),
        (make_request_with_length("some"), 400, "Content-Length 'some' is not a number of bytes"),
        (make_request_with_length("1" * 5000), 400, "is not a number of bytes"),
        (make_request_with_length((1 << 30) + 1), 413, "the body is 1073741825 bytes, the limit is 1073741824 bytes"),
        (make_request_with_length(len(BODY) + 1), 400, "the body is incomplete"),
    ],
)
def test_length_of_the_body_is_checked(api_server: RestServer, request_text: str, status: int, reason: str) -> None:
    response_status, body = send(api_server, request_text)
    assert response_status == status
    assert reason in body.decode()


def test_slow_body_gets_status_408(api_server: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rest_server._RequestHandler.timeout == rest_server.TIMEOUT_SECONDS
    monkeypatch.setattr(rest_server._RequestHandler, "timeout", 0.05)
    status, body = send(api_server, make_request_with_length(len(BODY) + 1), shuts_down_writing=False)
    assert (status, json.loads(body)["error"]) == (408, "no part of the body arrived for 0.05 s: send it faster")


def test_failure_of_the_api_causes_status_500(api_server: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_method: str, _path: str, _body: bytes) -> HttpResponse:
        raise ValueError("a secret")

    monkeypatch.setattr(api_server.api, "answer", fail)
    status, body = send(api_server, make_request_with_length(len(BODY)))
    assert (status, json.loads(body)["error"]) == (500, "the server failed on this request: see the server's log")


def test_connections_above_the_limit_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_server, "MAX_CONNECTIONS", 1)
    server = RestServer(RestApi(make_fake_models()))
    try:
        with (
            socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as first,
            socket.create_connection(("127.0.0.1", server.server_port), timeout=0.2) as second,
        ):
            first.sendall(b"GET ")  # the thread of this connection waits for the rest of the request
            second.sendall(b"GET /v1/models/sum HTTP/1.1\r\n\r\n")
            with pytest.raises(TimeoutError):
                second.recv(1)
            first.close()
            second.settimeout(10)
            assert second.recv(1)
    finally:
        server.close()
