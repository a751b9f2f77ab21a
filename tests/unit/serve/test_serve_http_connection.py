"""HTTP on one connection of the asyncio listener, with a transport that the test controls."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from microjobs.hosting.http_connection import MAX_HEAD_BYTES, Connection
from microjobs.hosting.http_request import MAX_BUFFERED_BYTES, Request
from microjobs.hosting.listener import Application, ServerExchange

GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\n\r\n"


def make_post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /invocations HTTP/1.1", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class FakeTransport:
    """A transport that records what the connection does."""

    def __init__(self) -> None:
        self.output = b""
        self.is_reading = True
        self.is_closed = False
        self.has_written_eof = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.output += data

    def write_eof(self) -> None:
        self.has_written_eof = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, _name: str) -> object:
        return ("::1", 5000, 0, 0)


class FakeWorker:
    """The worker of one connection. Its application records the requests; the test answers them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread_id = threading.get_ident()
        self.is_stopping = False
        self.application: Application = self._run
        self.requests: list[Request] = []
        self.answer: Callable[[Request], None] = lambda _request: None
        self.connections: list[Connection] = []

    def _run(self, request: Any, _exchange: ServerExchange) -> None:
        self.requests.append(request)
        self.answer(request)

    def add(self, connection: Connection) -> None:
        self.connections.append(connection)

    def remove(self, connection: Connection) -> None:
        self.connections.remove(connection)


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    loop = asyncio.new_event_loop()
    yield FakeWorker(loop)
    loop.close()


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def connection(worker: FakeWorker, transport: FakeTransport) -> Connection:
    connection = Connection(worker)
    connection.connection_made(transport)  # type: ignore[arg-type]  # the fake has all methods that are called
    return connection


def read_body(request: Request) -> list[bytes | BaseException]:
    """Start to read the body. The returned list receives the complete body, or the error."""
    results: list[bytes | BaseException] = []

    def end(read: Any) -> None:
        try:
            results.append(read.result())
        except (RuntimeError, asyncio.CancelledError) as error:
            results.append(error)

    request.read_body().add_done_callback(end)
    return results


def echo(request: Request) -> None:
    """Answer with the body."""
    request.read_body().add_done_callback(lambda read: request.respond(200, [], read.result()))


def split_bodies(output: bytes) -> list[bytes]:
    return [part.split(b"\r\n\r\n", 1)[1] for part in output.split(b"HTTP/1.1 ")[1:]]


def test_body_is_taken_once_it_is_complete(connection: Connection, worker: FakeWorker) -> None:
    request_bytes = make_post(b"abcdef")
    connection.data_received(request_bytes[:-2])
    (request,) = worker.requests
    assert request.take_body() is None
    connection.data_received(request_bytes[-2:])
    assert request.take_body() == b"abcdef"


def test_request_head_is_parsed(connection: Connection, worker: FakeWorker) -> None:
    connection.data_received(b"HEAD /a%20b?c=d HTTP/1.0\r\nX-One: 1\r\nX-ONE: 2\r\n\r\n")
    (request,) = worker.requests
    assert (request.method, request.path, request.query_string, request.http_version) == ("HEAD", "/a b", "c=d", "1")
    assert (request.headers.get("x-one"), request.client) == ("1, 2", "[::1]:5000")


def test_absolute_address_is_read_as_its_path(connection: Connection, worker: FakeWorker) -> None:
    connection.data_received(b"GET http://host:80/ping?a HTTP/1.1\r\nHost: host\r\n\r\n")
    assert (worker.requests[0].path, worker.requests[0].query_string) == ("/ping", "a")


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_pipelined_requests_in_pieces_are_answered_in_order(
    connection: Connection, worker: FakeWorker, transport: FakeTransport, size: int
) -> None:
    worker.answer = echo
    request_bytes = (
        make_post(b"one")
        + make_post(b"two")
        + b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsix\r\n0\r\n\r\n"
    )
    for start in range(0, len(request_bytes), size):
        connection.data_received(request_bytes[start : start + size])
    assert split_bodies(transport.output) == [b"one", b"two", b"six"]
    assert not transport.is_closed


def test_many_pipelined_requests_need_no_recursion(
    connection: Connection, worker: FakeWorker, transport: FakeTransport
) -> None:
    worker.answer = lambda request: request.respond(200, [], b"pong")
    connection.data_received(GET * 3000)
    assert split_bodies(transport.output) == [b"pong"] * 3000


def test_next_request_waits_for_the_current_one(
    connection: Connection, worker: FakeWorker, transport: FakeTransport
) -> None:
    connection.data_received(GET + GET)
    assert (len(worker.requests), transport.is_reading) == (1, False)
    worker.requests[0].respond(200, [], b"")
    assert (len(worker.requests), transport.is_reading) == (2, True)


def test_large_body_is_read_only_as_fast_as_the_application_reads(
    connection: Connection, worker: FakeWorker, transport: FakeTransport
) -> None:
    body = bytes(3 * MAX_BUFFERED_BYTES)
    connection.data_received(make_post(body)[: 2 * MAX_BUFFERED_BYTES])
    states = [transport.is_reading]
    results = read_body(worker.requests[0])
    states.append(transport.is_reading)
    assert states == [False, True]
    connection.data_received(make_post(body)[2 * MAX_BUFFERED_BYTES :])
    assert results == [body]


def test_reading_pauses_while_the_client_reads_no_responses(connection: Connection, transport: FakeTransport) -> None:
    connection.pause_writing()
    states = [transport.is_reading]
    connection.resume_writing()
    assert [*states, transport.is_reading] == [False, True]


def test_requests_wait_while_the_client_does_not_read_their_responses(
    connection: Connection, worker: FakeWorker
) -> None:
    def answer(request: Request) -> None:
        connection.pause_writing()  # the transport calls this method when its buffer is full
        request.respond(200, [], b"large")

    worker.answer = answer
    connection.data_received(GET * 3)
    assert len(worker.requests) == 1
    connection.resume_writing()
    assert len(worker.requests) == 2


def test_fields_after_a_body_are_no_headers(connection: Connection, worker: FakeWorker) -> None:
    connection.data_received(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAccept: text/csv\r\n\r\n")
    assert (worker.requests[0].headers.get("accept", ""), worker.requests[0].is_complete) == ("", True)


def test_response_from_another_thread_is_sent_by_the_loop(
    connection: Connection, worker: FakeWorker, transport: FakeTransport
) -> None:
    connection.data_received(GET)
    thread = threading.Thread(target=worker.requests[0].respond, args=(200, [], b"later"))
    thread.start()
    thread.join()
    assert transport.output == b""
    worker.loop.call_soon(worker.loop.stop)
    worker.loop.run_forever()
    assert split_bodies(transport.output) == [b"later"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /ping\r\n\r\n", b"400"),
        (b"GET /ping HTTP/2.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: 1\r\n" % number for number in range(101)) + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 1000 * 1000, b"431"),
    ],
    ids=["old-version", "new-version", "many-headers", "long-header"],
)
def test_malformed_head_is_answered_after_the_earlier_requests(
    connection: Connection, worker: FakeWorker, transport: FakeTransport, request_bytes: bytes, status: bytes
) -> None:
    connection.data_received(GET)
    for start in range(0, len(request_bytes), MAX_HEAD_BYTES):
        connection.data_received(request_bytes[start : start + MAX_HEAD_BYTES])
    assert transport.output == b""
    worker.requests[0].respond(200, [], b"first")
    first, error = transport.output.split(b"HTTP/1.1 ")[1:]
    assert (first[:3], error[:3], len(worker.requests), transport.has_written_eof) == (b"200", status, 1, True)


def test_slow_head_gets_status_408(connection: Connection, worker: FakeWorker, transport: FakeTransport) -> None:
    connection.data_received(GET)
    times = [connection.head_start_time]
    worker.requests[0].respond(200, [], b"")
    connection.data_received(GET[:10])
    times.append(connection.head_start_time)
    assert [time is None for time in times] == [True, False]
    connection.reject_slow_head()
    assert b"HTTP/1.1 408" in transport.output


@pytest.mark.parametrize("end", ["malformed", "closed", "half-closed"])
def test_body_that_will_never_be_complete_is_an_error(
    connection: Connection, worker: FakeWorker, transport: FakeTransport, end: str
) -> None:
    connection.data_received(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    results = read_body(worker.requests[0])
    if end == "malformed":
        connection.data_received(b"zz\r\n")
    elif end == "closed":
        connection.connection_lost(None)
    else:
        assert connection.eof_received()
    assert [type(result) for result in results] == [RuntimeError]
    worker.requests[0].respond(400, [], b"")
    assert (transport.output[:12] == b"HTTP/1.1 400") == (end != "closed")


def test_read_can_be_cancelled(connection: Connection, worker: FakeWorker) -> None:
    connection.data_received(make_post(b"body")[:-1])
    request, results = worker.requests[0], []
    read = request.read_body()
    read.add_done_callback(lambda read: results.append(read))
    assert read.cancel()
    with pytest.raises(asyncio.CancelledError):
        results[0].result()


def test_100_continue_is_sent_when_the_body_is_read(
    connection: Connection, worker: FakeWorker, transport: FakeTransport
) -> None:
    connection.data_received(make_post(b"body", "Expect: 100-continue")[:-4])
    assert transport.output == b""
    results = read_body(worker.requests[0])
    assert transport.output == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.data_received(b"body")
    assert results == [b"body"]


def test_unread_body_closes_the_connection(
    connection: Connection, worker: FakeWorker, transport: FakeTransport
) -> None:
    connection.data_received(make_post(b"body", "Expect: 100-continue")[:-4])
    worker.requests[0].respond(413, [], b"too large")
    assert (b"connection: close" in transport.output, transport.is_closed) == (True, True)


def test_request_for_another_protocol_is_answered_in_http_1(
    connection: Connection, worker: FakeWorker, transport: FakeTransport
) -> None:
    worker.answer = echo
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
    connection.data_received(make_post(b"one", *upgrade) + make_post(b"two"))
    request_bytes = make_post(b"three", *upgrade)
    connection.data_received(request_bytes[:-2])
    connection.data_received(request_bytes[-2:] + GET)
    assert split_bodies(transport.output) == [b"one", b"two", b"three", b""]
    assert [request.path for request in worker.requests] == ["/invocations"] * 3 + ["/a b"]


@pytest.mark.parametrize(
    ("request_bytes", "is_closed", "header"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", False, None),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", True, b"connection: close"),
        (b"GET / HTTP/1.0\r\n\r\n", True, b"connection: close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False, b"connection: keep-alive"),
    ],
)
def test_version_and_connection_header_decide_whether_the_connection_stays_open(
    connection: Connection,
    worker: FakeWorker,
    transport: FakeTransport,
    request_bytes: bytes,
    is_closed: bool,
    header: bytes | None,
) -> None:
    connection.data_received(request_bytes)
    worker.requests[0].respond(200, [("x", "y")], b"body")
    lines = transport.output.split(b"\r\n")
    assert transport.is_closed == is_closed
    assert [line for line in lines if line.startswith(b"connection")] == ([header] if header else [])


@pytest.mark.parametrize(
    ("method", "status", "length"), [("HEAD", 200, b"4"), ("GET", 204, None), ("GET", 299, b"4"), ("GET", 304, None)]
)
def test_response_has_no_body_where_http_forbids_one(
    connection: Connection, worker: FakeWorker, transport: FakeTransport, method: str, status: int, length: bytes | None
) -> None:
    connection.data_received(f"{method} / HTTP/1.1\r\n\r\n".encode())
    worker.requests[0].respond(status, [], b"body")
    head, _, body = transport.output.partition(b"\r\n\r\n")
    assert body == (b"body" if status == 299 else b"")
    lengths = [line.split()[1] for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    assert lengths == ([length] if length else [])


def test_stopped_connection_closes_after_its_current_request(
    connection: Connection, worker: FakeWorker, transport: FakeTransport
) -> None:
    connection.data_received(GET)
    connection.stop()
    assert not transport.is_closed
    worker.requests[0].respond(200, [], b"last")
    assert (split_bodies(transport.output), transport.is_closed) == ([b"last"], True)


def test_idle_connection_is_stopped_at_once(connection: Connection, transport: FakeTransport) -> None:
    connection.stop()
    assert transport.is_closed
