"""InvokeEndpoint with the server's real listener, which serves invocations in tasks instead of threads."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse

import pytest

from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.services import sagemaker_runtime
from tests.local.jobs.conftest import TIMEOUT_SECONDS, ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker

INVOCATION_COUNT = 5


@pytest.fixture
def server(parts: ServerParts, model: ImageBehaviour) -> Iterator[Server]:  # noqa: ARG001  endpoint `e` serves it
    """A listener with one thread for requests, in front of endpoint `e`."""
    parts.deploy()
    server = Server(("127.0.0.1", 0), server_name="localhost", numthreads=1)
    server.wsgi_app = Invoker(parts).gateway
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.stop()
    thread.join()


def connect(server: Server) -> HTTPConnection:
    host, port = server.bind_addr
    return HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)


def invoke(server: Server, body: bytes) -> tuple[int, bytes]:
    """Return the status and the body of the response."""
    with closing(connect(server)) as connection:
        connection.request("POST", "/endpoints/e/invocations", body)
        response: HTTPResponse = connection.getresponse()
        return response.status, response.read()


def test_waiting_invocations_occupy_no_threads(server: Server, model: ImageBehaviour) -> None:
    barrier = threading.Barrier(INVOCATION_COUNT, timeout=TIMEOUT_SECONDS)

    def respond_together(request: ReceivedRequest) -> Reply:
        barrier.wait()
        return Reply(request.body)

    model.invoke = respond_together
    bodies = [b"%d" % number for number in range(INVOCATION_COUNT)]
    with ThreadPoolExecutor(INVOCATION_COUNT) as clients:
        assert list(clients.map(lambda body: invoke(server, body), bodies)) == [(200, body) for body in bodies]


def test_model_that_does_not_respond_in_time_is_an_error(
    server: Server, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sagemaker_runtime, "RESPONSE_TIMEOUT", 0.1)
    released = threading.Event()

    def respond_when_released(_: ReceivedRequest) -> Reply:
        released.wait(TIMEOUT_SECONDS)
        return Reply()

    model.invoke = respond_when_released
    status, content = invoke(server, b"x")
    released.set()
    assert status == 424
    assert b"timed out" in content


def test_client_that_does_not_read_its_response_delays_no_other_requests(server: Server, model: ImageBehaviour) -> None:
    model.invoke = lambda request: Reply(bytes(20 << 20) if request.body == b"large" else b"small")
    with closing(socket.socket()) as slow_client:
        slow_client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        slow_client.connect(server.bind_addr)
        slow_client.sendall(
            b"POST /endpoints/e/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nlarge"
        )
        assert slow_client.recv(12) == b"HTTP/1.1 200"
        assert invoke(server, b"x") == (200, b"small")


def test_large_response_is_complete(server: Server, model: ImageBehaviour) -> None:
    content = bytes(range(256)) * (20 << 12)
    model.invoke = lambda _: Reply(content)
    assert invoke(server, b"x") == (200, content)


def test_body_that_does_not_arrive_with_the_headers_is_served(server: Server) -> None:
    body = bytes(1 << 20)
    assert invoke(server, body) == (200, body)


def test_pipelined_invocations_are_answered_in_order(server: Server) -> None:
    request = b"POST /endpoints/e/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n%d"
    with closing(socket.create_connection(server.bind_addr, TIMEOUT_SECONDS)) as client:
        client.sendall(b"".join(request % number for number in range(INVOCATION_COUNT)))
        responses = client.makefile("rb")
        bodies = []
        for _ in range(INVOCATION_COUNT):
            while responses.readline() != b"\r\n":
                pass
            bodies.append(responses.read(1))
    assert bodies == [b"%d" % number for number in range(INVOCATION_COUNT)]


def test_stopping_server_completes_invocations(server: Server, model: ImageBehaviour) -> None:
    is_invoked = threading.Event()

    def respond(request: ReceivedRequest) -> Reply:
        is_invoked.set()
        # These are the two steps of `Server.stop`. Here, they happen during an invocation.
        server.ready = False
        stopper.start()
        return Reply(request.body)

    stopper = threading.Thread(target=server._connections.stop)
    model.invoke = respond
    assert invoke(server, b"x") == (200, b"x")
    assert is_invoked.is_set()
    stopper.join()
