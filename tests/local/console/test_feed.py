"""Streams of changes: what events contain, their limits, and their ends."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.console.feed import MAX_PENDING, Feed, Stream
from microjobs_orchestrator.local.console.sessions import MAX_SESSIONS
from microjobs_orchestrator.local.state import Record
from tests.local.clients import LocalServer
from tests.local.security.console_client import Console, make_token, open_stream, read_status
from tests.local.security.stubbed import stubbed
from tests.local.security.wire import Sender

JOB = Record("training-job", "job", "arn:job", "InProgress", 1.0, 1.0, {}, {}, {})


@pytest.fixture
def feed() -> Iterator[Feed]:
    made = Feed()
    yield made
    made.close()


def open_feed(feed: Feed, is_allowed: Callable[[], bool] = lambda: True) -> Stream:
    stream = feed.open(is_allowed)
    assert next(stream).startswith(b":")
    return stream


def read_event(stream: Stream) -> Any:
    return json.loads(next(stream).removeprefix(b"data: "))


def test_event_names_changed_resources_logs_and_metrics_once(feed: Feed) -> None:
    stream = open_feed(feed)
    for _ in range(2):
        feed.publish(JOB)
        feed.publish_line("/aws/sagemaker/TrainingJobs", "job/algo-1-5")
        feed.publish_points([{"Host": "job/algo-1"}, {"TrainingJobName": "job"}])
    assert read_event(stream) == {
        "changes": [{"kind": "training-job", "name": "job", "arn": "arn:job", "status": "InProgress"}],
        "logs": [{"group": "/aws/sagemaker/TrainingJobs", "stream": "job/algo-1-5"}],
        "metrics": [{"Host": "job/algo-1"}, {"TrainingJobName": "job"}],
        "many": False,
    }


def test_slow_stream_keeps_a_limited_number_of_changes(feed: Feed) -> None:
    stream = open_feed(feed)
    for number in range(MAX_PENDING * 10):
        feed.publish_line("group", f"stream-{number}")
    assert len(stream._pending) <= MAX_PENDING + 1
    assert read_event(stream) == {"changes": [], "logs": [], "metrics": [], "many": True}


def test_closed_stream_gets_no_changes(feed: Feed) -> None:
    stream = open_feed(feed)
    stream.close()
    feed.publish(JOB)
    assert not stream.has_changes


def test_stream_ends_with_its_session(feed: Feed) -> None:
    is_open = True
    stream = open_feed(feed, lambda: is_open)
    feed.publish(JOB)
    assert read_event(stream)["changes"]
    is_open = False
    feed.publish(JOB)
    assert list(stream) == []


def test_stream_of_a_replaced_session_ends(tmp_path: Path) -> None:
    with stubbed(tmp_path) as server:
        sender = Sender(server.address)
        stream = open_stream(open_session(server, sender))
        assert read_status(stream) == 200
        for _ in range(MAX_SESSIONS):
            open_session(server, sender)
        server.sagemaker.create_model_package_group(ModelPackageGroupName="group")
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += stream.recv(1 << 16)
        assert b"group" not in received
        stream.close()
        sender.close()


def open_session(server: LocalServer, sender: Sender) -> Console:
    console = Console(sender)
    assert console.open(make_token(server)).status == 200
    return console
