"""The tables of the state, and the migration of a state that an earlier version wrote.

`PRAGMA user_version` is the version of the tables, but 0 stands for version 1. Version 1 stored internal values among
the members of descriptions, and the names of owners without their kinds.
"""

import json
import logging
import sqlite3
from pathlib import Path

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local import outbox, queues

logger = logging.getLogger(__name__)

VERSION = 2

RESOURCES = """
CREATE TABLE resources (
    kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, arn TEXT NOT NULL, status TEXT NOT NULL,
    owner_kind TEXT NOT NULL, owner_name TEXT NOT NULL, created REAL NOT NULL, modified REAL NOT NULL,
    request TEXT NOT NULL, description TEXT NOT NULL, internal TEXT NOT NULL,
    PRIMARY KEY (kind, name, version)
) WITHOUT ROWID
"""

_FILTERS = "status, modified, owner_kind, owner_name"
INDEXES = {
    "by_arn": "arn",
    # Each index has all columns that List requests filter by, so that only one page of the large rows is read.
    "by_kind_name": f"kind, name, version, created, {_FILTERS}",
    "by_kind_creation": f"kind, created, name, version, {_FILTERS}",
    "by_kind_change": "kind, modified, name, version, status, created, owner_kind, owner_name",
    "by_kind_status": "kind, status, name, version, created, modified, owner_kind, owner_name",
    "by_kind_owner": "kind, owner_kind, owner_name, name, version, created, status, modified",
}
OTHER_TABLES = (
    # This table keeps the rows that cannot be read, so that users can repair them.
    "CREATE TABLE IF NOT EXISTS broken AS SELECT * FROM resources WHERE 0",
    """
    CREATE TABLE IF NOT EXISTS tags (
        arn TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (arn, key)
    )
    """,
    outbox.TABLE,
    outbox.INDEX,
    *queues.TABLES,
)

OWNER_KINDS = {"training-job": "hyper-parameter-tuning-job", "async-invocation": "endpoint"}
"""The owner's kind in version 1, by the kind of the owned resource."""

INTERNAL_MEMBERS = {
    "processing-job": ("StartMoment",),
    "training-job": ("CreationMoment", "StartMoment", "MetricsGivenUp", "Attempts"),
    "hyper-parameter-tuning-job": ("CreationMoment",),
    "transform-job": ("StartMoment",),
    "endpoint": ("Deployment", "NextDeployment"),
    "async-invocation": ("QueueMoment",),
}
"""Internal values that version 1 stored among the members of descriptions, by kind."""


class NewerStateError(CommandError):
    """A later version of Microjobs wrote the state."""


def prepare(database: sqlite3.Connection, path: Path) -> None:
    """Make or migrate the tables. The caller runs this in a transaction, so that a failure changes nothing.

    Raise NewerStateError if a later version wrote the database.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise NewerStateError(f"{path} was written by a later version of Microjobs: update Microjobs")
    if version < VERSION:
        if _has_table(database, "resources"):
            logger.info("migrating %s", path)
            _rename_tables(database)
        database.execute(RESOURCES)
    for statement in OTHER_TABLES:
        database.execute(statement)
    for table in ("resources", "broken"):
        _copy_rows(database, table)
    for name, columns in INDEXES.items():
        database.execute(f"CREATE INDEX IF NOT EXISTS {name} ON resources ({columns})")
    queues.move_old_queues(database)
    database.execute(f"PRAGMA user_version = {VERSION}")


def _has_table(database: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return database.execute(query, (name,)).fetchone() is not None


def _rename_tables(database: sqlite3.Connection) -> None:
    """Rename the tables of version 1, and drop their indexes, because version 2 uses the same names."""
    query = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'resources' AND sql IS NOT NULL"
    for (index,) in database.execute(query).fetchall():
        database.execute(f'DROP INDEX "{index}"')
    for table in ("resources", "broken"):
        if _has_table(database, table):
            database.execute(f"ALTER TABLE {table} RENAME TO old_{table}")


def _copy_rows(database: sqlite3.Connection, table: str) -> None:
    """Copy the rows of a table of version 1, if it exists, and move internal values out of descriptions."""
    if not _has_table(database, f"old_{table}"):
        return
    owner_kinds = " ".join(f"WHEN kind = '{kind}' THEN '{owner}'" for kind, owner in OWNER_KINDS.items())
    database.execute(
        f"INSERT INTO {table} SELECT kind, name, 0, arn, status, CASE WHEN parent = '' THEN '' {owner_kinds}"  # noqa: S608
        f" ELSE '' END, parent, created, modified, request, description, '{{}}' FROM old_{table}"
    )
    database.execute(f"DROP TABLE old_{table}")
    marks = ", ".join("?" * len(INTERNAL_MEMBERS))
    query = f"SELECT kind, name, description FROM {table} WHERE kind IN ({marks})"  # noqa: S608  constants
    for kind, name, text in database.execute(query, tuple(INTERNAL_MEMBERS)).fetchall():
        if (parts := _split_description(kind, text)) is not None:
            change = f"UPDATE {table} SET description = ?, internal = ? WHERE kind = ? AND name = ?"  # noqa: S608
            database.execute(change, (*parts, kind, name))


def _split_description(kind: str, text: str) -> tuple[str, str] | None:
    """Split a description of version 1 into members and internal values; return None if it has no internal values."""
    try:
        members = json.loads(text)
        internal = {name: members.pop(name) for name in INTERNAL_MEMBERS[kind] if name in members}
    except (ValueError, TypeError, AttributeError, RecursionError, KeyError):  # the row is damaged
        return None
    return (json.dumps(members), json.dumps(internal)) if internal else None
