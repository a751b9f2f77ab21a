"""Queues of messages: waiting consumers, the work per received message, and queues that older servers stored."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from microjobs_orchestrator.local import queues
from microjobs_orchestrator.local.queues import Queues, ReceivedMessage
from microjobs_orchestrator.local.sqlite import Database
from microjobs_orchestrator.local.state import Owner, State
from tests.polling import wait_until

WAIT_SECONDS = 20.0
"""Maximum number of seconds for which clients of SQS may wait."""
TIMEOUT_SECONDS = 60.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "queues.db", ";".join(queues.TABLES))) as database:
        yield database


def start_consumer(pool: ThreadPoolExecutor, queue_store: Queues, name: str) -> Future[list[ReceivedMessage]]:
    """Start a consumer. Return its future as soon as it waits for a message."""
    waiting_count = queue_store._waiting_count
    consumer = pool.submit(queue_store.receive, name, max_count=1, visibility_timeout=30.0, wait_seconds=WAIT_SECONDS)
    wait_until(lambda: queue_store._waiting_count, lambda count: count > waiting_count)
    return consumer


def test_closing_ends_waiting_at_once(database: Database) -> None:
    queue_store = Queues(database)
    with ThreadPoolExecutor() as pool:
        consumers = [start_consumer(pool, queue_store, "q") for _ in range(3)]
        queue_store.close()
        assert [consumer.result(TIMEOUT_SECONDS) for consumer in consumers] == [[], [], []]
        late_consumer = pool.submit(
            queue_store.receive, "q", max_count=1, visibility_timeout=30.0, wait_seconds=WAIT_SECONDS
        )
        assert late_consumer.result(TIMEOUT_SECONDS) == []


def test_consumer_does_not_wait_if_many_others_wait(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING_CONSUMERS", 1)
    queue_store = Queues(database)
    with ThreadPoolExecutor() as pool:
        first = start_consumer(pool, queue_store, "q")
        assert queue_store.receive("q", max_count=1, visibility_timeout=30.0, wait_seconds=WAIT_SECONDS) == []
        assert not first.done()
        queue_store.send("q", "text")
        assert [message.body for message in first.result(TIMEOUT_SECONDS)] == ["text"]
        assert queue_store._waiting_count == 0


def test_messages_are_received_again_in_the_order_of_sending(database: Database) -> None:
    queue_store = Queues(database)
    for number in range(4):
        queue_store.send("q", str(number))
    first_messages = queue_store.receive("q", max_count=2, visibility_timeout=0.0, wait_seconds=0.0)
    next_messages = queue_store.receive("q", max_count=3, visibility_timeout=30.0, wait_seconds=0.0)
    assert [message.body for message in first_messages] == ["0", "1"]
    assert [(message.body, message.receive_count) for message in next_messages] == [("0", 2), ("1", 2), ("2", 1)]


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


@pytest.mark.parametrize("are_messages_hidden", [False, True])
def test_receiving_takes_no_longer_in_a_long_queue(database: Database, are_messages_hidden: bool) -> None:
    queue_store = Queues(database)

    def receive_one() -> None:
        queue_store.send("q", "text")
        (message,) = queue_store.receive("q", max_count=1, visibility_timeout=600.0, wait_seconds=0.0)
        queue_store.delete_message("q", message.handle)

    instruction_count = count_instructions(database, receive_one)
    with database.transaction():
        for number in range(1000):
            queue_store.send("q", str(number))
        if are_messages_hidden:
            assert len(queue_store.receive("q", max_count=1000, visibility_timeout=600.0, wait_seconds=0.0)) == 1000
    assert count_instructions(database, receive_one) < 2 * instruction_count
    assert count_instructions(database, lambda: queue_store._compute_seconds_until_visible("q")) < instruction_count


def test_queues_that_an_older_server_stored_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(State(path)) as state:
        state.add("sqs-queue", "q", "", "", {}, {})
        for body in ("first", "second"):
            internal = {"VisibleFrom": 0.0, "ReceiptHandle": "", "ReceiveCount": 1}
            owner = Owner("sqs-queue", "q")
            state.add("sqs-message", f"id of {body}", "", "", {"Body": body}, {}, internal=internal, owner=owner)
    with closing(State(path)) as state:
        assert state.queues.list_names("") == ["q"]
        received = state.queues.receive("q", max_count=10, visibility_timeout=30.0, wait_seconds=0.0)
        assert [(item.message_id, item.body, item.receive_count) for item in received] == [
            ("id of first", "first", 2),
            ("id of second", "second", 2),
        ]
        assert state.get("sqs-queue", "q") is None
