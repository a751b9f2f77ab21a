"""Queues of messages, as in SQS. Callback steps of pipelines send their messages to them.

The state contains the queues and the messages, so they survive a restart of the server.
"""

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.state import NameTakenError, Owner, Query, Record, State

QUEUE_KIND, MESSAGE_KIND = "sqs-queue", "sqs-message"
VISIBLE_FROM, HANDLE, COUNT = "VisibleFrom", "ReceiptHandle", "ReceiveCount"
"""Keys of a message's internal state. Until `VISIBLE_FROM`, no consumer receives the message."""
VISIBILITY_TIMEOUT = 30
"""AWS's default, in seconds. If a received message is not deleted within this time, it is received again."""
MAX_MESSAGES = 120_000
"""Maximum number of messages in a queue that are searched."""

MAX_WAITERS = 16
"""Number of consumers that may wait for messages at the same time. Each of them occupies a thread of the server."""

_arrival = threading.Condition()
_waiters = threading.Semaphore(MAX_WAITERS)
"""Notified when a message arrives in any queue."""


@dataclass(frozen=True)
class Received:
    """A received message."""

    message_id: str
    handle: str
    body: str
    sent: float
    count: int


def get_queue_name(url: str) -> str:
    """Return the name of the queue with a URL. Only the last part of the URL matters."""
    return url.rstrip("/").rpartition("/")[2]


def create_queue(state: State, name: str) -> None:
    """Create a queue, unless it exists."""
    try:
        state.add(QUEUE_KIND, name, f"arn:aws:sqs:{name}", "", {}, {"QueueName": name})
    except NameTakenError:
        return


def find_queue(state: State, name: str) -> Record:
    """Return the record of a queue. Raise ServiceError QueueDoesNotExist if there is no queue of that name."""
    record = state.get(QUEUE_KIND, name)
    if record is None:
        message = f"The queue {name!r} does not exist: create it with CreateQueue."
        raise ServiceError("QueueDoesNotExist", message)
    return record


def delete_queue(state: State, name: str) -> None:
    purge(state, name)
    state.delete(QUEUE_KIND, name)


def purge(state: State, name: str) -> None:
    """Delete all messages of a queue."""
    for record in _list_messages(state, name):
        state.delete(MESSAGE_KIND, record.name)


def send(state: State, queue: str, body: str) -> str:
    """Add a message to a queue; return its id."""
    message_id = str(uuid.uuid4())
    owner, internal = Owner(QUEUE_KIND, queue), {VISIBLE_FROM: 0.0, HANDLE: "", COUNT: 0}
    state.add(MESSAGE_KIND, message_id, "", "", {"Body": body}, {}, internal=internal, owner=owner)
    with _arrival:
        _arrival.notify_all()
    return message_id


def receive(state: State, queue: str, maximum: int, visibility_timeout: float, wait_seconds: float) -> list[Received]:
    """Return visible messages, oldest first, and hide them from other consumers.

    Args:
        wait_seconds: the time to wait for a first message. If MAX_WAITERS consumers wait already, do not wait.
    """
    can_wait = _waiters.acquire(blocking=False)
    deadline = time.monotonic() + (wait_seconds if can_wait else 0)
    try:
        return _receive(state, queue, maximum, visibility_timeout, deadline)
    finally:
        if can_wait:
            _waiters.release()


def _receive(state: State, queue: str, maximum: int, visibility_timeout: float, deadline: float) -> list[Received]:
    with _arrival:  # so that no two consumers take the same message
        while True:
            messages, now = _list_messages(state, queue), time.time()
            if visible := [record for record in messages if record.internal[VISIBLE_FROM] <= now]:
                return [_hide(state, record, now + visibility_timeout) for record in visible[:maximum]]
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return []
            _arrival.wait(min([remaining, *(record.internal[VISIBLE_FROM] - now for record in messages)]))


def _hide(state: State, record: Record, visible_from: float) -> Received:
    handle, count = uuid.uuid4().hex, record.internal[COUNT] + 1
    state.update(MESSAGE_KIND, record.name, {}, internal={VISIBLE_FROM: visible_from, HANDLE: handle, COUNT: count})
    return Received(record.name, f"{record.name}/{handle}", record.request["Body"], record.created, count)


def _list_messages(state: State, queue: str) -> list[Record]:
    return state.find(Query(MESSAGE_KIND, owner=Owner(QUEUE_KIND, queue), descending=False, limit=MAX_MESSAGES))


def delete_message(state: State, queue: str, handle: str) -> None:
    """Delete a received message. A message that is already deleted is no error.

    Raises:
        ServiceError: the handle does not belong to a message of this queue.
    """
    message_id, _, secret = handle.partition("/")
    record = state.get(MESSAGE_KIND, message_id)
    if not secret or (record is not None and record.owner != Owner(QUEUE_KIND, queue)):
        raise ServiceError(
            "ReceiptHandleIsInvalid", f"The receipt handle {handle!r} is not one of the queue {queue!r}."
        )
    if record is not None and record.internal[HANDLE] == secret:
        state.delete(MESSAGE_KIND, message_id)


def describe(received: Received) -> Mapping[str, Any]:
    """Return the system attributes of a received message."""
    return {"SentTimestamp": f"{received.sent * 1000:.0f}", "ApproximateReceiveCount": str(received.count)}
