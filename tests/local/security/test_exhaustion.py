"""Unknown clients that try to occupy all connections, threads or memory of the server."""

import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from werkzeug import Request, Response

from microjobs_orchestrator.local.gateway import authentication, connections
from microjobs_orchestrator.local.gateway.connection import SMALL_BODY_BYTES
from microjobs_orchestrator.local.gateway.listener import Server
from tests.local.clients import LocalServer, wait_until
from tests.local.security.test_authentication import REQUESTS, SignedRequest
from tests.local.security.wire import Sender

MEGABYTE = 1 << 20
HANG_SECONDS = 30.0
"""Half of the idle timeout. A response that takes longer probably waited until an idle connection was closed."""


def connect(host: str, receive_buffer: int | None = None) -> socket.socket:
    name, _, port = host.partition(":")
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(HANG_SECONDS)
    connection.connect((name, int(port)))
    return connection


def head(fields: Mapping[str, str], first: str = "POST / HTTP/1.1") -> bytes:
    return "".join(
        f"{line}\r\n" for line in (first, *(f"{name}: {value}" for name, value in fields.items()), "")
    ).encode()


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server closes a connection within HANG_SECONDS."""
    connection.settimeout(HANG_SECONDS)
    try:
        while connection.recv(MEGABYTE):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        block = connection.recv(MEGABYTE)
        assert block, received
        received += block
    return received


# --- connections without a request ---


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_silent_connections_do_not_block_others(process_server: LocalServer, sender: Sender, sent: bytes) -> None:
    with ExitStack() as silent:
        for _ in range(200):
            connection = silent.enter_context(closing(connect(sender.host)))
            connection.sendall(sent)
        began = time.monotonic()
        assert sender.send_raw("GET", "/health", {}).status == 200
        process_server.s3.list_buckets()
        assert time.monotonic() - began < HANG_SECONDS


def test_idle_connections_do_not_block_others(sender: Sender) -> None:
    with ExitStack() as idle:
        for _ in range(100):
            connection = idle.enter_context(closing(connect(sender.host)))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 200")
        assert sender.send_raw("GET", "/health", {}).status == 200


def answer(request: Request) -> Response:
    if request.path == "/large":
        return Response(bytes(64 * MEGABYTE))
    return Response(f"{len(request.stream.read())} bytes for {request.path}")


@contextmanager
def serving(send_buffer: int | None = None, **options: Any) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), numthreads=2, **options)
    server.wsgi_app = Request.application(answer)
    server.prepare()
    if send_buffer is not None:  # accepted sockets inherit it
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield f"127.0.0.1:{server.bind_addr[1]}"
    finally:
        server.stop()
        thread.join()


def test_slow_headers_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.5)
    with serving() as host, closing(connect(host)) as slow:
        began, is_open = time.monotonic(), True
        while is_open and time.monotonic() - began < HANG_SECONDS:
            time.sleep(0.05)
            try:
                slow.sendall(b"A")
            except OSError:
                is_open = False
        assert not is_open


def test_slow_request_gets_status_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.5)
    with serving() as host, closing(connect(host)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        assert slow.recv(MEGABYTE).startswith(b"HTTP/1.1 408")


def test_silent_connections_are_closed_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    with serving() as host, ExitStack() as silent:
        opened = [silent.enter_context(closing(connect(host))) for _ in range(12)]
        with closing(connect(host)) as known:
            known.sendall(b"GET /known HTTP/1.1\r\nHost: a\r\n\r\n")
            receive_until(known, b"bytes for /known")
            opened += [silent.enter_context(closing(connect(host))) for _ in range(20)]
            known.sendall(b"GET /again HTTP/1.1\r\nHost: a\r\n\r\n")  # only silent ones were closed
            receive_until(known, b"bytes for /again")
        assert all(is_closed(connection) for connection in opened[:24])


def test_pipelined_requests_are_answered_in_order() -> None:
    with serving() as host, closing(connect(host)) as connection:
        sent = [f"POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" for number in range(50)]
        connection.sendall("".join(sent).encode())
        received = receive_until(connection, b"for /49")
        positions = [received.find(f"3 bytes for /{number}HTTP".encode()) for number in range(49)]
        assert positions == sorted(positions)
        assert -1 not in positions


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        (b"3\r\nabc\r\n0\r\n\r\n", 200),
        (b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n", 200),
        (b"+3\r\nabc\r\n0\r\n\r\n", 500),
        (b"0x3\r\nabc\r\n0\r\n\r\n", 500),
        (b"-3\r\nabc\r\n0\r\n\r\n", 500),
        (b"3\r\nabcd\r\n0\r\n\r\n", 500),
        (b"3\nabc\r\n0\r\n\r\n", 500),
        (b"f" * 5000 + b"\r\nabc\r\n0\r\n\r\n", 500),
        (b"0\r\n" + b"A: b\r\n" * 100 + b"\r\n", 500),
    ],
)
def test_chunks_are_parsed_strictly(chunks: bytes, status: int) -> None:
    again = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving() as host, closing(connect(host)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + again)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(MEGABYTE), b""))
    assert (int(received.split()[1]), b"for /next" in received) == (status, status == 200)


def test_clients_that_read_no_responses_occupy_no_workers() -> None:
    request = b"GET /" + b"x" * 900 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving(timeout=4 * HANG_SECONDS) as host, ExitStack() as silent:
        for _ in range(4):  # twice the workers
            connection = silent.enter_context(closing(connect(host)))
            connection.settimeout(1)
            with suppress(TimeoutError):  # the server stops reading when its buffer for responses is full
                while True:
                    connection.sendall(request * 100)
        with closing(connect(host)) as other:
            other.sendall(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
            receive_until(other, b"for /other")


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"], ids=["", "close"])
def test_responses_without_a_reader_occupy_no_workers(header: bytes) -> None:
    size = 40_000
    with serving(timeout=4 * HANG_SECONDS, send_buffer=4096) as host, ExitStack() as silent:
        connections = [silent.enter_context(closing(connect(host, receive_buffer=4096))) for _ in range(4)]
        for connection in connections:  # twice the workers
            connection.sendall(b"GET /" + b"x" * size + b" HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n")
        with closing(connect(host)) as other:
            other.sendall(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
            receive_until(other, b"for /other")
        for connection in connections:
            receive_until(connection, b"x" * size)
            if header:
                assert is_closed(connection)
            else:
                connection.sendall(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
                receive_until(connection, b"for /next")


def test_slow_reader_receives_all_responses() -> None:
    request = b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving() as host, closing(connect(host)) as late:
        sender = threading.Thread(target=late.sendall, args=(request * 1000,))
        sender.start()
        time.sleep(1)
        received = receive_until(late, b"for /" + b"x" * 9000)
        while received.count(b" 200 ") < 1000:
            received += late.recv(MEGABYTE)
        sender.join()


def test_client_that_reads_no_response_does_not_delay_the_stop() -> None:
    with ExitStack() as silent:
        with serving(timeout=4 * HANG_SECONDS, shutdown_timeout=0.1) as host:
            connection = silent.enter_context(closing(connect(host)))
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(1)
            began = time.monotonic()
        assert time.monotonic() - began < HANG_SECONDS


# --- bodies of requests that are not authenticated yet ---

REFUSED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "unsigned": ({}, {"Authorization": ""}),
    "signed with another key": ({"credentials": Credentials("AKIAOTHER", "another")}, {}),
    "old": ({"at": datetime.now(UTC) - timedelta(hours=1)}, {}),
    "with an unsigned header": ({}, {"X-Amz-Added": "x"}),
    "for another host": ({}, {"Host": "evil.example"}),
    "of a page": ({}, {"Origin": "http://page.example"}),
    "changed": ({}, {"X-Amz-Content-SHA256": "1" * 64}),
}
"""Arguments of `sign`, and headers that replace the signed ones, by the reason of the refusal."""


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}], ids=["", "expect"])
@pytest.mark.parametrize(
    "signed_request",
    [signed_request for signed_request in REQUESTS if signed_request.body],
    ids=lambda signed_request: signed_request.service,
)
def test_invalid_request_is_refused_before_its_body(
    sender: Sender, signed_request: SignedRequest, why: str, expect: Mapping[str, str]
) -> None:
    signing, added_headers = REFUSED[why]
    signed = {"X-Amz-Content-SHA256": "0" * 64, **signed_request.headers}
    headers = sender.sign(signed_request.service, signed_request.method, signed_request.target, signed, **signing)
    fields = {**headers, "Content-Length": str(24 * MEGABYTE), **expect, **added_headers}
    with closing(connect(sender.host)) as connection:
        connection.sendall(head(fields, f"{signed_request.method} {signed_request.target} HTTP/1.1"))
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 403 ")
        assert is_closed(connection)


@pytest.mark.parametrize(
    "signed_request",
    [signed_request for signed_request in REQUESTS if signed_request.body],
    ids=lambda signed_request: signed_request.service,
)
def test_signed_request_gets_status_100(sender: Sender, signed_request: SignedRequest) -> None:
    headers = sender.sign(
        signed_request.service,
        signed_request.method,
        signed_request.target,
        signed_request.headers,
        signed_request.body,
    )
    fields = {**headers, "Content-Length": str(len(signed_request.body)), "Expect": "100-continue"}
    with closing(connect(sender.host)) as connection:
        connection.sendall(head(fields, f"{signed_request.method} {signed_request.target} HTTP/1.1"))
        assert connection.recv(MEGABYTE) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(signed_request.body)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(MEGABYTE), b""))
        assert answer.startswith(b"HTTP/1.1 200") or b"Endpoint e of account" in answer


def test_failing_upload_gets_its_error_before_its_body(sender: Sender) -> None:
    headers = sender.sign("s3", "PUT", "/no-such-bucket/key", payload="UNSIGNED-PAYLOAD")
    fields = {**headers, "Content-Length": str(24 * MEGABYTE), "Expect": "100-continue"}
    with closing(connect(sender.host)) as connection:
        connection.sendall(head(fields, "PUT /no-such-bucket/key HTTP/1.1"))
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 404 ")


def test_large_body_is_refused_before_it_is_sent(sender: Sender) -> None:
    signed_request = REQUESTS[0]
    headers = sender.sign(signed_request.service, signed_request.method, signed_request.target, signed_request.headers)
    with closing(connect(sender.host)) as connection:
        connection.sendall(head({**headers, "Content-Length": str(10**15)}))
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 413 ")


def resident_megabytes(local: LocalServer) -> float:
    pages = int(Path(f"/proc/{local.address.pid}/statm").read_text().split()[1])
    return pages * 4096 / MEGABYTE


def send_large_bodies(sender: Sender, signed: Mapping[str, str]) -> list[threading.Thread]:
    """Send 20 bodies of 24 MB at once."""

    def send() -> None:
        with closing(connect(sender.host)) as connection:
            connection.sendall(head({**signed, "Content-Length": str(24 * MEGABYTE)}, f"POST {INVOKE.target} HTTP/1.1"))
            try:
                connection.sendall(bytes(24 * MEGABYTE))
            except OSError:
                return  # refused before all was sent
            connection.recv(MEGABYTE)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    return threads


READS_MEMORY = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
INVOKE = REQUESTS[-1]


@READS_MEMORY
@pytest.mark.parametrize("credentials", [None, Credentials("AKIAOTHER", "another")], ids=["own key", "other key"])
def test_unauthenticated_bodies_use_little_memory(
    process_server: LocalServer, sender: Sender, credentials: Credentials | None
) -> None:
    signed = sender.sign(INVOKE.service, "POST", INVOKE.target, INVOKE.headers, b"other", credentials=credentials)
    before, highest = resident_megabytes(process_server), 0.0
    threads = send_large_bodies(sender, signed)
    while any(thread.is_alive() for thread in threads):
        highest = max(highest, resident_megabytes(process_server))
        time.sleep(0.01)
    assert max(highest, resident_megabytes(process_server)) - before < 100  # of 480 that were sent


@READS_MEMORY
def test_memory_of_large_requests_is_returned(process_server: LocalServer, sender: Sender) -> None:
    signed = sender.sign(INVOKE.service, "POST", INVOKE.target, INVOKE.headers, bytes(24 * MEGABYTE))
    before = resident_megabytes(process_server)
    for thread in send_large_bodies(sender, signed):
        thread.join()
    wait_until(
        lambda: resident_megabytes(process_server) - before, lambda megabytes: megabytes < 100, seconds=HANG_SECONDS
    )


def test_slow_unauthenticated_bodies_do_not_occupy_all_threads(process_server: LocalServer, sender: Sender) -> None:
    signed_request = REQUESTS[0]
    headers = sender.sign(signed_request.service, signed_request.method, signed_request.target, signed_request.headers)
    with ExitStack() as slow:
        opened = [slow.enter_context(closing(connect(sender.host))) for _ in range(100)]
        for connection in opened:
            connection.sendall(head({**headers, "Content-Length": str(MEGABYTE)}))
        deadline, answered = time.monotonic() + HANG_SECONDS, list[socket.socket]()
        while len(answered) < len(opened) - authentication.MAX_BODIES:
            assert time.monotonic() < deadline
            answered, _, _ = select.select(opened, [], [], 0.1)
        assert {connection.recv(12) for connection in answered} == {b"HTTP/1.1 503"}
        process_server.s3.list_buckets()
        process_server.sagemaker.list_models()


FORM = {"Host": "localhost", "Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(24 * MEGABYTE)}
PART = b'--b\r\nContent-Disposition: form-data; name="'


@pytest.mark.parametrize(
    "before", [b"", PART, PART + b'policy"\r\n\r\n'], ids=["before the first part", "header", "field"]
)
def test_unsigned_form_is_refused_before_its_file(sender: Sender, before: bytes) -> None:
    with closing(connect(sender.host)) as connection:
        connection.sendall(head(FORM, "POST /bucket HTTP/1.1") + before)
        with suppress(OSError):  # refused before all was sent
            connection.sendall(b"a" * MEGABYTE)
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 403 ")
        assert is_closed(connection)


def test_slow_unsigned_forms_do_not_occupy_all_threads(process_server: LocalServer, sender: Sender) -> None:
    with ExitStack() as slow:
        opened = [slow.enter_context(closing(connect(sender.host))) for _ in range(100)]
        for connection in opened:
            connection.sendall(head(FORM, "POST /bucket HTTP/1.1") + PART)
        deadline, answered = time.monotonic() + HANG_SECONDS, list[socket.socket]()
        while len(answered) < len(opened) - authentication.MAX_FORMS:
            assert time.monotonic() < deadline
            answered, _, _ = select.select(opened, [], [], 0.1)
        assert {connection.recv(12) for connection in answered} == {b"HTTP/1.1 503"}
        process_server.s3.list_buckets()
        sent = bytes(2 * SMALL_BODY_BYTES)
        headers = sender.sign(INVOKE.service, "POST", INVOKE.target, INVOKE.headers, sent)
        assert sender.send_raw("POST", INVOKE.target, headers, sent).status != 503


def test_incomplete_small_bodies_occupy_no_threads(process_server: LocalServer, sender: Sender) -> None:
    signed_request = REQUESTS[0]
    headers = sender.sign(signed_request.service, signed_request.method, signed_request.target, signed_request.headers)
    with ExitStack() as slow:
        for _ in range(200):
            connection = slow.enter_context(closing(connect(sender.host)))
            connection.sendall(head({**headers, "Content-Length": "10"}) + b"{")
        began = time.monotonic()
        process_server.sagemaker.list_models()
        assert time.monotonic() - began < HANG_SECONDS


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 99_999, 100_000, 300_000])
def test_bodies_are_received_in_parts(size: int) -> None:
    with serving() as host, closing(connect(host)) as connection:
        connection.sendall(f"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        for start in range(0, size, 40_000):
            time.sleep(0.01)
            connection.sendall(bytes(min(40_000, size - start)))
        assert f"{size} bytes for /x".encode() in receive_until(connection, b"for /x")
