"""Reading of objects: buckets are folders, and objects are files."""

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3 import keys
from microjobs_orchestrator.local.s3.database import Database, Version
from microjobs_orchestrator.local.s3.details import Details, guess_details
from microjobs_orchestrator.local.s3.folders import FolderCache
from microjobs_orchestrator.local.s3.paths import BucketFiles
from microjobs_orchestrator.local.s3.walk import Entry, Walk

SETTLED_AGE_SECONDS = 1.0
"""Age of a file from which a new change always alters its modification time, even if timestamps are coarse."""

MAX_OPEN_ATTEMPTS = 100
"""Attempts to open an object that is replaced between the search for its file and the opening of the file."""


@dataclass(frozen=True)
class StoredObject:
    bucket: str
    key: str
    path: Path
    """The file, which must not be written to. A folder marker has an empty file outside the buckets."""
    size: int
    modified_ns: int

    @property
    def modified(self) -> float:
        """Seconds since 1970."""
        return self.modified_ns / 1e9

    @property
    def version(self) -> Version:
        return self.bucket, self.key, self.size, self.modified_ns


@dataclass(frozen=True)
class Opened:
    """An object's file, open for reading, and the details of exactly that file."""

    stored: StoredObject
    details: Details
    file: FileIO


def make_no_such_key_error(key: str) -> ServiceError:
    return ServiceError("NoSuchKey", f"The specified key does not exist: {key!r}.", 404)


class ObjectReader:
    """Reads the objects of a home. Methods may be called from any thread."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._root = home.buckets
        self._root.mkdir(parents=True, exist_ok=True)
        home.objects.mkdir(parents=True, exist_ok=True)
        self._empty = home.objects / "empty"
        self._empty.touch()
        self.database = Database(home.objects / "objects.db")
        self._files = BucketFiles(self._root)
        self._folders = FolderCache()

    def close(self) -> None:
        self.database.close()

    def has_bucket(self, name: str) -> bool:
        return keys.is_bucket_name(name) and self._files.is_folder(name)

    def check_bucket(self, name: str) -> Path:
        """Return the folder of a bucket. Raises ServiceError NoSuchBucket 404."""
        if not self.has_bucket(name):
            raise ServiceError("NoSuchBucket", f"The specified bucket does not exist: {name!r}.", 404)
        return self._root / name

    def list(self, bucket: str, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Return the objects whose keys begin with `prefix` and follow the key `after`, sorted by the keys' UTF-8.

        The iterator reads a folder when it reaches the folder, and only if the folder can contain such objects. Folder
        markers are left out, because they have no content. Raises ServiceError NoSuchBucket 404.
        """
        found = self.walk(bucket, prefix, after.encode(errors="surrogatepass"), fold=False, has_markers=False)
        return (item for item in found if isinstance(item, StoredObject))

    def get(self, bucket: str, key: str) -> StoredObject:
        """Raises ServiceError NoSuchKey or NoSuchBucket, 404."""
        self.check_bucket(bucket)
        try:
            relative = keys.relative_path(key)
        except ServiceError:  # no folder can contain such a key
            raise make_no_such_key_error(key) from None
        found, is_marker = self._files.stat(bucket / relative), keys.is_folder_marker(key)
        if found is not None and not is_marker and stat.S_ISREG(found.st_mode):
            return StoredObject(bucket, key, self._root / bucket / relative, found.st_size, found.st_mtime_ns)
        modified_ns = self.database.marker_time(bucket, key) if is_marker else None
        if modified_ns is None or found is None or not stat.S_ISDIR(found.st_mode):
            raise make_no_such_key_error(key)
        return StoredObject(bucket, key, self._empty, 0, modified_ns)

    def open(self, bucket: str, key: str) -> Opened:
        """Open an object. The caller closes the file. Raises ServiceError NoSuchKey or NoSuchBucket, 404.

        The details are those of the opened file, even if the object is replaced meanwhile.
        """
        for _ in range(MAX_OPEN_ATTEMPTS):
            stored = self.get(bucket, key)
            try:
                file = stored.path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
            try:
                found = os.fstat(file.fileno())
                if not keys.is_folder_marker(key):
                    stored = replace(stored, size=found.st_size, modified_ns=found.st_mtime_ns)
                details = self._read_details(stored, file)
            except BaseException:
                file.close()
                raise
            if details is not None:
                return Opened(stored, details, file)
            file.close()
        raise ServiceError("OperationAborted", f"{key!r} is replaced continually: try later.", 409)

    def head(self, bucket: str, key: str) -> tuple[StoredObject, Details]:
        """Return an object with its details. Raises ServiceError NoSuchKey or NoSuchBucket, 404."""
        opened = self.open(bucket, key)
        opened.file.close()
        return opened.stored, opened.details

    def describe(self, stored: StoredObject) -> tuple[StoredObject, Details] | None:
        """Return an object and its details, from the database or from its current file; None if it was deleted."""
        details = self.database.find_details(stored.version)
        if details is not None:
            return stored, details
        try:
            return self.head(stored.bucket, stored.key)
        except ServiceError:
            return None

    def walk(
        self, bucket: str, prefix: str, after: bytes, *, fold: bool, has_markers: bool = True
    ) -> Iterator[StoredObject | str]:
        """Return objects as `list` does, and folder markers. Raises ServiceError NoSuchBucket 404.

        Args:
            fold: for each folder below the prefix, yield its common prefix instead of its objects.
            has_markers: whether to look for folder markers, which takes a query of the database per folder.
        """
        root = self.check_bucket(bucket)

        def is_folder(folder: bytes) -> bool:
            return self._files.is_folder(f"{bucket}/{folder.decode(errors='surrogateescape')}")

        def find_marker(folder: bytes) -> int | None:
            return self.database.marker_time(bucket, folder.decode(errors="replace")) if has_markers else None

        def describe_entry(entry: Entry) -> StoredObject | str:
            key = entry.key.decode()
            if entry.modified_ns is None:
                return key
            path = self._empty if keys.is_folder_marker(key) else root / key
            return StoredObject(bucket, key, path, entry.size, entry.modified_ns)

        start = prefix.encode(errors="surrogatepass")
        return map(describe_entry, Walk(os.fsencode(root), self._folders, is_folder, find_marker, start, after, fold))

    def _read_details(self, stored: StoredObject, file: FileIO) -> Details | None:
        """Return or compute the details of an open file; None if the file was replaced or removed."""
        details = self.database.find_details(stored.version)
        if details is not None:
            return details
        opened = os.fstat(file.fileno())
        found = self._files.stat(Path(stored.bucket, stored.key))
        if found is None or not os.path.samestat(opened, found):
            return None
        details = guess_details(stored.key, file)
        after = os.fstat(file.fileno())
        unchanged = (after.st_size, after.st_mtime_ns) == (opened.st_size, opened.st_mtime_ns)
        if unchanged and time.time() - stored.modified > SETTLED_AGE_SECONDS:
            self.database.store_details(stored.version, details)
        file.seek(0)
        return details
