"""What the server remembers, in one SQLite file: every resource with its request and its description, and tags.

Descriptions are kept as the wire has them (JSON, times in seconds), so that Describe answers what is stored.
"""

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local.kinds import all_kinds
from microjobs_orchestrator.local.values import clean

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS resources (
    kind TEXT NOT NULL, name TEXT NOT NULL, arn TEXT NOT NULL, status TEXT NOT NULL, parent TEXT NOT NULL,
    created REAL NOT NULL, modified REAL NOT NULL, request TEXT NOT NULL, description TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
DROP INDEX IF EXISTS by_creation;
DROP INDEX IF EXISTS by_parent;
CREATE INDEX IF NOT EXISTS by_arn ON resources (arn);
-- Each has all that a List may ask for: rows, which are large, are read only when they are on the page.
CREATE INDEX IF NOT EXISTS by_kind_name ON resources (kind, name, created, status, modified, parent);
CREATE INDEX IF NOT EXISTS by_kind_creation ON resources (kind, created, name, status, modified, parent);
CREATE INDEX IF NOT EXISTS by_kind_change ON resources (kind, modified, name, status, created, parent);
CREATE INDEX IF NOT EXISTS by_kind_status ON resources (kind, status, name, created, modified, parent);
CREATE INDEX IF NOT EXISTS by_kind_parent ON resources (kind, parent, name, created, status, modified);
-- Rows that could not be read, for whoever wants to repair them.
CREATE TABLE IF NOT EXISTS broken AS SELECT * FROM resources WHERE 0;
CREATE TABLE IF NOT EXISTS tags (arn TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (arn, key));
"""
COLUMNS = {
    "created": ("created", "by_kind_creation"),
    "modified": ("modified", "by_kind_change"),
    "name": ("name", "by_kind_name"),
    "status": ("status", "by_kind_status"),
}
"""What lists are ordered by, and the index that has that order: SQLite by itself reads all rows for some of them."""

END_OF_TIME = 253_402_300_800.0
"""The year 10,000, which no date can have."""

RESERVE_BYTES = 4 << 20
"""Kept free within the file, so that the end of a job can be told where the device has no space left."""


class NameTakenError(Exception):
    """There is a resource of that kind and name."""


class TransitionError(Exception):
    """The kind of the resource does not allow this change of its status."""


@dataclass(frozen=True)
class Record:
    """A resource: a job, a model, an endpoint …"""

    kind: str
    """As in its ARN: `training-job`."""
    name: str
    arn: str
    status: str
    created: float
    modified: float
    request: Mapping[str, Any]
    description: Mapping[str, Any]
    parent: str = ""
    """The name of the tuning job that made it."""


@dataclass(frozen=True)
class Query:
    """What a List operation asks for. `after` is the position that the page before it ended at."""

    kind: str
    name_contains: str = ""
    status: str = ""
    parent: str = ""
    created: tuple[float, float] = (float("-inf"), float("inf"))
    modified: tuple[float, float] = (float("-inf"), float("inf"))
    order_by: str = "created"
    descending: bool = True
    limit: int = 100
    after: tuple[float | str, str] | None = None


class State:
    """The store. Every method is one transaction; a change that was made is on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.text_factory = _text
        self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + SCHEMA)
        self._reserve()

    def _reserve(self) -> None:
        """Have free pages in the file, and a write-ahead log that is as long as it will get."""
        with suppress(sqlite3.OperationalError):  # the device is full already
            self._database.execute("DROP TABLE IF EXISTS reserve")  # of a server that was killed
            (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
            (page,) = self._database.execute("PRAGMA page_size").fetchone()
            if free * page < RESERVE_BYTES // 2:
                self._database.execute("CREATE TABLE reserve (content BLOB)")
                self._database.execute("INSERT INTO reserve VALUES (zeroblob(?))", (RESERVE_BYTES,))
                self._database.executescript("DROP TABLE reserve; PRAGMA wal_checkpoint(RESTART);")

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def add(
        self,
        kind: str,
        name: str,
        arn: str,
        status: str,
        request: Mapping[str, Any],
        description: Mapping[str, Any],
        *,
        tags: Sequence[Mapping[str, str]] = (),
        parent: str = "",
    ) -> Record:
        """Remember a new resource.

        Raises:
            NameTakenError: there is one of that kind and name.
        """
        now = time.time()
        record = Record(kind, name, arn, status, now, now, request, description, parent)
        values = (kind, name, arn, status, parent, now, now, _encoded(request), _encoded(description))
        with self._transaction() as database:
            try:
                database.execute("INSERT INTO resources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError as error:
                raise NameTakenError(name) from error
            self._put_tags(arn, tags)
        return record

    def get(self, kind: str, name: str) -> Record | None:
        with self._lock:
            rows = self._select("kind = ? AND name = ?", (kind, name))
        return rows[0] if rows else None

    def update(
        self,
        kind: str,
        name: str,
        changes: Mapping[str, Any],
        status: str | None = None,
        *,
        only_if: Collection[str] | None = None,
    ) -> Record | None:
        """Merge members into a description.

        Args:
            status: the new one; None keeps it.
            only_if: do it only in one of these statuses.

        Returns:
            What it is now; None if the resource is gone or in another status.

        Raises:
            TransitionError: the kind does not allow the change of the status; nothing was changed.
        """
        with self._transaction() as database:
            record = self.get(kind, name)
            if record is None or (only_if is not None and record.status not in only_if):
                return None
            _check_transition(record, status)
            description = {**record.description, **changes}
            database.execute(
                "UPDATE resources SET description = ?, status = ?, modified = ? WHERE kind = ? AND name = ?",
                (_encoded(description), status or record.status, time.time(), kind, name),
            )
            return self.get(kind, name)

    def delete(self, kind: str, name: str, created: float | None = None) -> bool:
        """Forget a resource and its tags; False if there was none, or (with `created`) another one of that name."""
        with self._transaction() as database:
            record = self.get(kind, name)
            if record is None or created not in (None, record.created):
                return False
            database.execute("DELETE FROM tags WHERE arn = ?", (record.arn,))
            database.execute("DELETE FROM resources WHERE kind = ? AND name = ?", (kind, name))
            return True

    def delete_named(self, prefix: str) -> int:
        """Forget the resources of all kinds whose names start with a prefix; how many there were."""
        with self._transaction() as database:
            chosen = "SELECT arn FROM resources WHERE substr(name, 1, ?) = ?"
            values = (len(prefix), prefix)
            database.execute(f"DELETE FROM tags WHERE arn IN ({chosen})", values)  # noqa: S608  a constant
            return database.execute("DELETE FROM resources WHERE substr(name, 1, ?) = ?", values).rowcount

    def find(self, query: Query) -> list[Record]:
        """A page of resources, at most `limit` of them, ties in the order of their names."""
        column, index = COLUMNS[query.order_by]
        index = "by_kind_parent" if query.parent else "by_kind_status" if query.status else index
        direction, beyond = ("DESC", "<") if query.descending else ("ASC", ">")
        conditions, values = ["kind = ?"], list[Any]([query.kind])
        for condition, value in (
            ("instr(name, ?) > 0", query.name_contains),
            ("status = ?", query.status),
            ("parent = ?", query.parent),
            ("created >= ?", query.created[0]),
            ("created <= ?", query.created[1]),
            ("modified >= ?", query.modified[0]),
            ("modified <= ?", query.modified[1]),
        ):
            if value not in ("", float("-inf"), float("inf")):
                conditions.append(condition)
                values.append(value)
        if query.after is not None:
            conditions.append(f"({column}, name) {beyond} (?, ?)")
            values += query.after
        page = (
            f"SELECT name FROM resources INDEXED BY {index}"  # noqa: S608  parts are constants above
            f" WHERE {' AND '.join(conditions)} ORDER BY {column} {direction}, name {direction} LIMIT ?"
        )
        with self._lock:
            names = [name for (name,) in self._database.execute(page, (*values, query.limit))]
            marks = ", ".join("?" * len(names))
            found = {item.name: item for item in self._select(f"kind = ? AND name IN ({marks})", (query.kind, *names))}
        return [found[name] for name in names if name in found]  # without broken ones

    def unfinished(self, kind: str, statuses: Sequence[str]) -> list[Record]:
        """Resources in one of the statuses, oldest first."""
        marks = ", ".join("?" * len(statuses))
        with self._lock:
            found = self._select(f"kind = ? AND status IN ({marks})", (kind, *statuses), "INDEXED BY by_kind_status")
        return sorted(found, key=lambda record: (record.created, record.name))

    def _select(self, condition: str, values: Sequence[Any], index: str = "") -> list[Record]:
        columns = "kind, name, arn, status, created, modified, request, description, parent"
        rows = self._database.execute(
            f"SELECT {columns} FROM resources {index} WHERE {condition}",  # noqa: S608  parts are constants above
            tuple(values),
        ).fetchall()
        records = []
        for row in rows:
            try:
                records.append(_record(row))
            except (ValueError, TypeError, RecursionError) as error:
                self._set_aside(row[0], row[1], error)
        return records

    def _set_aside(self, kind: str, name: str, error: Exception) -> None:
        """Move a row that cannot be read out of the way of all others."""
        logger.error("%s %r cannot be read and is moved to the table `broken`: %s", kind, name, error)
        where = "FROM resources WHERE kind = CAST(? AS TEXT) AND name = CAST(? AS TEXT)"  # as `_text` returns them
        self._database.execute(f"INSERT INTO broken SELECT * {where}", (kind, name))
        self._database.execute(f"DELETE {where}", (kind, name))

    # --- tags ---

    def has_arn(self, arn: str) -> bool:
        with self._lock:
            return bool(self._database.execute("SELECT 1 FROM resources WHERE arn = ?", (arn,)).fetchall())

    def add_tags(self, arn: str, tags: Sequence[Mapping[str, str]]) -> None:
        with self._transaction():
            self._put_tags(arn, tags)

    def _put_tags(self, arn: str, tags: Sequence[Mapping[str, str]]) -> None:
        rows = [(arn, tag["Key"], tag["Value"]) for tag in tags]
        self._database.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", rows)

    def tags(self, arn: str) -> list[dict[str, str]]:
        with self._lock:
            rows = self._database.execute("SELECT key, value FROM tags WHERE arn = ? ORDER BY key", (arn,)).fetchall()
        return [{"Key": key, "Value": value} for key, value in rows]

    def delete_tags(self, arn: str, keys: Sequence[str]) -> None:
        with self._transaction() as database:
            database.executemany("DELETE FROM tags WHERE arn = ? AND key = ?", [(arn, key) for key in keys])


def _check_transition(record: Record, status: str | None) -> None:
    """Raise TransitionError if a resource cannot change to a status."""
    life = next((kind.life for kind in all_kinds() if kind.arn_type == record.kind), None)
    if life is not None and status is not None and not life.allows(record.status, status):
        raise TransitionError(f"{record.kind} {record.name} is {record.status} and cannot become {status}")


def _text(content: bytes) -> str | bytes:
    """A text of the database; bytes if it was damaged: an error here would hide all rows of a query."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _encoded(value: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(clean(dict(value)))
    return json.dumps(clean(dict(value))) if _HALF in text else text


def _decoded(text: str) -> dict[str, Any]:
    """A stored object; an earlier version stored numbers that are not finite, too."""
    constants: list[str] = []
    value = json.loads(text, parse_constant=constants.append)
    if not isinstance(value, dict):
        raise TypeError(f"a JSON object is expected, not {text:.60}")
    return dict(clean(value)) if constants or _HALF in text else value


_HALF = "\\ud"
"""How JSON spells the halves of a character; one by itself is no text."""


def _record(row: Sequence[Any]) -> Record:
    kind, name, arn, status, created, modified, request, description, parent = row
    if not all(isinstance(text, str) for text in (kind, name, arn, status, parent)):
        raise TypeError("its names are no text")
    if not (isinstance(created, float) and isinstance(modified, float)):
        raise TypeError("its times are no numbers")
    if not (0 <= created < END_OF_TIME and 0 <= modified < END_OF_TIME):
        raise ValueError("its times are not between the years 1970 and 9999")
    return Record(kind, name, arn, status, created, modified, _decoded(request), _decoded(description), parent)
