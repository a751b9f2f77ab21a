"""Multipart uploads. Their parts are files outside the buckets until the upload is completed or aborted."""

import contextlib
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.details import Details
from microjobs_orchestrator.local.s3.keys import MAX_KEY_BYTES
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.sqlite import Row
from microjobs_orchestrator.local.trees import discard

MAX_PARTS = 10_000

LAST_KEY_SUFFIX = chr(sys.maxunicode) * MAX_KEY_BYTES
"""`prefix + LAST_KEY_SUFFIX` sorts after every key with that prefix."""


@dataclass(frozen=True)
class Upload:
    """A multipart upload that is neither completed nor aborted."""

    id: str
    bucket: str
    key: str
    created: float
    """In seconds since 1970."""
    algorithm: str
    """The algorithm of the parts' checksums; empty if the client chose none."""
    details: Details
    """The headers, metadata and tags of the object, and its checksum type."""


@dataclass(frozen=True)
class Part:
    """An uploaded part of a multipart upload."""

    number: int
    path: Path
    size: int
    modification_time: float
    """In seconds since 1970."""
    details: Details


class Uploads:
    """The uploads of a home. Methods may be called from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        self._folder = store.home.objects / "uploads"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._store = store
        self._database = store.database
        self._lock = threading.Lock()
        self._locks_by_upload: dict[str, threading.Lock] = {}
        self._remove_leftovers()

    def create(self, bucket: str, key: str, algorithm: str, details: Details) -> Upload:
        """Create an upload. Raises ServiceError, as `ObjectStore.check_writable` does."""
        self._store.check_writable(bucket, key)
        upload = Upload(uuid.uuid4().hex, bucket, key, time.time(), algorithm, details)
        (self._folder / upload.id).mkdir()
        self._database.change(
            "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)",
            (upload.id, bucket, key, upload.created, algorithm, details.to_json()),
        )
        return upload

    def get(self, bucket: str, key: str, id: str) -> Upload:
        """Return an upload. Raises ServiceError NoSuchUpload 404."""
        rows = self._database.select("SELECT * FROM uploads WHERE id = ? AND bucket = ? AND key = ?", (id, bucket, key))
        if not rows:
            message = f"There is no upload {id!r} of {key!r}: it was never created, or it was completed or aborted."
            raise ServiceError("NoSuchUpload", message, 404)
        return _parse_upload(rows[0])

    def find(
        self, bucket: str, prefix: str = "", start_after: tuple[str, str] = ("", ""), limit: int = -1
    ) -> list[Upload]:
        """Return uploads whose keys begin with `prefix`, sorted by key and id.

        Args:
            start_after: the key and the id after which the result begins.
            limit: the maximum number of uploads; -1: all.
        """
        rows = self._database.select(
            "SELECT * FROM uploads WHERE bucket = ? AND (key, id) > (?, ?) AND key < ? ORDER BY key, id LIMIT ?",
            (bucket, *max(start_after, (prefix, "")), prefix + LAST_KEY_SUFFIX, limit),
        )
        return [_parse_upload(row) for row in rows]

    def list_parts(self, upload: Upload, start_after: int = 0, limit: int = MAX_PARTS) -> list[Part]:
        """Return at most `limit` parts whose numbers are larger than `start_after`, sorted by number."""
        rows = self._database.select(
            "SELECT number, file, size, modified, details FROM parts"
            " WHERE upload = ? AND number > ? ORDER BY number LIMIT ?",
            (upload.id, start_after, limit),
        )
        folder = self._folder / upload.id
        return [Part(row[0], folder / row[1], row[2], row[3], Details.from_json(row[4])) for row in rows]

    def put_part(self, upload: Upload, number: int, file: Path, details: Details) -> Part:
        """Move a file of `ObjectStore.new_file` into an upload. It replaces an earlier part with that number."""
        path = self._folder / upload.id / uuid.uuid4().hex
        with self.lock(upload):
            old_paths = [
                part.path for part in self.list_parts(upload, start_after=number - 1, limit=1) if part.number == number
            ]
            part = Part(number, path, file.stat().st_size, time.time(), details)
            file.rename(path)
            self._database.change(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)",
                (upload.id, number, path.name, part.size, part.modification_time, details.to_json()),
            )
            for old_path in old_paths:
                old_path.unlink()
        return part

    def abort(self, upload: Upload) -> None:
        with self.lock(upload):
            self.remove(upload)

    def remove(self, upload: Upload) -> None:
        """Remove an upload and its parts. Call it only in a `lock` block."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM parts WHERE upload = ?", (upload.id,))
            database.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        discard(self._folder / upload.id)
        with self._lock:
            self._locks_by_upload.pop(upload.id, None)

    @contextlib.contextmanager
    def lock(self, upload: Upload) -> Iterator[None]:
        """Lock an upload. Raises ServiceError NoSuchUpload if another request has completed or aborted it."""
        with self._lock:
            lock = self._locks_by_upload.setdefault(upload.id, threading.Lock())
        with lock:
            self.get(upload.bucket, upload.key, upload.id)
            yield

    def _remove_leftovers(self) -> None:
        """Remove files and folders without a row in the database, which a killed server left behind."""
        known_folders = {self._folder / row[0] for row in self._database.select("SELECT id FROM uploads")}
        part_rows = self._database.select("SELECT upload, file FROM parts")
        known_files = {self._folder / upload / file for upload, file in part_rows}
        for folder in self._folder.iterdir():
            # Do not list the content of an unknown folder: it may be a link to files of the user.
            for path in set(folder.iterdir()) - known_files if folder in known_folders else [folder]:
                discard(path)


def _parse_upload(row: Row) -> Upload:
    return Upload(row[0], row[1], row[2], row[3], row[4], Details.from_json(row[5]))
