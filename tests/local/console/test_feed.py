"""Tests of the console's streams of changes: the content of their events, their limits, and their end."""

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from werkzeug import Response

from microjobs_orchestrator.local.console.feed import (
    MAX_PENDING_CHANGES,
    MAX_STREAMS,
    MIN_EVENT_INTERVAL,
    ChangeStream,
    Feed,
)
from microjobs_orchestrator.local.console.sessions import MAX_SESSIONS
from microjobs_orchestrator.local.console_address import CHANGES_PATH
from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.state import Record
from tests.local.clients import LocalServer
from tests.local.security.console_client import Console, make_token, open_stream, read_status
from tests.local.security.stub_runner import run_stub_server
from tests.local.security.wire import Sender

JOB = Record("training-job", "job", "arn:job", "InProgress", created=1.0, modified=1.0, request={}, description={})


@pytest.fixture
def feed() -> Iterator[Feed]:
    feed = Feed()
    yield feed
    feed.close()


def open_change_stream(feed: Feed, is_allowed: Callable[[], bool] = lambda: True) -> ChangeStream:
    stream = feed.open(is_allowed)
    assert next(stream).startswith(b":")
    return stream


def read_event(stream: ChangeStream) -> Any:
    return json.loads(next(stream).removeprefix(b"data: "))


def test_event_names_changed_resources_logs_and_metrics_once(feed: Feed) -> None:
    stream = open_change_stream(feed)
    for _ in range(2):
        feed.publish(JOB)
        feed.publish_line("/aws/sagemaker/TrainingJobs", "job/algo-1-5")
        feed.publish_points([{"Host": "job/algo-1"}, {"TrainingJobName": "job"}])
    assert read_event(stream) == {
        "changes": [{"kind": "training-job", "name": "job", "arn": "arn:job", "status": "InProgress"}],
        "logs": [{"group": "/aws/sagemaker/TrainingJobs", "stream": "job/algo-1-5"}],
        "metrics": [{"Host": "job/algo-1"}, {"TrainingJobName": "job"}],
        "isTruncated": False,
    }


def test_slow_stream_keeps_a_limited_number_of_changes(feed: Feed) -> None:
    stream = open_change_stream(feed)
    for number in range(MAX_PENDING_CHANGES * 10):
        feed.publish_line("group", f"stream-{number}")
    assert len(stream._pending) <= MAX_PENDING_CHANGES + 1
    assert read_event(stream) == {"changes": [], "logs": [], "metrics": [], "isTruncated": True}


def test_closed_stream_gets_no_changes(feed: Feed) -> None:
    stream = open_change_stream(feed)
    stream.close()
    feed.publish(JOB)
    assert not stream.has_changes


def test_stream_ends_with_its_session(feed: Feed) -> None:
    is_open = True
    stream = open_change_stream(feed, lambda: is_open)
    feed.publish(JOB)
    assert read_event(stream)["changes"]
    is_open = False
    feed.publish(JOB)
    assert list(stream) == []


def test_stream_of_a_replaced_session_ends(tmp_path: Path) -> None:
    with run_stub_server(tmp_path) as server:
        sender = Sender(server.address)
        stream = open_stream(open_session(server, sender))
        assert read_status(stream) == 200
        for _ in range(MAX_SESSIONS):
            open_session(server, sender)
        server.sagemaker.create_model_package_group(ModelPackageGroupName="group")
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += stream.recv(1 << 16)
        assert b"group" not in data
        stream.close()
        sender.close()


def receive_until(connection: socket.socket, end: bytes) -> None:
    data = b""
    while end not in data:
        block = connection.recv(1 << 16)
        assert block, data
        data = data[-len(end) :] + block


@pytest.mark.slow
def test_open_streams_occupy_no_threads(tmp_path: Path) -> None:
    with run_stub_server(tmp_path) as server, ExitStack() as stack:
        sender = Sender(server.address)
        stack.callback(sender.close)
        console = open_session(server, sender)
        threads = Path(f"/proc/{server.address.pid}/task")
        thread_count = len(list(threads.iterdir()))
        streams = [stack.enter_context(open_stream(console)) for _ in range(MAX_STREAMS)]
        for stream in streams:
            receive_until(stream, b": open\n\n")
        assert len(list(threads.iterdir())) < thread_count + MAX_STREAMS / 10
        server.sagemaker.create_model_package_group(ModelPackageGroupName="created-for-all")
        for stream in streams:
            receive_until(stream, b"created-for-all")


@pytest.fixture
def listener(feed: Feed) -> Iterator[Server]:
    """A listener that serves the streams of the feed, with one thread and small send buffers."""

    def open_feed_stream(environ: Any, start_response: Any) -> Iterable[bytes]:
        return Response(feed.open(lambda: True), content_type="text/event-stream")(environ, start_response)

    server = Server(("127.0.0.1", 0), server_name="localhost", numthreads=1)
    server.wsgi_app = open_feed_stream
    server.prepare()
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)  # accepted sockets inherit the option
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    feed.close()
    server.stop()
    thread.join()


def connect(listener: Server) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
    connection.settimeout(20)
    connection.connect(listener.bind_addr)
    connection.sendall(f"POST {CHANGES_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    return connection


def test_client_that_reads_nothing_delays_no_others_and_costs_little_memory(feed: Feed, listener: Server) -> None:
    with connect(listener), connect(listener) as reader:
        receive_until(reader, b": open\n\n")
        for number in range(10):
            for stream in range(MAX_PENDING_CHANGES // 2):
                feed.publish_line("g" * 500, f"{number}-{stream}-{'s' * 500}")
            receive_until(reader, f"{number}-{MAX_PENDING_CHANGES // 2 - 1}-".encode())
        threading.Event().wait(2 * MIN_EVENT_INTERVAL)
        slow_stream = max(feed._streams, key=lambda stream: len(stream._pending))
        assert MAX_PENDING_CHANGES <= len(slow_stream._pending) <= MAX_PENDING_CHANGES + 1


def open_session(server: LocalServer, sender: Sender) -> Console:
    console = Console(sender)
    assert console.open(make_token(server)).status == 200
    return console
