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
from microjobs_orchestrator.local.s3.walk import KeyEntry, Walk

MIN_UNCHANGED_SECONDS = 1.0
"""A file's details are stored only if the file has not changed for this time. Each later change then gives the file a
different modification time, even if the file system's timestamps are coarse."""

MAX_OPEN_ATTEMPTS = 100
"""Maximum number of attempts to open an object. An attempt fails if another client replaces the object during the
attempt."""


@dataclass(frozen=True)
class StoredObject:
    """An object, with the size and the modification time that its file had when the server read them."""

    bucket: str
    key: str
    path: Path
    """The file. Do not write to it: all folder markers share one empty file outside the buckets."""
    size: int
    modified_ns: int

    @property
    def modification_time(self) -> float:
        """Seconds since 1970."""
        return self.modified_ns / 1e9

    @property
    def version(self) -> Version:
        return self.bucket, self.key, self.size, self.modified_ns


@dataclass(frozen=True)
class OpenedObject:
    """An object's file, open for reading, and the details of exactly that file."""

    stored_object: StoredObject
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
        self._empty_file = home.objects / "empty"
        self._empty_file.touch()
        self.database = Database(home.objects / "objects.db")
        self._files = BucketFiles(self._root)
        self._folder_cache = FolderCache()

    def close(self) -> None:
        self.database.close()

    def has_bucket(self, name: str) -> bool:
        return keys.is_bucket_name(name) and self._files.is_folder(name)

    def check_bucket(self, name: str) -> Path:
        """Return the folder of a bucket. Raises ServiceError NoSuchBucket 404."""
        if not self.has_bucket(name):
            raise ServiceError("NoSuchBucket", f"The specified bucket does not exist: {name!r}.", 404)
        return self._root / name

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[StoredObject]:
        """Return the objects whose keys begin with `prefix` and follow `start_after`, sorted by the keys' UTF-8.

        The iterator reads a folder when it reaches the folder, and only if the folder can contain such objects. Folder
        markers are left out, because they have no content. Raises ServiceError NoSuchBucket 404.
        """
        entries = self.walk(
            bucket, prefix, start_after.encode(errors="surrogatepass"), groups_by_folder=False, include_markers=False
        )
        return (item for item in entries if isinstance(item, StoredObject))

    def get(self, bucket: str, key: str) -> StoredObject:
        """Return an object. Raises ServiceError NoSuchKey or NoSuchBucket, 404."""
        self.check_bucket(bucket)
        try:
            key_path = keys.get_relative_path(key)
        except ServiceError:  # no folder can contain a key that is not valid
            raise make_no_such_key_error(key) from None
        status, is_marker = self._files.stat(bucket / key_path), keys.is_folder_marker(key)
        if status is not None and not is_marker and stat.S_ISREG(status.st_mode):
            return StoredObject(bucket, key, self._root / bucket / key_path, status.st_size, status.st_mtime_ns)
        modified_ns = self.database.find_marker_time(bucket, key) if is_marker else None
        if modified_ns is None or status is None or not stat.S_ISDIR(status.st_mode):
            raise make_no_such_key_error(key)
        return StoredObject(bucket, key, self._empty_file, size=0, modified_ns=modified_ns)

    def open(self, bucket: str, key: str) -> OpenedObject:
        """Open an object. The caller closes the file. Raises ServiceError NoSuchKey or NoSuchBucket, 404.

        The details describe the opened file, even if the object is replaced at the same time.
        """
        for _ in range(MAX_OPEN_ATTEMPTS):
            stored_object = self.get(bucket, key)
            try:
                file = stored_object.path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
            try:
                status = os.fstat(file.fileno())
                if not keys.is_folder_marker(key):
                    stored_object = replace(stored_object, size=status.st_size, modified_ns=status.st_mtime_ns)
                details = self._read_details(stored_object, file)
            except BaseException:
                file.close()
                raise
            if details is not None:
                return OpenedObject(stored_object, details, file)
            file.close()
        raise ServiceError("OperationAborted", f"{key!r} is replaced continually: try later.", 409)

    def head(self, bucket: str, key: str) -> tuple[StoredObject, Details]:
        """Return an object with its details. Raises ServiceError NoSuchKey or NoSuchBucket, 404."""
        opened_object = self.open(bucket, key)
        opened_object.file.close()
        return opened_object.stored_object, opened_object.details

    def describe(self, stored_object: StoredObject) -> tuple[StoredObject, Details] | None:
        """Return an object and its details, from the database or from its current file; None if it was deleted."""
        details = self.database.find_details(stored_object.version)
        if details is not None:
            return stored_object, details
        try:
            return self.head(stored_object.bucket, stored_object.key)
        except ServiceError:
            return None

    def walk(
        self, bucket: str, prefix: str, start_after: bytes, *, groups_by_folder: bool, include_markers: bool = True
    ) -> Iterator[StoredObject | str]:
        """Return the objects that `list` returns, folder markers, and common prefixes, which are strings.

        Raises ServiceError NoSuchBucket 404.

        Args:
            groups_by_folder: for each folder below the prefix, yield its common prefix instead of its objects.
            include_markers: whether to find folder markers, which takes one query of the database per folder.
        """
        root = self.check_bucket(bucket)

        def is_folder(folder: bytes) -> bool:
            return self._files.is_folder(f"{bucket}/{folder.decode(errors='surrogateescape')}")

        def find_marker(folder: bytes) -> int | None:
            return self.database.find_marker_time(bucket, folder.decode(errors="replace")) if include_markers else None

        def describe_entry(entry: KeyEntry) -> StoredObject | str:
            key = entry.key.decode()
            if entry.modified_ns is None:
                return key
            path = self._empty_file if keys.is_folder_marker(key) else root / key
            return StoredObject(bucket, key, path, entry.size, entry.modified_ns)

        prefix_bytes = prefix.encode(errors="surrogatepass")
        return map(
            describe_entry,
            Walk(
                os.fsencode(root),
                self._folder_cache,
                is_folder,
                find_marker,
                prefix_bytes,
                start_after,
                groups_by_folder,
            ),
        )

    def _read_details(self, stored_object: StoredObject, file: FileIO) -> Details | None:
        """Return the stored details of an open file, or compute them; None if the file was replaced or removed."""
        details = self.database.find_details(stored_object.version)
        if details is not None:
            return details
        old_status = os.fstat(file.fileno())
        path_status = self._files.stat(Path(stored_object.bucket, stored_object.key))
        if path_status is None or not os.path.samestat(old_status, path_status):
            return None
        details = guess_details(stored_object.key, file)
        new_status = os.fstat(file.fileno())
        is_unchanged = (new_status.st_size, new_status.st_mtime_ns) == (old_status.st_size, old_status.st_mtime_ns)
        if is_unchanged and time.time() - stored_object.modification_time > MIN_UNCHANGED_SECONDS:
            self.database.store_details(stored_object.version, details)
        file.seek(0)
        return details
