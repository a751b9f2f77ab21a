"""Queues of messages: waiting consumers, the work per received message, and queues of earlier versions."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from microjobs_orchestrator.local import queues
from microjobs_orchestrator.local.queues import Queues, ReceivedMessage
from microjobs_orchestrator.local.sqlite import Database
from microjobs_orchestrator.local.state import Owner, State
from tests.local.clients import wait_until

WAIT_SECONDS = 20.0
"""Maximum number of seconds for which clients of SQS may wait."""
TIMEOUT_SECONDS = 10.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "queues.db", ";".join(queues.TABLES))) as database:
        yield database


def start_consumer(pool: ThreadPoolExecutor, messages: Queues, name: str) -> Future[list[ReceivedMessage]]:
    """Start a consumer. Return its future as soon as it waits for a message."""
    waiting_count = messages._waiting
    consumer = pool.submit(messages.receive, name, 1, 30.0, WAIT_SECONDS)
    wait_until(lambda: messages._waiting, lambda count: count > waiting_count)
    return consumer


def test_closing_ends_waiting_at_once(database: Database) -> None:
    messages = Queues(database)
    with ThreadPoolExecutor() as pool:
        consumers = [start_consumer(pool, messages, "q") for _ in range(3)]
        messages.close()
        assert [consumer.result(TIMEOUT_SECONDS) for consumer in consumers] == [[], [], []]
        assert pool.submit(messages.receive, "q", 1, 30.0, WAIT_SECONDS).result(TIMEOUT_SECONDS) == []


def test_consumer_does_not_wait_if_many_others_wait(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING_CONSUMERS", 1)
    messages = Queues(database)
    with ThreadPoolExecutor() as pool:
        first = start_consumer(pool, messages, "q")
        assert messages.receive("q", 1, 30.0, WAIT_SECONDS) == []
        assert not first.done()
        messages.send("q", "text")
        assert [message.body for message in first.result(TIMEOUT_SECONDS)] == ["text"]
        assert messages._waiting == 0


def test_messages_are_received_again_in_the_order_of_sending(database: Database) -> None:
    messages = Queues(database)
    for number in range(4):
        messages.send("q", str(number))
    first_messages = messages.receive("q", 2, 0.0, 0.0)
    next_messages = messages.receive("q", 3, 30.0, 0.0)
    assert [message.body for message in first_messages] == ["0", "1"]
    assert [(message.body, message.count) for message in next_messages] == [("0", 2), ("1", 2), ("2", 1)]


def count_instructions(database: Database, function: Callable[[], object]) -> int:
    """Return the number of instructions that SQLite runs during a call."""
    instruction_count = 0

    def handle_progress() -> int:
        nonlocal instruction_count
        instruction_count += 1
        return 0

    database.connection.set_progress_handler(handle_progress, 1)
    function()
    database.connection.set_progress_handler(None, 1)
    return instruction_count


@pytest.mark.parametrize("are_hidden", [False, True])
def test_receiving_takes_no_longer_in_a_long_queue(database: Database, are_hidden: bool) -> None:
    messages = Queues(database)

    def receive_one() -> None:
        messages.send("q", "text")
        (message,) = messages.receive("q", 1, 600.0, 0.0)
        messages.delete_message("q", message.handle)

    instruction_count = count_instructions(database, receive_one)
    with database.transaction():
        for number in range(1000):
            messages.send("q", str(number))
        if are_hidden:
            assert len(messages.receive("q", 1000, 600.0, 0.0)) == 1000
    assert count_instructions(database, receive_one) < 2 * instruction_count
    assert count_instructions(database, lambda: messages._compute_seconds_until_visible("q")) < instruction_count


def test_queues_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(State(path)) as state:
        state.add("sqs-queue", "q", "", "", {}, {})
        for body in ("first", "second"):
            internal = {"VisibleFrom": 0.0, "ReceiptHandle": "", "ReceiveCount": 1}
            owner = Owner("sqs-queue", "q")
            state.add("sqs-message", f"id of {body}", "", "", {"Body": body}, {}, internal=internal, owner=owner)
    with closing(State(path)) as state:
        assert state.queues.list_names("") == ["q"]
        received = state.queues.receive("q", 10, 30.0, 0.0)
        assert [(item.message_id, item.body, item.count) for item in received] == [
            ("id of first", "first", 2),
            ("id of second", "second", 2),
        ]
        assert state.get("sqs-queue", "q") is None
