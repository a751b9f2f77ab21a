"""HTTP requests to a container, and the errors of containers and connections."""

import gzip
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from io import BytesIO
from typing import IO

import pytest

from microjobs_orchestrator.local.resources.models import client as client_module
from microjobs_orchestrator.local.resources.models.client import Body, Client, NoResponseError, TooLargeError
from tests.local.jobs.conftest import MakeClient

RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def test_timeout_limits_a_slow_response_body(make_client: MakeClient) -> None:
    def send_slowly(connection: socket.socket) -> None:
        connection.sendall(RESPONSE_HEAD)
        for _ in range(100):
            time.sleep(0.1)
            connection.sendall(b"x")

    client = make_client(send_slowly)
    start_time = time.monotonic()
    with pytest.raises(NoResponseError) as caught:
        client.request("GET", "/", timeout=0.2)
    assert caught.value.timed_out
    assert time.monotonic() - start_time < 5


def test_incomplete_response_raises(make_client: MakeClient) -> None:
    def send_half(connection: socket.socket) -> None:
        connection.sendall(RESPONSE_HEAD + b"half")
        connection.shutdown(socket.SHUT_RDWR)

    client = make_client(send_half)
    with pytest.raises(NoResponseError) as caught:
        client.request("GET", "/", timeout=5)
    assert (caught.value.timed_out, caught.value.was_sent) == (False, True)


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_connection_serves_many_requests(make_client: MakeClient) -> None:
    ports = set()

    def answer(connection: socket.socket) -> None:
        ports.add(connection.getpeername()[1])
        connection.sendall(RESPONSE_HEAD + b"x" * 100)

    client = make_client(answer)
    for _ in range(3):
        client.request("GET", "/", timeout=5)
    assert len(ports) == 1


def test_chunked_response_is_joined(make_client: MakeClient) -> None:
    client = make_client(lambda connection: connection.sendall(CHUNKED_HEAD + b"3\r\none\r\n4\r\n two\r\n0\r\n\r\n"))
    for _ in range(2):  # the connection can be used again
        body = BytesIO()
        client.request("GET", "/", timeout=5, into=body)
        assert body.getvalue() == b"one two"


def test_incomplete_chunked_response_raises(make_client: MakeClient) -> None:
    def send_half(connection: socket.socket) -> None:
        connection.sendall(CHUNKED_HEAD + b"3\r\none\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(NoResponseError):
        make_client(send_half).request("GET", "/", timeout=5)


def test_refused_connection_means_request_was_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with (
        closing(Client(partial(socket.create_connection, address))) as client,
        pytest.raises(NoResponseError) as caught,
    ):
        client.request("GET", "/", timeout=5)
    assert not caught.value.was_sent


def test_closed_client_means_request_was_not_sent(make_client: MakeClient) -> None:
    client = make_client(lambda connection: connection.sendall(RESPONSE_HEAD + b"x" * 100))
    client.close()
    with pytest.raises(NoResponseError) as caught:
        client.request("GET", "/", timeout=5)
    assert not caught.value.was_sent


def test_oversized_response_closes_its_connection(make_client: MakeClient) -> None:
    ports = set()

    def answer(connection: socket.socket) -> None:
        ports.add(connection.getpeername()[1])
        connection.sendall(RESPONSE_HEAD + b"x" * 50)
        time.sleep(0.1)
        connection.sendall(b"x" * 50)

    client = make_client(answer)
    with pytest.raises(TooLargeError, match="more than 10 bytes"):
        client.request("GET", "/", timeout=5, max_bytes=10)
    assert client.request("GET", "/", timeout=5).status == 200
    assert len(ports) == 2


def test_interim_response_is_skipped(make_client: MakeClient) -> None:
    interim_head = b"HTTP/1.1 103 Early Hints\r\nX-Part: 1\r\n\r\n"
    client = make_client(lambda connection: connection.sendall(interim_head + RESPONSE_HEAD + b"x" * 100))
    for _ in range(2):
        response = client.request("GET", "/", timeout=5)
        assert (response.status, response.headers.get("X-Part")) == (200, None)


def test_repeated_headers_are_joined_whatever_the_case_of_their_names(make_client: MakeClient) -> None:
    head = b"HTTP/1.1 200 OK\r\nx-part: 1\r\nX-Part: 2\r\nContent-Length: 0\r\n\r\n"
    headers = make_client(lambda connection: connection.sendall(head)).request("GET", "/", timeout=5).headers
    assert headers["X-PART"] == "1, 2"


def test_compressed_response_is_not_changed(make_client: MakeClient) -> None:
    body, content = BytesIO(), gzip.compress(b"x" * 100)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content)
    make_client(lambda connection: connection.sendall(head + content)).request("GET", "/", timeout=5, into=body)
    assert body.getvalue() == content


def test_second_response_to_one_request_is_dropped(make_client: MakeClient) -> None:
    """If the client kept the second response, the next request, possibly of another client, would get it."""
    ports = set()

    def answer(connection: socket.socket) -> None:
        ports.add(connection.getpeername()[1])
        connection.sendall(RESPONSE_HEAD + b"x" * 100 + RESPONSE_HEAD + b"y" * 100)

    client = make_client(answer)
    for _ in range(2):
        body = BytesIO()
        client.request("GET", "/", timeout=5, into=body)
        assert body.getvalue() == b"x" * 100
    assert len(ports) == 2


def test_response_that_is_not_http_raises(make_client: MakeClient) -> None:
    client = make_client(lambda connection: connection.sendall(b"ready\r\n\r\n"))
    with pytest.raises(NoResponseError, match="not valid HTTP"):
        client.request("GET", "/", timeout=5)


def test_status_below_100_raises_at_once(make_client: MakeClient) -> None:
    client = make_client(lambda connection: connection.sendall(b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n"))
    with pytest.raises(NoResponseError, match="its status is 99") as caught:
        client.request("GET", "/", timeout=5)
    assert not caught.value.timed_out


def test_request_cannot_contain_a_second_one(make_client: MakeClient) -> None:
    client = make_client(lambda connection: connection.sendall(RESPONSE_HEAD + b"x" * 100))
    with pytest.raises(ValueError, match="control character"):
        client.request("GET", "/", headers={"Accept": "x\r\nX-Amzn-SageMaker-Session-Id: 1"}, timeout=5)


class RecordingServer:
    """A server that records the bodies of requests. It answers the first requests of each connection, sends
    `last_bytes` in place of the next response, and closes the connection.

    Args:
        answer_count: the number of requests of each connection that get a response.
        body_bytes: the size of the bodies of POST requests that are not chunked.
    """

    def __init__(self, *, answer_count: int, last_bytes: bytes = b"", body_bytes: int = 0) -> None:
        self.connections: list[list[bytes]] = []
        """The bodies of each connection's requests."""
        self.answer_count, self._last_bytes, self._body_bytes = answer_count, last_bytes, body_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.client = Client(partial(socket.create_connection, self._listener.getsockname()))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append([])
                arguments = (connection, self.connections[-1])
                threading.Thread(target=self._serve, args=arguments, daemon=True).start()

    def _serve(self, connection: socket.socket, requests: list[bytes]) -> None:
        with connection, connection.makefile("rb") as file, suppress(OSError):
            self._answer(connection, file, requests)

    def _answer(self, connection: socket.socket, file: IO[bytes], requests: list[bytes]) -> None:
        while head := b"".join(itertools.takewhile(lambda line: line != b"\r\n", file)):
            chunked = b"chunked" in head
            requests.append(
                b"".join(_read_chunks(file)) if chunked else file.read(self._body_bytes if b"POST" in head else 0)
            )
            if len(requests) > self.answer_count:
                connection.sendall(self._last_bytes)
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def close(self) -> None:
        self.client.close()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _read_chunks(file: IO[bytes]) -> Iterator[bytes]:
    while size := int(file.readline(), 16):
        yield file.read(size)
        file.readline()
    file.readline()


BODY_IN_PARTS: Body = lambda: iter([b"one ", b"two"])  # noqa: E731


@pytest.mark.parametrize(
    ("body", "headers", "sent_body"),
    [
        (b"whole", {}, b"whole"),
        (BODY_IN_PARTS, {}, b"one two"),
        (BODY_IN_PARTS, {"Content-Length": "7"}, b"one two"),
        (b"x" * 3_000_000, {}, b"x" * 3_000_000),
    ],
    ids=["bytes", "chunked", "parts of a known total size", "more than the kernel buffers"],
)
def test_request_on_stale_connection_is_sent_again(body: Body, headers: dict[str, str], sent_body: bytes) -> None:
    with closing(RecordingServer(answer_count=1, body_bytes=len(sent_body))) as server:
        assert server.client.is_healthy()
        response_body = BytesIO()
        assert server.client.request("POST", "/", body, headers, timeout=5, into=response_body).status == 200
        assert response_body.getvalue() == b"ok"
        assert server.connections == [[b"", sent_body], [sent_body]]


def test_parallel_requests_survive_closed_idle_connections() -> None:
    with closing(RecordingServer(answer_count=3)) as server, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: server.client.is_healthy(), range(200)))


def test_request_is_sent_twice_at_most() -> None:
    """Without a limit, a request that crashes the server would crash each restarted server."""
    with closing(RecordingServer(answer_count=1)) as server:
        assert server.client.is_healthy()
        server.answer_count = 0
        with pytest.raises(NoResponseError) as caught:
            server.client.request("GET", "/", timeout=5)
        assert (caught.value.was_sent, server.connections) == (True, [[b"", b""], [b""]])


def test_request_on_a_new_connection_is_sent_once() -> None:
    with closing(RecordingServer(answer_count=0)) as server:
        with pytest.raises(NoResponseError, match="closed the connection"):
            server.client.request("GET", "/", timeout=5)
        assert server.connections == [[b""]]


@pytest.mark.parametrize(
    "last_bytes", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", RESPONSE_HEAD + b"half", CHUNKED_HEAD + b"3\r\non"]
)
def test_request_is_sent_once_if_any_byte_of_a_response_arrived(last_bytes: bytes) -> None:
    with closing(RecordingServer(answer_count=1, last_bytes=last_bytes)) as server:
        assert server.client.is_healthy()
        with pytest.raises(NoResponseError):
            server.client.request("GET", "/", timeout=5)
        assert server.connections == [[b"", b""]]


def test_second_attempt_has_the_remaining_time(make_client: MakeClient) -> None:
    """If each attempt had the full time, a request could take twice as long as its caller allows."""
    request_count = 0

    def answer(connection: socket.socket) -> None:
        nonlocal request_count
        request_count += 1
        if request_count == 1:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            time.sleep(1.2)
            connection.shutdown(socket.SHUT_RDWR)

    client = make_client(answer)
    assert client.is_healthy()
    with pytest.raises(NoResponseError) as caught:
        client.request("GET", "/", timeout=2)
    assert caught.value.timed_out
    assert request_count == 3  # the ping, and two attempts


@pytest.mark.parametrize("connection_is_reused", [False, True])
def test_reading_a_body_may_take_longer_than_connecting(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, connection_is_reused: bool
) -> None:
    """The time limits of connecting and of an earlier ping do not apply to the body."""
    monkeypatch.setattr(client_module, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(client_module, "PING_SECONDS", 1.0)

    def answer(connection: socket.socket) -> None:
        if connection_is_reused and not answers:
            answers.append(1)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        time.sleep(1.5)
        connection.settimeout(0.2)
        with suppress(TimeoutError):
            while connection.recv(1 << 20):
                pass
        connection.settimeout(None)
        connection.sendall(RESPONSE_HEAD + b"x" * 100)

    answers: list[int] = []
    client = make_client(answer)
    assert not connection_is_reused or client.is_healthy()
    assert client.request("POST", "/", b"x" * 12_000_000, timeout=10).status == 200


def test_unread_body_times_out(make_client: MakeClient) -> None:
    client = make_client(lambda _: time.sleep(2))
    with pytest.raises(NoResponseError) as caught:
        client.request("POST", "/", b"x" * 12_000_000, timeout=0.5)
    assert caught.value.timed_out


def test_response_before_the_end_of_a_large_body_is_read(make_client: MakeClient) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
        connection.shutdown(socket.SHUT_RDWR)

    client, response_body = make_client(refuse), BytesIO()
    assert client.request("POST", "/", b"x" * 12_000_000, timeout=5, into=response_body).status == 413
    assert response_body.getvalue() == b"no!"
