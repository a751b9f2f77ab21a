"""Delivery of events from the outbox to files, commands, webhooks and queues."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.event_settings import EventTarget
from microjobs_orchestrator.local.events import delivery, targets
from microjobs_orchestrator.local.events.delivery import Deliveries
from microjobs_orchestrator.local.outbox import StoredEvent
from microjobs_orchestrator.local.state import State
from tests.local.event_listener import EventListener
from tests.polling import wait_until


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    new_state = State(tmp_path / "state.db")
    yield new_state
    new_state.close()


@pytest.fixture
def listener() -> Iterator[EventListener]:
    with EventListener() as new_listener:
        yield new_listener


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "RETRY_DELAYS", (0.01, 0.01, 0.01))


def add_events(state: State, target: EventTarget, *ids: str) -> None:
    with state.transaction():
        state.outbox.add(StoredEvent(target.key, json.dumps({"id": event_id})) for event_id in ids)


@contextmanager
def run_deliveries(state: State, *event_targets: EventTarget) -> Iterator[Deliveries]:
    deliveries = Deliveries(state.outbox, state.queues, event_targets)
    try:
        yield deliveries
    finally:
        deliveries.close()


def has_events(state: State, target: EventTarget) -> bool:
    """Return whether the outbox has events for a target."""
    return state.outbox.find_first(target.key) is not None


def wait_until_empty(state: State, target: EventTarget) -> None:
    """Wait until the outbox has no event for a target."""
    wait_until(lambda: has_events(state, target), lambda found: not found)


def read_ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_events_are_appended_in_order(state: State, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    target = EventTarget(file=str(path))
    add_events(state, target, "1", "2")  # an earlier server did not deliver these events
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "3")
        deliveries.notify()
    assert read_ids(path) == ["1", "2", "3"]
    assert path.stat().st_mode & 0o077 == 0
    assert not has_events(state, target)


def test_queue_gets_events_in_order(state: State) -> None:
    target = EventTarget(queue="q")
    add_events(state, target, "first", "second")
    with run_deliveries(state, target):
        wait_until_empty(state, target)
        add_events(state, target, "third")
    received = state.queues.receive("q", max_count=10, visibility_timeout=30.0, wait_seconds=0.0)
    assert [json.loads(message.body)["id"] for message in received] == ["first", "second", "third"]
    assert state.queues.list_names("") == ["q"]


def test_event_begins_on_a_new_line_after_the_incomplete_line_of_a_killed_server(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"id": ')
    targets.append_line(str(path), '{"id": "1"}')
    assert path.read_text().splitlines() == ['{"id": ', '{"id": "1"}']


def test_missing_folder_is_reported_and_does_not_stop_later_events(
    state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = EventTarget(file=str(tmp_path / "absent" / "events.jsonl"))
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1")
        deliveries.notify()
        wait_until_empty(state, target)
        (tmp_path / "absent").mkdir()
        add_events(state, target, "2")
        deliveries.notify()
        wait_until_empty(state, target)
    assert read_ids(tmp_path / "absent" / "events.jsonl") == ["2"]
    assert 'event {"id": "1"} was not delivered to' in caplog.text
    assert "No such file or directory" in caplog.text


def make_command_target(script: str, **settings: Any) -> EventTarget:
    return EventTarget(command=[sys.executable, "-c", script], **settings)


def test_command_reads_one_event_and_gets_no_secrets(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("MICROJOBS_HOME", "/home")
    output = tmp_path / "out"
    expression = "json.dumps([json.load(sys.stdin), dict(os.environ)])"
    target = make_command_target(f"import json, os, sys; print({expression}, file=open({str(output)!r}, 'a'))")
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1", "2")
        deliveries.notify()
        wait_until_empty(state, target)
    events, environments = zip(*map(json.loads, output.read_text().splitlines()), strict=True)
    assert list(events) == [{"id": "1"}, {"id": "2"}]
    assert set(environments[0]) <= {*targets.INHERITED_VARIABLES, "LC_CTYPE"}


def test_failing_command_is_reported_once(state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = tmp_path / "out"
    target = make_command_target(
        f"open({str(output)!r}, 'a').write('x'); raise SystemExit('no ' + 'y' * 1000 + ' mail')"
    )
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1")
        deliveries.notify()
        wait_until_empty(state, target)
    assert output.read_text() == "x"
    assert "exit code 1" in caplog.text
    assert "y mail" in caplog.text
    assert "no y" not in caplog.text


def test_missing_command_is_reported(state: State, caplog: pytest.LogCaptureFixture) -> None:
    target = EventTarget(command=["/absent/command"])
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1")
        deliveries.notify()
        wait_until_empty(state, target)
    assert "was not delivered to /absent/command" in caplog.text


@pytest.mark.slow
def test_hanging_command_is_ended_with_its_children(
    state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    child = f"import time; time.sleep(3); open({str(output)!r}, 'w')"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    target = make_command_target(script, timeout=1.0)
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1")
        deliveries.notify()
        wait_until_empty(state, target)
    time.sleep(3)
    assert not output.exists()
    assert "it ran longer than its timeout of 1 s" in caplog.text


def test_webhook_gets_events_in_order(state: State, listener: EventListener) -> None:
    target = EventTarget(webhook=f"{listener.url}/hook?a=b")
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1", "2", "3")
        deliveries.notify()
        wait_until_empty(state, target)
    assert [event["id"] for event in listener.events] == ["1", "2", "3"]
    assert set(listener.paths) == {"/hook?a=b"}


def test_webhook_is_retried(state: State, listener: EventListener) -> None:
    listener.statuses = [500, 503]
    target = EventTarget(webhook=listener.url)
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1", "2")
        deliveries.notify()
        wait_until_empty(state, target)
    assert [event["id"] for event in listener.events] == ["1", "1", "1", "2"]


def test_attempts_are_limited(state: State, listener: EventListener, caplog: pytest.LogCaptureFixture) -> None:
    listener.statuses = [500] * 4
    target = EventTarget(webhook=listener.url)
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1", "2")
        deliveries.notify()
        wait_until_empty(state, target)
    assert [event["id"] for event in listener.events] == ["1"] * 4 + ["2"]
    assert f'event {{"id": "1"}} was not delivered to {listener.url}: status 500' in caplog.text


def test_redirect_is_not_followed(state: State, listener: EventListener, caplog: pytest.LogCaptureFixture) -> None:
    listener.statuses = [302] * 4
    with EventListener() as other:
        listener.location = other.url
        target = EventTarget(webhook=listener.url)
        with run_deliveries(state, target) as deliveries:
            add_events(state, target, "1")
            deliveries.notify()
            wait_until_empty(state, target)
        assert other.events == []
    assert "status 302; redirects are not followed" in caplog.text


def test_slow_response_ends_at_the_timeout(listener: EventListener) -> None:
    """The listener sends one byte of an endless header every 0.1 s."""
    listener.is_slow = True
    target, start_time = EventTarget(webhook=listener.url, timeout=0.5), time.monotonic()
    with pytest.raises(targets.DeliveryError, match=r"no complete response within 0\.5 s"):
        targets.post(target, "{}")
    assert time.monotonic() - start_time < 5


def test_webhook_on_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch, listener: EventListener) -> None:
    """The test simulates a hosts file in which `localhost` is the name of another machine."""
    monkeypatch.setattr(targets, "ip_address", lambda _: type("Address", (), {"is_loopback": False}))
    with pytest.raises(targets.DeliveryError, match=r"127.0.0.1 is 127.0.0.1, which is not on this machine"):
        targets.post(EventTarget(webhook=listener.url), "{}")
    assert listener.events == []


def test_unreachable_webhook_keeps_events_for_the_next_server(state: State) -> None:
    with EventListener() as listener:
        target = EventTarget(webhook=listener.url)
        port = listener.port
    with run_deliveries(state, target) as deliveries:
        add_events(state, target, "1", "2")
        deliveries._deliveries[0]._is_closing.set()  # the server stops before the first attempt has failed
        deliveries.notify()
    with EventListener(port) as listener, run_deliveries(state, target):
        wait_until_empty(state, target)
        assert [event["id"] for event in listener.events] == ["1", "2"]


def test_hanging_webhook_does_not_delay_the_end_of_the_server(
    state: State, listener: EventListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "CLOSE_SECONDS", 0.5)
    listener.is_slow = True
    target = EventTarget(webhook=listener.url, timeout=20.0)
    add_events(state, target, "1")
    with run_deliveries(state, target):
        wait_until(lambda: listener.events, bool)
        start_time = time.monotonic()
    assert time.monotonic() - start_time < 10
    assert has_events(state, target)  # the next server posts the event again


def test_targets_do_not_wait_for_each_other(state: State, tmp_path: Path) -> None:
    slow_target, fast_target = (
        make_command_target("import time; time.sleep(30)", timeout=60.0),
        EventTarget(file=str(tmp_path / "a")),
    )
    start_time = time.monotonic()
    with run_deliveries(state, slow_target, fast_target) as deliveries:
        add_events(state, slow_target, "1")
        add_events(state, fast_target, "1")
        deliveries.notify()
        wait_until_empty(state, fast_target)
        deliveries._deliveries[0]._cancelled.set()
    assert time.monotonic() - start_time < 20
    assert has_events(state, slow_target)  # the next server runs the command again


def test_oldest_events_are_removed(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "MAX_UNDELIVERED_EVENTS", 3)
    target = EventTarget(file=str(tmp_path / "a"))
    add_events(state, target, *"12345")
    with run_deliveries(state, target):
        wait_until_empty(state, target)
    assert read_ids(tmp_path / "a") == ["3", "4", "5"]
    assert "the 2 oldest ones are lost" in caplog.text


def test_oldest_events_are_removed_while_a_slow_target_receives_events(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outbox may never be empty for a slow target, so events above the limit are removed before each delivery."""
    monkeypatch.setattr(delivery, "MAX_UNDELIVERED_EVENTS", 3)
    target, delivered_ids = EventTarget(file="a"), list[str]()

    def deliver(event: str) -> None:
        delivered_ids.append(json.loads(event)["id"])
        if delivered_ids == ["0"]:
            add_events(state, target, *"12345")

    monkeypatch.setattr(delivery, "make_deliver_function", lambda *_: deliver)
    add_events(state, target, "0")
    with run_deliveries(state, target):
        wait_until_empty(state, target)
    assert delivered_ids == ["0", "3", "4", "5"]


def test_events_of_a_removed_target_are_removed(state: State, caplog: pytest.LogCaptureFixture) -> None:
    target = EventTarget(file="a")
    add_events(state, target, "1", "2")
    with run_deliveries(state):
        assert not has_events(state, target)
    assert "2 undelivered events are removed: their targets are no longer configured" in caplog.text
