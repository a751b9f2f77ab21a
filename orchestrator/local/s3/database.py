"""SQLite database of the object store: buckets, details of objects, and multipart uploads.

A row of the table `objects` describes a file that has exactly the size and the modification time in the row. If a user
replaces the file by hand, `find_details` does not find the old row for the new file. A row whose key ends with a slash
describes a folder marker, and there is no file.
"""

from pathlib import Path

from microjobs_orchestrator.local import sqlite
from microjobs_orchestrator.local.s3.details import Details

SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, details TEXT NOT NULL,
    PRIMARY KEY (bucket, key, size, modified_ns)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS markers ON objects (bucket, key, modified_ns) WHERE substr(key, -1) = '/';
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, created REAL NOT NULL, algorithm TEXT NOT NULL,
    details TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bucket_settings (
    bucket TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (bucket, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_key ON uploads (bucket, key, id);
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT NOT NULL, number INTEGER NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL, modified REAL NOT NULL,
    details TEXT NOT NULL, PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""


Version = tuple[str, str, int, int]
"""The primary key of the table `objects`: the bucket and the key of an object, and the size in bytes and the
modification time in ns since 1970 that its file had when the details were stored."""


class Database(sqlite.Database):
    """The tables of the object store."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SCHEMA)

    def find_details(self, version: Version) -> Details | None:
        rows = self.select(
            "SELECT details FROM objects WHERE bucket = ? AND key = ? AND size = ? AND modified_ns = ?", version
        )
        return Details.from_json(rows[0][0]) if rows else None

    def store_details(self, version: Version, details: Details) -> None:
        self.change("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (*version, details.to_json()))

    def delete_other_details(self, version: Version) -> None:
        """Delete the rows of all other versions of the key."""
        self.change("DELETE FROM objects WHERE bucket = ? AND key = ? AND (size, modified_ns) != (?, ?)", version)

    def delete_details(self, bucket: str, key: str) -> None:
        self.change("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))

    def find_marker_time(self, bucket: str, key: str) -> int | None:
        """Return the time at which the folder marker of a key was made, in ns since 1970; None if the key has no
        marker."""
        rows = self.select(
            "SELECT modified_ns FROM objects WHERE bucket = ? AND key = ? AND substr(key, -1) = '/'"
            " ORDER BY modified_ns DESC LIMIT 1",
            (bucket, key),
        )
        return rows[0][0] if rows else None

    def has_marker(self, bucket: str, prefix: str = "") -> bool:
        """Return whether the bucket has a folder marker with a key that begins with `prefix`."""
        statement = (
            "SELECT 1 FROM objects WHERE bucket = ? AND key >= ? AND key < ? || char(1114111)"
            " AND substr(key, -1) = '/' LIMIT 1"
        )
        return bool(self.select(statement, (bucket, prefix, prefix)))
