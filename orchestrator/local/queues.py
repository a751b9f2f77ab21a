"""Queues of messages, as in SQS. Callback steps of pipelines send their messages to these queues.

The database of the state contains the queues and the messages, so they survive a restart of the server.
"""

import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.sqlite import Database

TABLES = (
    "CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY)",
    # Until `visible_from`, no consumer receives the message. When this time has passed, the value is set to 0, so that
    # the index lists all visible messages in the order of their numbers.
    """
    CREATE TABLE IF NOT EXISTS messages (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, queue TEXT NOT NULL, body TEXT NOT NULL,
        sent REAL NOT NULL, visible_from REAL NOT NULL DEFAULT 0, secret TEXT NOT NULL DEFAULT '',
        count INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX IF NOT EXISTS by_queue ON messages (queue, visible_from, number)",
)
_OLD_KINDS = ("sqs-queue", "sqs-message")
"""Kinds of resources that contained the queues and the messages in earlier versions."""

VISIBILITY_TIMEOUT = 30
"""AWS's default, in seconds. If a received message is not deleted within this time, it can be received again."""
MAX_WAITING_CONSUMERS = 16
"""Number of consumers that may wait for messages at the same time. Each of them occupies a thread of the server."""
_HANDLE_PATTERN = re.compile(r"([0-9]{1,18})/([0-9a-f]{32})")


@dataclass(frozen=True)
class ReceivedMessage:
    """A received message."""

    message_id: str
    handle: str
    """The receipt handle, with which the consumer deletes the message."""
    body: str
    sent: float
    """The time of SendMessage, in seconds since 1970."""
    receive_count: int
    """The number of times that the message was received."""


def get_queue_name(url: str) -> str:
    """Return the name in a queue's URL. Only the last part of the URL matters."""
    return url.rstrip("/").rpartition("/")[2]


def move_old_queues(database: sqlite3.Connection) -> None:
    """Move the queues and the messages of an earlier version, which stored them as resources."""
    queue, message = _OLD_KINDS
    database.execute("INSERT OR IGNORE INTO queues SELECT name FROM resources WHERE kind = ?", (queue,))
    database.execute(
        "INSERT INTO messages (id, queue, body, sent, count) SELECT name, owner_name,"
        " json_extract(request, '$.Body'), created, json_extract(internal, '$.ReceiveCount') FROM resources"
        " WHERE kind = ? AND json_valid(request) AND json_valid(internal) ORDER BY created",
        (message,),
    )
    database.execute("DELETE FROM resources WHERE kind IN (?, ?)", _OLD_KINDS)


class Queues:
    """All queues. Methods may be called from any thread. Do not call `receive` in a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._arrival = threading.Condition(database.lock)
        """The condition is notified when a message arrives in a queue, and when `close` is called. While a consumer
        waits, it does not hold the database's lock."""
        self._waiting_count = 0
        self._is_closed = False

    def close(self) -> None:
        """End the waiting of all consumers. Later calls of `receive` do not wait."""
        with self._arrival:
            self._is_closed = True
            self._arrival.notify_all()

    def create(self, name: str) -> None:
        """Create a queue, unless it exists."""
        self._database.change("INSERT OR IGNORE INTO queues VALUES (?)", (name,))

    def require_name(self, name: str) -> str:
        """Return the name of a queue. Raise ServiceError QueueDoesNotExist if there is no queue of that name."""
        if not self._database.select("SELECT 1 FROM queues WHERE name = ?", (name,)):
            message = f"The queue {name!r} does not exist: create it with CreateQueue."
            raise ServiceError("QueueDoesNotExist", message)
        return name

    def list_names(self, prefix: str) -> list[str]:
        """Return the names of queues, sorted. Each name begins with the prefix."""
        names = self._database.select("SELECT name FROM queues ORDER BY name")
        return [name for (name,) in names if name.startswith(prefix)]

    def delete(self, name: str) -> None:
        with self._database.transaction():
            self.purge(name)
            self._database.change("DELETE FROM queues WHERE name = ?", (name,))

    def purge(self, name: str) -> None:
        """Delete all messages of a queue."""
        self._database.change("DELETE FROM messages WHERE queue = ?", (name,))

    def send(self, queue: str, body: str) -> str:
        """Add a message to a queue; return its id."""
        message_id = str(uuid.uuid4())
        with self._arrival:
            values = (message_id, queue, body, time.time())
            self._database.change("INSERT INTO messages (id, queue, body, sent) VALUES (?, ?, ?, ?)", values)
            self._arrival.notify_all()
        return message_id

    def receive(
        self, queue: str, max_count: int, visibility_timeout: float, wait_seconds: float
    ) -> list[ReceivedMessage]:
        """Return visible messages, oldest first, and hide them from other consumers.

        Args:
            wait_seconds: the time to wait for a first message. If MAX_WAITING_CONSUMERS are already waiting, this call
                does not wait.
        """
        deadline = time.monotonic() + wait_seconds
        with self._arrival:
            if self._waiting_count >= MAX_WAITING_CONSUMERS:
                return self._take(queue, max_count, visibility_timeout)
            self._waiting_count += 1
            try:
                while not (received := self._take(queue, max_count, visibility_timeout)):
                    remaining = deadline - time.monotonic()
                    if remaining <= 0 or self._is_closed:
                        break
                    self._arrival.wait(min(remaining, self._compute_seconds_until_visible(queue)))
                return received
            finally:
                self._waiting_count -= 1

    def _take(self, queue: str, max_count: int, visibility_timeout: float) -> list[ReceivedMessage]:
        """Return visible messages, oldest first, and hide them from other consumers. Do not wait for messages."""
        now = time.time()
        unhide_statement = (
            "UPDATE messages SET visible_from = 0 WHERE queue = ? AND visible_from > 0 AND visible_from <= ?"
        )
        query = (
            "SELECT number, id, body, sent, count + 1 FROM messages"
            " WHERE queue = ? AND visible_from = 0 ORDER BY number LIMIT ?"
        )
        with self._database.transaction() as database:
            database.execute(unhide_statement, (queue, now))
            rows = database.execute(query, (queue, max_count)).fetchall()
            return [self._hide(number, now + visibility_timeout, *values) for number, *values in rows]

    def _hide(
        self, number: int, visible_from: float, message_id: str, body: str, sent: float, receive_count: int
    ) -> ReceivedMessage:
        """Hide a message until `visible_from`; return it with a new receipt handle."""
        secret = uuid.uuid4().hex
        change = "UPDATE messages SET visible_from = ?, secret = ?, count = ? WHERE number = ?"
        self._database.change(change, (visible_from, secret, receive_count, number))
        return ReceivedMessage(message_id, f"{number}/{secret}", body, sent, receive_count)

    def _compute_seconds_until_visible(self, queue: str) -> float:
        """Return the time in seconds until the next hidden message becomes visible; infinite if there is none."""
        query = "SELECT min(visible_from) FROM messages WHERE queue = ?"
        ((visible_from,),) = self._database.select(query, (queue,))
        return float("inf") if visible_from is None else max(0.0, visible_from - time.time())

    def delete_message(self, queue: str, handle: str) -> None:
        """Delete a received message. A message that is already deleted is no error.

        Raises:
            ServiceError: the handle does not belong to a message of this queue.
        """
        match = _HANDLE_PATTERN.fullmatch(handle)
        number, secret = match.groups() if match else (None, None)
        rows = self._database.select("SELECT queue FROM messages WHERE number = ?", (number,))
        if match is None or any(row != (queue,) for row in rows):
            message = f"The receipt handle {handle!r} is not one of the queue {queue!r}."
            raise ServiceError("ReceiptHandleIsInvalid", message)
        self._database.change("DELETE FROM messages WHERE number = ? AND secret = ?", (number, secret))


def make_system_attributes(received: ReceivedMessage) -> Mapping[str, Any]:
    """Return the system attributes of a received message."""
    return {"SentTimestamp": f"{received.sent * 1000:.0f}", "ApproximateReceiveCount": str(received.receive_count)}
