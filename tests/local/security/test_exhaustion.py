"""Unknown clients that try to occupy all connections, threads or memory of the server."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
from microjobs_orchestrator.local.tasks import Watcher
from tests.local.clients import LocalServer
from tests.local.security.test_authentication import REQUESTS, ValidRequest
from tests.local.security.wire import Sender
from tests.polling import wait_until

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


def format_head(fields: Mapping[str, str], request_line: str = "POST / HTTP/1.1") -> bytes:
    return "".join(
        f"{line}\r\n" for line in (request_line, *(f"{name}: {value}" for name, value in fields.items()), "")
    ).encode()


def is_closed_in_time(connection: socket.socket) -> bool:
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
    received_bytes = b""
    while end not in received_bytes:
        block = connection.recv(MEGABYTE)
        assert block, received_bytes
        received_bytes += block
    return received_bytes


# --- connections without a request ---


@pytest.mark.parametrize("sent_bytes", [b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_silent_connections_do_not_block_others(process_server: LocalServer, sender: Sender, sent_bytes: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(closing(connect(sender.host)))
            connection.sendall(sent_bytes)
        start_time = time.monotonic()
        assert sender.send_raw("GET", "/health", {}).status == 200
        process_server.s3.list_buckets()
        assert time.monotonic() - start_time < HANG_SECONDS


def test_idle_connections_do_not_block_others(sender: Sender) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            connection = stack.enter_context(closing(connect(sender.host)))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 200")
        assert sender.send_raw("GET", "/health", {}).status == 200


def answer_request(request: Request) -> Response:
    if request.path == "/large":
        return Response(bytes(64 * MEGABYTE))
    return Response(f"{len(request.stream.read())} bytes for {request.path}")


@contextmanager
def run_http_server(
    send_buffer: int | None = None, answer: Callable[[Request], Response] = answer_request, **options: Any
) -> Iterator[str]:
    """Run the gateway's HTTP server with two threads and a stub application; yield its address."""
    server = Server(("127.0.0.1", 0), numthreads=2, **options)
    server.wsgi_app = Request.application(answer)
    server.prepare()
    if send_buffer is not None:  # accepted sockets inherit the option
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
    with run_http_server() as host, closing(connect(host)) as connection:
        start_time, is_open = time.monotonic(), True
        while is_open and time.monotonic() - start_time < HANG_SECONDS:
            time.sleep(0.05)
            try:
                connection.sendall(b"A")
            except OSError:
                is_open = False
        assert not is_open


def test_slow_request_gets_status_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.5)
    with run_http_server() as host, closing(connect(host)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 408")


def test_silent_connections_are_closed_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    with run_http_server() as host, ExitStack() as stack:
        silent_connections = [stack.enter_context(closing(connect(host))) for _ in range(12)]
        with closing(connect(host)) as client:
            client.sendall(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
            receive_until(client, b"bytes for /first")
            silent_connections += [stack.enter_context(closing(connect(host))) for _ in range(20)]
            client.sendall(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")  # this connection was kept open
            receive_until(client, b"bytes for /second")
        # at most eight connections stay open, so the server has closed the oldest 24
        assert all(is_closed_in_time(connection) for connection in silent_connections[:24])


def test_pipelined_requests_are_answered_in_order() -> None:
    with run_http_server() as host, closing(connect(host)) as connection:
        requests = [f"POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" for number in range(50)]
        connection.sendall("".join(requests).encode())
        received_bytes = receive_until(connection, b"for /49")
        positions = [received_bytes.find(f"3 bytes for /{number}HTTP".encode()) for number in range(49)]
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
    """A malformed chunk raises an error when the stub application reads the body, so the response has status 500."""
    next_request = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    with run_http_server() as host, closing(connect(host)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + next_request)
        connection.shutdown(socket.SHUT_WR)
        received_bytes = b"".join(iter(lambda: connection.recv(MEGABYTE), b""))
    assert (int(received_bytes.split()[1]), b"for /next" in received_bytes) == (status, status == 200)


@pytest.mark.slow
def test_clients_that_read_no_responses_occupy_no_threads() -> None:
    request = b"GET /" + b"x" * 900 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    with run_http_server(timeout=4 * HANG_SECONDS) as host, ExitStack() as stack:
        for _ in range(4):  # twice as many connections as threads
            connection = stack.enter_context(closing(connect(host)))
            connection.settimeout(1)
            with suppress(TimeoutError):  # the server stops reading when its buffer for responses is full
                while True:
                    connection.sendall(request * 100)
        with closing(connect(host)) as other_client:
            other_client.sendall(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
            receive_until(other_client, b"for /other")


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"], ids=["", "close"])
def test_responses_without_a_reader_occupy_no_threads(header: bytes) -> None:
    size = 40_000
    with run_http_server(timeout=4 * HANG_SECONDS, send_buffer=4096) as host, ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(host, receive_buffer=4096))) for _ in range(4)]
        for connection in clients:  # twice as many requests as threads
            connection.sendall(b"GET /" + b"x" * size + b" HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n")
        with closing(connect(host)) as other_client:
            other_client.sendall(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
            receive_until(other_client, b"for /other")
        for connection in clients:
            receive_until(connection, b"x" * size)
            if header:
                assert is_closed_in_time(connection)
            else:
                connection.sendall(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
                receive_until(connection, b"for /next")


def test_slow_reader_receives_all_responses() -> None:
    request = b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    with run_http_server() as host, closing(connect(host)) as slow_reader:
        thread = threading.Thread(target=slow_reader.sendall, args=(request * 1000,))
        thread.start()
        time.sleep(1)
        received_bytes = receive_until(slow_reader, b"for /" + b"x" * 9000)
        while received_bytes.count(b" 200 ") < 1000:
            received_bytes += slow_reader.recv(MEGABYTE)
        thread.join()


def test_client_that_reads_no_response_does_not_delay_the_stop() -> None:
    with ExitStack() as stack:
        with run_http_server(timeout=4 * HANG_SECONDS, shutdown_timeout=0.1) as host:
            connection = stack.enter_context(closing(connect(host)))
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(1)
            start_time = time.monotonic()
        assert time.monotonic() - start_time < HANG_SECONDS


def test_stop_does_not_wait_for_the_next_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop wakes the thread that waits for connections: no wait of the thread ends because of its time limit."""
    wait_for_events, timeout_flags = Watcher.select, list[bool]()

    def wait_and_record(watcher: Watcher, seconds: float) -> list[object]:
        deadline = time.monotonic() + seconds
        ready_data = list(wait_for_events(watcher, seconds))
        timeout_flags.append(time.monotonic() >= deadline)
        return ready_data

    monkeypatch.setattr(connections, "CHECK_INTERVAL", HANG_SECONDS)
    monkeypatch.setattr(Watcher, "select", wait_and_record)
    with run_http_server() as host, closing(connect(host)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert receive_until(connection, b"0 bytes for /")
    assert timeout_flags
    assert not any(timeout_flags)


def test_request_that_waits_for_another_program_does_not_delay_the_stop() -> None:
    wait_event, end_event = threading.Event(), threading.Event()

    def wait(_: Request) -> Response:
        wait_event.set()
        end_event.wait(HANG_SECONDS)
        return Response()

    with ExitStack() as stack:
        with run_http_server(answer=wait, shutdown_timeout=0.1) as host:
            connection = stack.enter_context(closing(connect(host)))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert wait_event.wait(HANG_SECONDS)
            start_time = time.monotonic()
        assert time.monotonic() - start_time < HANG_SECONDS
    end_event.set()


# --- bodies of requests that are not authenticated yet ---

REFUSED_REQUESTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "unsigned": ({}, {"Authorization": ""}),
    "signed with another key": ({"credentials": Credentials("AKIAOTHER", "another")}, {}),
    "old": ({"signing_time": datetime.now(UTC) - timedelta(hours=1)}, {}),
    "with an unsigned header": ({}, {"X-Amz-Added": "x"}),
    "for another host": ({}, {"Host": "evil.example"}),
    "of a page": ({}, {"Origin": "http://page.example"}),
    "with a changed hash": ({}, {"X-Amz-Content-SHA256": "1" * 64}),
}
"""Arguments of `sign`, and headers that are added or replaced after signing, by the reason of the refusal."""


@pytest.mark.parametrize("reason", REFUSED_REQUESTS)
@pytest.mark.parametrize("expect_header", [{}, {"Expect": "100-continue"}], ids=["", "expect"])
@pytest.mark.parametrize(
    "valid_request",
    [valid_request for valid_request in REQUESTS if valid_request.body],
    ids=lambda valid_request: valid_request.service,
)
def test_invalid_request_is_refused_before_its_body(
    sender: Sender, valid_request: ValidRequest, reason: str, expect_header: Mapping[str, str]
) -> None:
    signing, added_headers = REFUSED_REQUESTS[reason]
    request_headers = {"X-Amz-Content-SHA256": "0" * 64, **valid_request.headers}
    headers = sender.sign(valid_request.service, valid_request.method, valid_request.target, request_headers, **signing)
    fields = {**headers, "Content-Length": str(24 * MEGABYTE), **expect_header, **added_headers}
    with closing(connect(sender.host)) as connection:
        connection.sendall(format_head(fields, f"{valid_request.method} {valid_request.target} HTTP/1.1"))
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 403 ")
        assert is_closed_in_time(connection)


@pytest.mark.parametrize(
    "valid_request",
    [valid_request for valid_request in REQUESTS if valid_request.body],
    ids=lambda valid_request: valid_request.service,
)
def test_signed_request_gets_status_100(sender: Sender, valid_request: ValidRequest) -> None:
    headers = sender.sign(
        valid_request.service,
        valid_request.method,
        valid_request.target,
        valid_request.headers,
        valid_request.body,
    )
    fields = {**headers, "Content-Length": str(len(valid_request.body)), "Expect": "100-continue"}
    with closing(connect(sender.host)) as connection:
        connection.sendall(format_head(fields, f"{valid_request.method} {valid_request.target} HTTP/1.1"))
        assert connection.recv(MEGABYTE) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(valid_request.body)
        connection.shutdown(socket.SHUT_WR)
        response = b"".join(iter(lambda: connection.recv(MEGABYTE), b""))
        assert response.startswith(b"HTTP/1.1 200") or b"Endpoint e of account" in response


def test_failing_upload_gets_its_error_before_its_body(sender: Sender) -> None:
    headers = sender.sign("s3", "PUT", "/no-such-bucket/key", payload="UNSIGNED-PAYLOAD")
    fields = {**headers, "Content-Length": str(24 * MEGABYTE), "Expect": "100-continue"}
    with closing(connect(sender.host)) as connection:
        connection.sendall(format_head(fields, "PUT /no-such-bucket/key HTTP/1.1"))
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 404 ")


def test_large_body_is_refused_before_it_is_sent(sender: Sender) -> None:
    valid_request = REQUESTS[0]
    headers = sender.sign(valid_request.service, valid_request.method, valid_request.target, valid_request.headers)
    with closing(connect(sender.host)) as connection:
        connection.sendall(format_head({**headers, "Content-Length": str(10**15)}))
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 413 ")


def read_resident_megabytes(server: LocalServer) -> float:
    pages = int(Path(f"/proc/{server.address.pid}/statm").read_text().split()[1])
    return pages * 4096 / MEGABYTE


def send_large_bodies(sender: Sender, signed_headers: Mapping[str, str]) -> list[threading.Thread]:
    """Start 20 threads, and return them. Each thread sends a body of 24 MB."""

    def send() -> None:
        with closing(connect(sender.host)) as connection:
            connection.sendall(
                format_head(
                    {**signed_headers, "Content-Length": str(24 * MEGABYTE)}, f"POST {INVOCATION.target} HTTP/1.1"
                )
            )
            try:
                connection.sendall(bytes(24 * MEGABYTE))
            except OSError:
                return  # the server has refused the body before all of it was sent
            connection.recv(MEGABYTE)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    return threads


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
INVOCATION = REQUESTS[-1]


@needs_proc
@pytest.mark.parametrize("credentials", [None, Credentials("AKIAOTHER", "another")], ids=["wrong body", "other key"])
def test_unauthenticated_bodies_use_little_memory(
    process_server: LocalServer, sender: Sender, credentials: Credentials | None
) -> None:
    signed_headers = sender.sign(
        INVOCATION.service, "POST", INVOCATION.target, INVOCATION.headers, b"other", credentials=credentials
    )
    initial_megabytes, peak_megabytes = read_resident_megabytes(process_server), 0.0
    threads = send_large_bodies(sender, signed_headers)
    while any(thread.is_alive() for thread in threads):
        peak_megabytes = max(peak_megabytes, read_resident_megabytes(process_server))
        time.sleep(0.01)
    peak_megabytes = max(peak_megabytes, read_resident_megabytes(process_server))
    assert peak_megabytes - initial_megabytes < 100  # the clients have sent 480 MB


@needs_proc
def test_memory_of_large_requests_is_freed(process_server: LocalServer, sender: Sender) -> None:
    signed_headers = sender.sign(
        INVOCATION.service, "POST", INVOCATION.target, INVOCATION.headers, bytes(24 * MEGABYTE)
    )
    initial_megabytes = read_resident_megabytes(process_server)
    for thread in send_large_bodies(sender, signed_headers):
        thread.join()
    wait_until(
        lambda: read_resident_megabytes(process_server) - initial_megabytes,
        lambda megabytes: megabytes < 100,
        seconds=HANG_SECONDS,
    )


def test_slow_unauthenticated_bodies_do_not_occupy_all_threads(process_server: LocalServer, sender: Sender) -> None:
    valid_request = REQUESTS[0]
    headers = sender.sign(valid_request.service, valid_request.method, valid_request.target, valid_request.headers)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(sender.host))) for _ in range(100)]
        for connection in clients:
            connection.sendall(format_head({**headers, "Content-Length": str(MEGABYTE)}))
        deadline, answered_clients = time.monotonic() + HANG_SECONDS, list[socket.socket]()
        while len(answered_clients) < len(clients) - authentication.MAX_BODIES:
            assert time.monotonic() < deadline
            answered_clients, _, _ = select.select(clients, [], [], 0.1)
        assert {connection.recv(12) for connection in answered_clients} == {b"HTTP/1.1 503"}
        process_server.s3.list_buckets()
        process_server.sagemaker.list_models()


FORM_HEADERS = {
    "Host": "localhost",
    "Content-Type": "multipart/form-data; boundary=b",
    "Content-Length": str(24 * MEGABYTE),
}
PART_START = b'--b\r\nContent-Disposition: form-data; name="'


@pytest.mark.parametrize(
    "body_start", [b"", PART_START, PART_START + b'policy"\r\n\r\n'], ids=["before the first part", "header", "field"]
)
def test_unsigned_form_is_refused_before_its_file(sender: Sender, body_start: bytes) -> None:
    with closing(connect(sender.host)) as connection:
        connection.sendall(format_head(FORM_HEADERS, "POST /bucket HTTP/1.1") + body_start)
        with suppress(OSError):  # the server has refused the body before all of it was sent
            connection.sendall(b"a" * MEGABYTE)
        assert connection.recv(MEGABYTE).startswith(b"HTTP/1.1 403 ")
        assert is_closed_in_time(connection)


def test_slow_unsigned_forms_do_not_occupy_all_threads(process_server: LocalServer, sender: Sender) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(sender.host))) for _ in range(100)]
        for connection in clients:
            connection.sendall(format_head(FORM_HEADERS, "POST /bucket HTTP/1.1") + PART_START)
        deadline, answered_clients = time.monotonic() + HANG_SECONDS, list[socket.socket]()
        while len(answered_clients) < len(clients) - authentication.MAX_FORMS:
            assert time.monotonic() < deadline
            answered_clients, _, _ = select.select(clients, [], [], 0.1)
        assert {connection.recv(12) for connection in answered_clients} == {b"HTTP/1.1 503"}
        process_server.s3.list_buckets()
        body = bytes(2 * SMALL_BODY_BYTES)
        headers = sender.sign(INVOCATION.service, "POST", INVOCATION.target, INVOCATION.headers, body)
        assert sender.send_raw("POST", INVOCATION.target, headers, body).status != 503


def test_incomplete_small_bodies_occupy_no_threads(process_server: LocalServer, sender: Sender) -> None:
    valid_request = REQUESTS[0]
    headers = sender.sign(valid_request.service, valid_request.method, valid_request.target, valid_request.headers)
    with ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(closing(connect(sender.host)))
            connection.sendall(format_head({**headers, "Content-Length": "10"}) + b"{")
        start_time = time.monotonic()
        process_server.sagemaker.list_models()
        assert time.monotonic() - start_time < HANG_SECONDS


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 99_999, 100_000, 300_000])
def test_bodies_are_received_in_parts(size: int) -> None:
    with run_http_server() as host, closing(connect(host)) as connection:
        connection.sendall(f"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        for start in range(0, size, 40_000):
            time.sleep(0.01)
            connection.sendall(bytes(min(40_000, size - start)))
        assert f"{size} bytes for /x".encode() in receive_until(connection, b"for /x")
