"""The object store: buckets are folders, objects are files, and a file is only ever replaced completely.

Jobs read objects through hard links to these files, so no file is changed in place. Incomplete files are outside the
buckets. A killed server leaves some of them, and the next server removes them.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3 import keys
from microjobs_orchestrator.local.s3.details import Details, guess_details
from microjobs_orchestrator.local.s3.intake import IncomingFiles
from microjobs_orchestrator.local.s3.reader import Bucket, ObjectReader, StoredObject, version_of
from microjobs_orchestrator.local.trees import FileType, walk

Condition = Callable[[Details | None], None]
"""Gets the details of the object that a write would replace (None: no object), and raises to prevent the write."""


class ObjectStore(ObjectReader):
    """Reads and writes objects. Methods may be called from any thread. A home has one store at a time."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._incoming = IncomingFiles(home.objects / "incoming")
        self._lock = threading.RLock()

    # --- buckets ---

    def buckets(self) -> list[Bucket]:
        created: dict[str, float] = dict(self.database.select("SELECT name, created FROM buckets"))
        found = sorted(path for path in self._root.iterdir() if self.has_bucket(path.name))
        return [Bucket(path.name, created.get(path.name, path.stat().st_mtime)) for path in found]

    def has_bucket(self, name: str) -> bool:
        return keys.is_bucket_name(name) and self._files.is_folder(name)

    def create_bucket(self, name: str) -> None:
        """Make a bucket. Raises ServiceError InvalidBucketName, or BucketAlreadyOwnedByYou 409."""
        keys.check_bucket_name(name)
        try:
            (self._root / name).mkdir()
        except FileExistsError:
            message = f"The bucket {name!r} exists already, and you own it."
            raise ServiceError("BucketAlreadyOwnedByYou", message, 409) from None
        self.database.change("INSERT OR REPLACE INTO buckets VALUES (?, ?)", (name, time.time()))

    def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket.

        Raises:
            ServiceError: NoSuchBucket 404; BucketNotEmpty 409, also for a file whose name is not a key.
        """
        folder = self._bucket(name)
        with self._lock:
            if self.database.has_marker(name) or any(found.type is not FileType.FOLDER for found in walk(folder)):
                raise ServiceError(
                    "BucketNotEmpty", f"The bucket {name!r} is not empty: remove the files in {folder}.", 409
                )
            self._files.remove_empty(Path(name))
            self.database.change("DELETE FROM objects WHERE bucket = ?", (name,))
            self.database.change("DELETE FROM buckets WHERE name = ?", (name,))

    # --- writing ---

    def incoming(self) -> AbstractContextManager[Path]:
        """Return the path of a new file outside the buckets. It is removed at the end unless it was adopted."""
        return self._incoming.file()

    def check(self, bucket: str, key: str) -> None:
        """Check that a key can be written, as `adopt` does.

        Raises:
            ServiceError: NoSuchBucket 404; KeyTooLongError or InvalidArgument 400 if no file can have the key.
        """
        self._bucket(bucket)
        relative, marker = keys.relative_path(key), keys.is_folder_marker(key)
        reason = self._files.obstacle(bucket / relative, folder=marker)
        if reason is None and not marker and self.database.has_marker(bucket, f"{key}/"):
            reason = f"there are folder markers whose keys begin with {key + '/'!r}"
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
        """Move a complete file into a bucket in one step, as the object of a key.

        Args:
            details: the object's details; None: they are computed from the file when they are needed.
            condition: is checked before the object is replaced.

        Raises:
            ServiceError: the errors of `check` and of the condition. The file is then unchanged.
        """
        with self._incoming.own(file) as own, self._lock:
            self.check(bucket, key)
            if condition is not None:
                condition(self._current(bucket, key))
            stored = self._place(bucket, key, own, details)
        file.unlink(missing_ok=True)
        return stored

    def delete(self, bucket: str, key: str, condition: Condition | None = None) -> bool:
        """Remove an object and its empty folders; return False if the object did not exist.

        Raises:
            ServiceError: NoSuchBucket 404, and the errors of the condition.
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
        """Change the details of an object, not its content."""
        self.database.remember(version_of(stored), details)

    # --- inside ---

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
        self._incoming.stamp(file)
        found = file.stat()
        stored = StoredObject(bucket, key, self._root / relative, found.st_size, found.st_mtime_ns)
        if details is not None:  # before the file is moved: after a crash in between, both rows are correct
            self.database.remember(version_of(stored), details)
        try:
            stored.path.parent.mkdir(parents=True, exist_ok=True)
            if stored.path.is_dir():
                self._files.remove_empty(relative)
            file.replace(stored.path)
        except BaseException:
            self._prune(bucket, relative.parent)
            raise
        self.database.forget_others(version_of(stored))
        return stored

    def _place_marker(self, bucket: str, key: str, file: Path, details: Details | None) -> StoredObject:
        if file.stat().st_size:
            raise keys.cannot_hold(key, "it ends with a slash, so it names a folder, which cannot have content")
        (self._root / bucket / keys.relative_path(key)).mkdir(parents=True, exist_ok=True)
        self._incoming.stamp(file)
        stored = StoredObject(bucket, key, self._empty, 0, file.stat().st_mtime_ns)
        with file.open("rb") as empty:
            self.database.remember(version_of(stored), details or guess_details(key, empty))
        self.database.forget_others(version_of(stored))
        return stored

    def _prune(self, bucket: str, relative: Path) -> None:
        def is_marker(folder: Path) -> bool:
            return self.database.marker(bucket, f"{folder.relative_to(bucket).as_posix()}/") is not None

        self._files.prune(relative, is_marker)
