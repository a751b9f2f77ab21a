"""The objects: buckets are folders, objects are files, and a file is only ever replaced whole.

Jobs read objects through hard links to these files, so nothing is written in place. Files under way lie outside the
buckets; a server that was killed leaves some there, and the next one removes them.
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3 import keys
from microjobs_orchestrator.local.s3.database import Database, Version
from microjobs_orchestrator.local.s3.details import Details, guess_details
from microjobs_orchestrator.local.s3.folders import Folders
from microjobs_orchestrator.local.s3.intake import Intake
from microjobs_orchestrator.local.s3.paths import Tree
from microjobs_orchestrator.local.s3.walk import Walk
from microjobs_orchestrator.local.trees import FileType, walk

SETTLED = 1.0
"""Seconds after which a file's change shows in its modification time for sure, whatever the file system."""

ATTEMPTS = 100
"""To open an object that is replaced between being found and being opened."""


@dataclass(frozen=True)
class StoredObject:
    bucket: str
    key: str
    path: Path
    """The file to read, and never to write. A folder marker's is an empty file elsewhere."""
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
    """An object's file, open for reading, and what is known about exactly that file."""

    stored: StoredObject
    details: Details
    file: BinaryIO


Condition = Callable[[Details | None], None]
"""Gets what is there under the key (None: nothing), and raises if it must not be replaced."""


def no_such_bucket(name: str) -> ServiceError:
    return ServiceError("NoSuchBucket", f"The specified bucket does not exist: {name!r}.", 404)


def no_such_key(key: str) -> ServiceError:
    return ServiceError("NoSuchKey", f"The specified key does not exist: {key!r}.", 404)


class ObjectStore:
    """Methods may be called from any thread; one store serves a folder at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._root = home.buckets
        self._empty = home.objects / "empty"
        self._root.mkdir(parents=True, exist_ok=True)
        self._intake = Intake(home.objects / "incoming")
        self._empty.touch()
        self.database = Database(home.objects / "objects.db")
        self._tree = Tree(self._root)
        self._folders = Folders()
        self._lock = threading.RLock()

    def close(self) -> None:
        self.database.close()

    # --- buckets ---

    def buckets(self) -> list[Bucket]:
        created: dict[str, float] = dict(self.database.select("SELECT name, created FROM buckets"))
        found = sorted(path for path in self._root.iterdir() if self.has_bucket(path.name))
        return [Bucket(path.name, created.get(path.name, path.stat().st_mtime)) for path in found]

    def has_bucket(self, name: str) -> bool:
        return keys.is_bucket_name(name) and self._tree.is_folder(name)

    def create_bucket(self, name: str) -> None:
        """Raises ServiceError InvalidBucketName, or BucketAlreadyOwnedByYou 409."""
        keys.check_bucket_name(name)
        try:
            (self._root / name).mkdir()
        except FileExistsError:
            message = f"The bucket {name!r} is there already, and you own it."
            raise ServiceError("BucketAlreadyOwnedByYou", message, 409) from None
        self.database.change("INSERT OR REPLACE INTO buckets VALUES (?, ?)", (name, time.time()))

    def delete_bucket(self, name: str) -> None:
        """Raises ServiceError NoSuchBucket 404, or BucketNotEmpty 409, also for files that no key can name."""
        folder = self._bucket(name)
        with self._lock:
            if self.database.has_marker(name) or any(found.type is not FileType.FOLDER for found in walk(folder)):
                raise ServiceError("BucketNotEmpty", f"The bucket {name!r} is not empty: look into {folder}.", 409)
            self._tree.remove_empty(Path(name))
            self.database.change("DELETE FROM objects WHERE bucket = ?", (name,))
            self.database.change("DELETE FROM buckets WHERE name = ?", (name,))

    # --- reading ---

    def list(self, bucket: str, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """The objects whose keys begin with `prefix`, behind the key `after`, in the order of their UTF-8.

        Folders are read as they are reached, and only those that can match. Folder markers hold nothing and are left
        out.

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
        except ServiceError:  # no folder can hold it, so it is not there
            raise no_such_key(key) from None
        found = self._tree.look(bucket / relative)
        if found is None:
            raise no_such_key(key)
        if keys.is_folder_marker(key):
            return self._marker(bucket, key, found)
        if not stat.S_ISREG(found.st_mode):
            raise no_such_key(key)
        return StoredObject(bucket, key, self._root / bucket / relative, found.st_size, found.st_mtime_ns)

    def open(self, bucket: str, key: str) -> Opened:
        """Open an object and tell about exactly what was opened, whoever replaces it meanwhile. Close the file.

        Raises:
            ServiceError: NoSuchKey or NoSuchBucket, 404.
        """
        for _ in range(ATTEMPTS):
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
        raise ServiceError("OperationAborted", f"{key!r} is being replaced again and again: try later.", 409)

    def describe(self, stored: StoredObject) -> tuple[StoredObject, Details] | None:
        """An object with its details, as it is now; None if it is gone."""
        details = self.database.details(_version(stored))
        if details is not None:
            return stored, details
        try:
            opened = self.open(stored.bucket, stored.key)
        except ServiceError:
            return None
        opened.file.close()
        return opened.stored, opened.details

    def walk(self, bucket: str, prefix: str, after: bytes, *, fold: bool) -> Iterator[StoredObject | str]:
        """As `list`, with folder markers; with `fold`, folders below the prefix as one entry, their common prefix.

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

    # --- writing ---

    def incoming(self) -> AbstractContextManager[Path]:
        """The name of a file to write, outside the buckets; gone at the end unless it was adopted."""
        return self._intake.file()

    def check(self, bucket: str, key: str) -> None:
        """Raise what `adopt` would raise, before work is done.

        Raises:
            ServiceError: NoSuchBucket 404; KeyTooLongError or InvalidArgument 400, the folder cannot hold the key.
        """
        self._bucket(bucket)
        relative, marker = keys.relative_path(key), keys.is_folder_marker(key)
        reason = self._tree.obstacle(bucket / relative, folder=marker)
        if reason is None and not marker and self.database.has_marker(bucket, f"{key}/"):
            reason = f"there are folders whose keys begin with {key + '/'!r}"
        if reason is not None:
            raise keys.cannot_hold(key, reason)

    def adopt(
        self,
        bucket: str,
        key: str,
        file: Path,
        details: Details | None = None,
        condition: Condition | None = None,
    ) -> StoredObject:
        """Make a finished file the object, at once and whole; the file is gone from where it was.

        Without details they are found out from the file when somebody asks.

        Raises:
            ServiceError: as `check`, and what the condition raises; the file is still there then.
        """
        with self._intake.own(file) as own, self._lock:
            self.check(bucket, key)
            if condition is not None:
                condition(self._current(bucket, key))
            stored = self._place(bucket, key, own, details)
        file.unlink(missing_ok=True)
        return stored

    def delete(self, bucket: str, key: str, condition: Condition | None = None) -> bool:
        """Remove an object, and the folders that are empty without it; False if there was none.

        Raises:
            ServiceError: NoSuchBucket 404, and what the condition raises.
        """
        with self._lock:
            if condition is not None:
                condition(self._current(bucket, key))
            try:
                stored = self.get(bucket, key)
            except ServiceError as error:
                if error.code == "NoSuchBucket":
                    raise
                return False
            relative = bucket / keys.relative_path(key)
            self.database.forget(bucket, key)
            if not keys.is_folder_marker(key):
                stored.path.unlink()
                relative = relative.parent
            self._prune(bucket, relative)
            return True

    def update(self, stored: StoredObject, details: Details) -> None:
        """Change what is known about an object, not the object."""
        self.database.remember(_version(stored), details)

    # --- inside ---

    def _bucket(self, name: str) -> Path:
        if not self.has_bucket(name):
            raise no_such_bucket(name)
        return self._root / name

    def _walk(
        self, bucket: str, prefix: str = "", after: bytes = b"", *, has_markers: bool = False, fold: bool = False
    ) -> Walk:
        def is_folder(folder: bytes) -> bool:
            return self._tree.is_folder(f"{bucket}/{folder.decode(errors='surrogateescape')}")

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
        """What is known about an open file, or is found out now; None if it is not the object any more."""
        details = self.database.details(_version(stored))
        if details is not None:
            return details
        opened = os.fstat(file.fileno())
        found = self._tree.look(Path(stored.bucket, stored.key))
        if found is None or not os.path.samestat(opened, found):
            return None
        details = guess_details(stored.key, file)
        after = os.fstat(file.fileno())
        unchanged = (after.st_size, after.st_mtime_ns) == (opened.st_size, opened.st_mtime_ns)
        if unchanged and time.time() - stored.modified > SETTLED:
            self.database.remember(_version(stored), details)
        file.seek(0)
        return details

    def _current(self, bucket: str, key: str) -> Details | None:
        try:
            opened = self.open(bucket, key)
        except ServiceError:
            return None
        opened.file.close()
        return opened.details

    def _place(self, bucket: str, key: str, file: Path, details: Details | None) -> StoredObject:
        relative = bucket / keys.relative_path(key)
        if keys.is_folder_marker(key):
            return self._place_marker(bucket, key, file, details)
        self._intake.stamp(file)
        found = file.stat()
        stored = StoredObject(bucket, key, self._root / relative, found.st_size, found.st_mtime_ns)
        if details is not None:  # before the file is there: killed in between, both old and new rows are right
            self.database.remember(_version(stored), details)
        try:
            stored.path.parent.mkdir(parents=True, exist_ok=True)
            if stored.path.is_dir():
                self._tree.remove_empty(relative)
            file.replace(stored.path)
        except BaseException:
            self._prune(bucket, relative.parent)
            raise
        self.database.forget_others(_version(stored))
        return stored

    def _place_marker(self, bucket: str, key: str, file: Path, details: Details | None) -> StoredObject:
        if file.stat().st_size:
            raise keys.cannot_hold(key, "it ends with a slash, so it is a folder, and a folder has no content")
        (self._root / bucket / keys.relative_path(key)).mkdir(parents=True, exist_ok=True)
        self._intake.stamp(file)
        stored = StoredObject(bucket, key, self._empty, 0, file.stat().st_mtime_ns)
        with file.open("rb") as empty:
            self.database.remember(_version(stored), details or guess_details(key, empty))
        self.database.forget_others(_version(stored))
        return stored

    def _prune(self, bucket: str, relative: Path) -> None:
        def is_marker(folder: Path) -> bool:
            return self.database.marker(bucket, f"{folder.relative_to(bucket).as_posix()}/") is not None

        self._tree.prune(relative, is_marker)


def _version(stored: StoredObject) -> Version:
    return Version(stored.bucket, stored.key, stored.size, stored.modified_ns)
