"""Messages of SNS topics, from their publication to their targets."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from microjobs_orchestrator.local.event_settings import EventTarget, read_targets
from microjobs_orchestrator.local.resources.event_recorder import EventRecorder
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.local.topics import Topics

TOPIC_ARN = "arn:aws:sns:us-east-1:000000000000:done"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    new_state = State(tmp_path / "state")
    yield new_state
    new_state.close()


@pytest.mark.parametrize("topic", ["done", TOPIC_ARN])
def test_message_is_stored_for_the_targets_of_its_topic(state: State, topic: str) -> None:
    target, other_target = EventTarget(file="a", topic=topic), EventTarget(file="b", topic="other")
    notified: list[bool] = []
    Topics(state.outbox, [target, other_target], lambda: notified.append(True)).publish(TOPIC_ARN, {"a": 1})
    stored_event = state.outbox.find_first(target.key)
    assert stored_event is not None
    assert json.loads(stored_event.content) == {"a": 1}
    assert state.outbox.find_first(other_target.key) is None
    assert notified == [True]


def test_message_without_a_target_is_reported(state: State, caplog: pytest.LogCaptureFixture) -> None:
    Topics(state.outbox, [EventTarget(file="a")], lambda: None).publish(TOPIC_ARN, {})
    assert f"a message to {TOPIC_ARN} has no target" in caplog.text


def test_message_of_a_transaction_that_fails_is_not_stored(state: State) -> None:
    target = EventTarget(file="a", topic="done")
    with suppress(RuntimeError), state.transaction():
        Topics(state.outbox, [target], lambda: None).publish(TOPIC_ARN, {})
        raise RuntimeError
    assert state.outbox.find_first(target.key) is None


def test_target_of_a_topic_gets_no_events() -> None:
    recorder = EventRecorder(
        all_operations=[], targets=[EventTarget(file="a", topic="done")], region="us-east-1", notify=lambda: None
    )
    assert list(recorder._assign_targets([{"source": "aws.sagemaker"}])) == []


def test_topic_with_a_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="topic and pattern cannot be combined"):
        read_targets([{"file": "a", "topic": "done", "pattern": {"source": ["x"]}}])
