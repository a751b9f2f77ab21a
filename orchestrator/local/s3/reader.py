"""Reading of objects: buckets are folders, and objects are files."""

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3 import keys
from microjobs_orchestrator.local.s3.database import Database, Version
from microjobs_orchestrator.local.s3.details import Details, guess_details
from microjobs_orchestrator.local.s3.folders import FolderCache
from microjobs_orchestrator.local.s3.paths import BucketFiles
from microjobs_orchestrator.local.s3.walk import Walk

SETTLED_SECONDS = 1.0
"""Age of a file from which every later change shows in its modification time, whatever the file system."""

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


@dataclass(frozen=True)
class Bucket:
    name: str
    created: float


@dataclass(frozen=True)
class Opened:
    """An object's file, open for reading, and the details of exactly that file."""

    stored: StoredObject
    details: Details
    file: BinaryIO


def no_such_bucket(name: str) -> ServiceError:
    return ServiceError("NoSuchBucket", f"The specified bucket does not exist: {name!r}.", 404)


def no_such_key(key: str) -> ServiceError:
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

    def list(self, bucket: str, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix` and follow the key `after`, in the order of their UTF-8.

        Folders are read when they are reached, and only those that can match. Folder markers are left out, because
        they have no content.

        Raises:
            ServiceError: NoSuchBucket 404.
        """
        root = self._bucket(bucket)
        walk = self._walk(bucket, prefix, after.encode(errors="surrogatepass"))

        def objects() -> Iterator[StoredObject]:
            for entry in walk:
                if entry.stat is not None:
                    key = entry.key.decode()
                    yield StoredObject(bucket, key, root / key, entry.stat.st_size, entry.stat.st_mtime_ns)

        return objects()

    def get(self, bucket: str, key: str) -> StoredObject:
        """Raises ServiceError NoSuchKey or NoSuchBucket, 404."""
        self._bucket(bucket)
        try:
            relative = keys.relative_path(key)
        except ServiceError:  # no folder can contain such a key
            raise no_such_key(key) from None
        found = self._files.stat(bucket / relative)
        if found is None:
            raise no_such_key(key)
        if keys.is_folder_marker(key):
            return self._marker(bucket, key, found)
        if not stat.S_ISREG(found.st_mode):
            raise no_such_key(key)
        return StoredObject(bucket, key, self._root / bucket / relative, found.st_size, found.st_mtime_ns)

    def open(self, bucket: str, key: str) -> Opened:
        """Open an object. The details are those of the opened file, even if the object is replaced meanwhile.

        The caller closes the file.

        Raises:
            ServiceError: NoSuchKey or NoSuchBucket, 404.
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
                details = self._details(stored, file)
            except BaseException:
                file.close()
                raise
            if details is not None:
                return Opened(stored, details, file)
            file.close()
        raise ServiceError("OperationAborted", f"{key!r} is replaced again and again: try later.", 409)

    def describe(self, stored: StoredObject) -> tuple[StoredObject, Details] | None:
        """Return an object with its details as it is now; None if it was deleted."""
        details = self.database.details(version_of(stored))
        if details is not None:
            return stored, details
        try:
            opened = self.open(stored.bucket, stored.key)
        except ServiceError:
            return None
        opened.file.close()
        return opened.stored, opened.details

    def walk(self, bucket: str, prefix: str, after: bytes, *, fold: bool) -> Iterator[StoredObject | str]:
        """Yield objects as `list` does, and folder markers.

        Args:
            fold: yield the common prefix of a folder below the prefix instead of its objects.

        Raises:
            ServiceError: NoSuchBucket 404.
        """
        root = self._bucket(bucket)
        walk = self._walk(bucket, prefix, after, has_markers=True, fold=fold)

        def found() -> Iterator[StoredObject | str]:
            for entry in walk:
                key = entry.key.decode()
                if entry.folded:
                    yield key
                elif entry.stat is None:
                    modified_ns = self.database.marker(bucket, key)
                    if modified_ns is not None:  # None: deleted meanwhile
                        yield StoredObject(bucket, key, self._empty, 0, modified_ns)
                else:
                    yield StoredObject(bucket, key, root / key, entry.stat.st_size, entry.stat.st_mtime_ns)

        return found()

    def _bucket(self, name: str) -> Path:
        if not self.has_bucket(name):
            raise no_such_bucket(name)
        return self._root / name

    def _walk(
        self, bucket: str, prefix: str = "", after: bytes = b"", *, has_markers: bool = False, fold: bool = False
    ) -> Walk:
        def is_folder(folder: bytes) -> bool:
            return self._files.is_folder(f"{bucket}/{folder.decode(errors='surrogateescape')}")

        def is_marker(folder: bytes) -> bool:
            return has_markers and self.database.marker(bucket, folder.decode(errors="replace")) is not None

        root, start = os.fsencode(self._root / bucket), prefix.encode(errors="surrogatepass")
        return Walk(root, self._folders, is_folder, start, after, is_marker, fold)

    def _marker(self, bucket: str, key: str, found: os.stat_result) -> StoredObject:
        modified_ns = self.database.marker(bucket, key)
        if modified_ns is None or not stat.S_ISDIR(found.st_mode):
            raise no_such_key(key)
        return StoredObject(bucket, key, self._empty, 0, modified_ns)

    def _details(self, stored: StoredObject, file: BinaryIO) -> Details | None:
        """Return or compute the details of an open file; None if the file is no longer the object's."""
        details = self.database.details(version_of(stored))
        if details is not None:
            return details
        opened = os.fstat(file.fileno())
        found = self._files.stat(Path(stored.bucket, stored.key))
        if found is None or not os.path.samestat(opened, found):
            return None
        details = guess_details(stored.key, file)
        after = os.fstat(file.fileno())
        unchanged = (after.st_size, after.st_mtime_ns) == (opened.st_size, opened.st_mtime_ns)
        if unchanged and time.time() - stored.modified > SETTLED_SECONDS:
            self.database.remember(version_of(stored), details)
        file.seek(0)
        return details


def version_of(stored: StoredObject) -> Version:
    return Version(stored.bucket, stored.key, stored.size, stored.modified_ns)
