"""Store for resources and their tags, in one SQLite file.

Descriptions are stored as JSON in the form of the responses, with times in seconds. The *internal state* of a
resource contains the server's private values, and no response contains it.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from microjobs_orchestrator.local import schema
from microjobs_orchestrator.local.kinds import load_kinds
from microjobs_orchestrator.local.outbox import Outbox, StoredEvent
from microjobs_orchestrator.local.queues import Queues
from microjobs_orchestrator.local.sqlite import Database
from microjobs_orchestrator.local.values import to_valid_json

logger = logging.getLogger(__name__)

INDEXES = {
    "created": "by_kind_creation",
    "modified": "by_kind_change",
    "name": "by_kind_name",
    "status": "by_kind_status",
}
"""The index for each column that sorts lists. If SQLite chose the index, it would read all rows for some lists."""

END_OF_TIME = 253_402_300_800.0
"""The start of the year 10,000, which Python's dates do not support, in seconds since 1970."""

RESERVE_BYTES = 4 << 20
"""Size of the free space in the file, so that the end of a job can be stored on a full device."""


class NameTakenError(Exception):
    """A resource of this kind and name exists."""


class TransitionError(Exception):
    """The kind of the resource does not allow this change of its status."""


class Owner(NamedTuple):
    """The resource that created another one."""

    kind: str
    name: str


@dataclass(frozen=True)
class Record:
    """A resource: a job, a model, an endpoint …"""

    kind: str
    """The type in the ARN, such as `training-job`."""
    name: str
    arn: str
    status: str
    created: float
    """The creation time, in seconds since 1970."""
    modified: float
    """The time of the last change, in seconds since 1970."""
    request: Mapping[str, Any]
    description: Mapping[str, Any]
    internal: Mapping[str, Any] = field(default_factory=dict)
    owner: Owner | None = None
    version: int = 0
    """The version of a resource that has several versions with one name; 0 for other resources."""


@dataclass(frozen=True)
class Query:
    """The filters, the order and the page of a List operation."""

    kind: str
    name: str = ""
    name_contains: str = ""
    name_prefix: str = ""
    versions: tuple[float, float] = (float("-inf"), float("inf"))
    """The smallest and the largest version to find."""
    status: str = ""
    owner: Owner | None = None
    created: tuple[float, float] = (float("-inf"), float("inf"))
    modified: tuple[float, float] = (float("-inf"), float("inf"))
    order_by: str = "created"
    descending: bool = True
    limit: int = 100
    after: tuple[float | str, str, int] | None = None
    """The position of the last resource of the previous page: the value of the column `order_by`, name and version."""


Publish = Callable[[str, Mapping[str, Any]], None]
"""A function that publishes a message to the SNS topic with an ARN, as a part of the caller's transaction."""

Recorder = Callable[[Record | None, Record | None], Iterable[StoredEvent]]
"""A function that takes a resource before and after a change, and returns the events of the change. None stands for a
resource that does not exist."""


def _record_nothing(_: Record | None, __: Record | None) -> Iterable[StoredEvent]:
    return ()


class State:
    """The store. Every method is one transaction. When it returns, its change survives a killed server.

    `transaction` combines several methods: all their changes are stored, or none if the block raises an error.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self._lock, self._connection = self._database.lock, self._database.connection
        self.transaction = self._database.transaction
        self.outbox, self.queues = Outbox(self._database), Queues(self._database)
        self.record_events: Recorder = _record_nothing
        self.publish: Publish = lambda *_: None
        """Publishes a message to an SNS topic."""
        self.on_status_change: Callable[[Record], None] = lambda _: None
        """Called in the transaction that changes a resource's status."""
        self.on_change: Callable[[Record], None] = lambda _: None
        """Called in the transaction that adds, changes or deletes a resource."""
        self._connection.text_factory = _decode_text
        try:
            with self.transaction() as database:
                schema.prepare(database, path)
        except BaseException:
            self._database.close()
            raise
        self._reserve_space()

    def _reserve_space(self) -> None:
        """Create free pages in the file, and let the write-ahead log grow while the device has space."""
        with suppress(sqlite3.OperationalError):  # an error means that the device is full
            self._connection.execute("DROP TABLE IF EXISTS reserve")  # a killed server may have left this table
            (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            (page,) = self._connection.execute("PRAGMA page_size").fetchone()
            if free * page < RESERVE_BYTES // 2:
                self._connection.execute("CREATE TABLE reserve (content BLOB)")
                self._connection.execute("INSERT INTO reserve VALUES (zeroblob(?))", (RESERVE_BYTES,))
                self._connection.executescript("DROP TABLE reserve; PRAGMA wal_checkpoint(RESTART);")

    def close(self) -> None:
        self._database.close()

    def add(
        self,
        kind: str,
        name: str,
        arn: str,
        status: str,
        request: Mapping[str, Any],
        description: Mapping[str, Any],
        *,
        internal: Mapping[str, Any] | None = None,
        tags: Sequence[Mapping[str, str]] = (),
        owner: Owner | None = None,
        version: int = 0,
    ) -> Record:
        """Store a new resource. Raise NameTakenError if a resource of that kind, name and version exists."""
        now = time.time()
        record = Record(kind, name, arn, status, now, now, request, description, internal or {}, owner, version)
        texts = map(_encode, (request, description, record.internal))
        values = (kind, name, version, arn, status, *(owner or ("", "")), now, now, *texts)
        with self.transaction() as database:
            try:
                database.execute("INSERT INTO resources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError as error:
                raise NameTakenError(name) from error
            self._put_tags(arn, tags)
            self.outbox.add(self.record_events(None, record))
            self.on_change(record)
        return record

    def get(self, kind: str, name: str, version: int = 0) -> Record | None:
        with self._lock:
            rows = self._select("kind = ? AND name = ? AND version = ?", (kind, name, version))
        return rows[0] if rows else None

    def get_by_arn(self, arn: str) -> Record | None:
        with self._lock:
            rows = self._select("arn = ?", (arn,), "INDEXED BY by_arn")
        return rows[0] if rows else None

    def update(
        self,
        kind: str,
        name: str,
        changes: Mapping[str, Any],
        status: str | None = None,
        *,
        internal: Mapping[str, Any] | None = None,
        only_if: Collection[str] | None = None,
        version: int = 0,
    ) -> Record | None:
        """Merge `changes` into the description and `internal` into the internal state, and set the status.

        Change nothing if the current status is not one of `only_if` (None: any status). Return the changed resource, or
        None if nothing was changed. Raise TransitionError if the kind does not allow the change of the status.
        """
        with self.transaction() as database:
            record = self.get(kind, name, version)
            if record is None or (only_if is not None and record.status not in only_if):
                return None
            _check_transition(record, status)
            texts = (_encode({**record.description, **changes}), _encode({**record.internal, **(internal or {})}))
            database.execute(
                "UPDATE resources SET description = ?, internal = ?, status = ?, modified = ?"
                " WHERE kind = ? AND name = ? AND version = ?",
                (*texts, status or record.status, time.time(), kind, name, version),
            )
            changed_record = self.get(kind, name, version)
            self.outbox.add(self.record_events(record, changed_record))
            if changed_record is not None and changed_record.status != record.status:
                self.on_status_change(changed_record)
            self.on_change(changed_record or record)
            return changed_record

    def set_owner(self, kind: str, name: str, owner: Owner) -> None:
        """Set the owner of a resource that the owner requested with an ordinary Create request."""
        change = "UPDATE resources SET owner_kind = ?, owner_name = ? WHERE kind = ? AND name = ? AND version = 0"
        self._database.change(change, (*owner, kind, name))

    def delete(self, kind: str, name: str, created: float | None = None, version: int = 0) -> bool:
        """Delete a resource and its tags. Return False if it does not exist, or its creation time is not `created`."""
        with self.transaction() as database:
            record = self.get(kind, name, version)
            if record is None or created not in (None, record.created):
                return False
            self.outbox.add(self.record_events(record, None))
            database.execute("DELETE FROM tags WHERE arn = ?", (record.arn,))
            key = (kind, name, version)
            database.execute("DELETE FROM resources WHERE kind = ? AND name = ? AND version = ?", key)
            self.on_change(record)
            return True

    def delete_with_prefix(self, prefix: str) -> int:
        """Delete the resources of all kinds whose names start with a prefix; return their number."""
        condition, values = "substr(name, 1, ?) = ?", (len(prefix), prefix)
        with self.transaction() as database:
            arns = f"SELECT arn FROM resources WHERE {condition}"  # noqa: S608  a constant
            database.execute(f"DELETE FROM tags WHERE arn IN ({arns})", values)  # noqa: S608
            return database.execute(f"DELETE FROM resources WHERE {condition}", values).rowcount  # noqa: S608

    def find(self, query: Query) -> list[Record]:
        """Return a page of resources. Resources with equal values of `order_by` are sorted by name and version."""
        column = query.order_by
        index = "by_kind_owner" if query.owner else "by_kind_status" if query.status else INDEXES[column]
        direction, comparison = ("DESC", "<") if query.descending else ("ASC", ">")
        conditions, values = _make_conditions(query)
        if query.after is not None:
            conditions.append(f"({column}, name, version) {comparison} (?, ?, ?)")
            values += query.after
        statement = (
            f"SELECT name, version FROM resources INDEXED BY {index} WHERE {' AND '.join(conditions)}"  # noqa: S608
            f" ORDER BY {column} {direction}, name {direction}, version {direction} LIMIT ?"
        )
        with self._lock:
            keys = self._connection.execute(statement, (*values, query.limit)).fetchall()
            names, versions = ([*set(key_parts)] for key_parts in zip(*keys, strict=True)) if keys else ([], [])
            condition = (
                f"kind = ? AND name IN ({_make_placeholders(names)}) AND version IN ({_make_placeholders(versions)})"
            )
            records = self._select(condition, (query.kind, *names, *versions))
        records_by_key = {(record.name, record.version): record for record in records}
        return [
            records_by_key[key] for key in keys if key in records_by_key
        ]  # the result omits rows that cannot be read

    def find_in_statuses(self, kind: str, statuses: Sequence[str]) -> list[Record]:
        """Return the resources in one of the statuses, oldest first."""
        condition = f"kind = ? AND status IN ({_make_placeholders(statuses)})"
        with self._lock:
            records = self._select(condition, (kind, *statuses), "INDEXED BY by_kind_status")
        return sorted(records, key=lambda record: (record.created, record.name))

    def _select(self, condition: str, values: Sequence[Any], index: str = "") -> list[Record]:
        """Return the resources that satisfy a condition. Move rows that cannot be read to the table `broken`."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM resources {index} WHERE {condition}",  # noqa: S608  parts are constants above
            tuple(values),
        ).fetchall()
        records = []
        for row in rows:
            try:
                records.append(_parse_record(row))
            except (ValueError, TypeError, RecursionError) as error:
                self._move_to_broken(row[0], row[1], row[2], error)
        return records

    def _move_to_broken(self, kind: str, name: str, version: int, error: Exception) -> None:
        logger.error("%s %r cannot be read and is moved to the table `broken`: %s", kind, name, error)
        where = "FROM resources WHERE kind = CAST(? AS TEXT) AND name = CAST(? AS TEXT) AND version = ?"
        self._connection.execute(f"INSERT INTO broken SELECT * {where}", (kind, name, version))
        self._connection.execute(f"DELETE {where}", (kind, name, version))

    # --- tags ---

    def add_tags(self, arn: str, tags: Sequence[Mapping[str, str]]) -> None:
        with self.transaction():
            self._put_tags(arn, tags)

    def _put_tags(self, arn: str, tags: Sequence[Mapping[str, str]]) -> None:
        rows = [(arn, tag["Key"], tag["Value"]) for tag in tags]
        self._connection.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", rows)

    def tags(self, arn: str) -> list[dict[str, str]]:
        with self._lock:
            rows = self._connection.execute("SELECT key, value FROM tags WHERE arn = ? ORDER BY key", (arn,)).fetchall()
        return [{"Key": key, "Value": value} for key, value in rows]

    def delete_tags(self, arn: str, keys: Sequence[str]) -> None:
        with self.transaction() as database:
            database.executemany("DELETE FROM tags WHERE arn = ? AND key = ?", [(arn, key) for key in keys])


def _check_transition(record: Record, status: str | None) -> None:
    lifecycle = next((kind.lifecycle for kind in load_kinds() if kind.arn_type == record.kind), None)
    if lifecycle is not None and status is not None and not lifecycle.allows(record.status, status):
        raise TransitionError(f"{record.kind} {record.name} is {record.status} and cannot become {status}")


def _make_placeholders(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _decode_text(content: bytes) -> str | bytes:
    """Return the text of a database's value, or its bytes if it is damaged: an error would end the whole query."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


_SURROGATE = "\\ud"
"""The beginning of a surrogate in JSON. A single surrogate is not valid text."""


def _encode(value: Mapping[str, Any]) -> str:
    """Return a value as JSON, without the parts that JSON in UTF-8 cannot represent."""
    try:
        text = json.dumps(value, allow_nan=False)
        is_valid = _SURROGATE not in text
    except ValueError:  # a number is not finite
        is_valid = False
    return text if is_valid else json.dumps(to_valid_json(dict(value)))


def _decode(text: str) -> dict[str, Any]:
    """Parse a stored object. Earlier releases of the server also stored numbers that are not finite."""
    constants: list[str] = []
    value = json.loads(text, parse_constant=constants.append)
    if not isinstance(value, dict):
        raise TypeError(f"expected a JSON object, found {text:.60}")
    return dict(to_valid_json(value)) if constants or _SURROGATE in text else value


def _make_conditions(query: Query) -> tuple[list[str], list[Any]]:
    conditions, values = ["kind = ?"], list[Any]([query.kind])
    owner = query.owner or Owner("", "")
    for condition, value in (
        ("name = ?", query.name),
        ("instr(name, ?) > 0", query.name_contains),
        ("instr(name, ?) = 1", query.name_prefix),
        ("version >= ?", query.versions[0]),
        ("version <= ?", query.versions[1]),
        ("status = ?", query.status),
        ("owner_kind = ?", owner.kind),
        ("owner_name = ?", owner.name),
        ("created >= ?", query.created[0]),
        ("created <= ?", query.created[1]),
        ("modified >= ?", query.modified[0]),
        ("modified <= ?", query.modified[1]),
    ):
        if value not in ("", float("-inf"), float("inf")):
            conditions.append(condition)
            values.append(value)
    return conditions, values


_COLUMNS = """
    kind, name, version, arn, status, created, modified, owner_kind, owner_name, request, description, internal
"""


def _parse_record(row: Sequence[Any]) -> Record:
    kind, name, version, arn, status, created, modified, owner_kind, owner_name, *texts = row
    if not all(isinstance(text, str) for text in (kind, name, arn, status, owner_kind, owner_name)):
        raise TypeError("the kind, name, ARN, status or owner is not text")
    if not all(isinstance(moment, float) and 0 <= moment < END_OF_TIME for moment in (created, modified)):
        raise ValueError("a time is not a number between the years 1970 and 9999")
    request, description, internal = map(_decode, texts)
    owner = Owner(owner_kind, owner_name) if owner_name else None
    return Record(kind, name, arn, status, created, modified, request, description, internal, owner, version)
