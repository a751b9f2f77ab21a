"""The EventBridge events that are not delivered yet, in the database of the state.

A change of a resource and its events are one transaction, so a killed server loses no event: the next server delivers
the remaining events. If the server was killed after a delivery but before the removal of the event, the next server
delivers the event again.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from microjobs_orchestrator.local.sqlite import Database

TABLE = """
CREATE TABLE IF NOT EXISTS outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT NOT NULL, event TEXT NOT NULL)
"""
INDEX = "CREATE INDEX IF NOT EXISTS by_target ON outbox (target, number)"


class StoredEvent(NamedTuple):
    """An event for one target."""

    target: str
    """The key of the target."""
    content: str
    """The event as JSON."""
    number: int = 0
    """The position in the order of delivery."""


class Outbox:
    """The undelivered events of each target, in the order of delivery. Methods may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, events: Iterable[StoredEvent]) -> None:
        """Add events, as a part of the caller's transaction."""
        rows = [(event.target, event.content) for event in events]
        self._database.connection.executemany("INSERT INTO outbox (target, event) VALUES (?, ?)", rows)

    def find_first(self, target: str) -> StoredEvent | None:
        """Return the oldest event of a target; None if the target has no events."""
        query = "SELECT target, event, number FROM outbox WHERE target = ? ORDER BY number LIMIT 1"
        rows = self._database.select(query, (target,))
        return StoredEvent(*rows[0]) if rows else None

    def remove(self, event: StoredEvent) -> None:
        self._database.change("DELETE FROM outbox WHERE number = ?", (event.number,))

    def keep_latest(self, target: str, max_count: int) -> int:
        """Remove the oldest events of a target, so that `max_count` remain; return the number of removed events."""
        newest_removed_number_query = "SELECT number FROM outbox WHERE target = ? ORDER BY number DESC LIMIT 1 OFFSET ?"
        query = f"DELETE FROM outbox WHERE target = ? AND number <= ({newest_removed_number_query})"  # noqa: S608  constants
        with self._database.transaction() as database:
            return database.execute(query, (target, target, max_count)).rowcount

    def remove_unlisted_targets(self, targets: Collection[str]) -> int:
        """Remove the events of all targets except `targets`; return the number of removed events."""
        marks = ", ".join("?" * len(targets))
        with self._database.transaction() as database:
            query = f"DELETE FROM outbox WHERE target NOT IN ({marks})"  # noqa: S608  marks
            return database.execute(query, tuple(targets)).rowcount
