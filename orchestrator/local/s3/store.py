"""The object store: buckets are folders, objects are files, and each write creates or replaces a whole file.

Jobs read objects through hard links to these files, so no file is changed in place. Incomplete files are outside the
buckets. A killed server leaves some of them, and the next server removes them.
"""

import os
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.s3 import keys
from microjobs_orchestrator.local.s3.details import Details, guess_details
from microjobs_orchestrator.local.s3.reader import ObjectReader, StoredObject
from microjobs_orchestrator.local.trees import FileType, discard, walk

Condition = Callable[[Details | None], None]
"""A function that raises ServiceError to prevent a write. Its argument is the details of the object that the write
would replace; None if there is no object."""


class ObjectStore(ObjectReader):
    """Reads and writes objects. Methods may be called from any thread. A home has one store at a time."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._incoming_folder = home.objects / "incoming"
        discard(self._incoming_folder)  # a killed server may have left files
        self._incoming_folder.mkdir(exist_ok=True)
        self._lock = threading.RLock()
        self._last_modified_ns = 0

    # --- buckets ---

    def list_buckets(self) -> dict[str, float]:
        """Return the creation times of the buckets, in seconds since 1970, by their sorted names."""
        creation_times: dict[str, float] = dict(self.database.select("SELECT name, created FROM buckets"))
        folders = sorted(path for path in self._root.iterdir() if self.has_bucket(path.name))
        return {path.name: creation_times.get(path.name, path.stat().st_mtime) for path in folders}

    def create_bucket(self, name: str) -> None:
        """Create a bucket. Raises ServiceError InvalidBucketName, or BucketAlreadyOwnedByYou 409."""
        if not keys.is_bucket_name(name):
            rules = "3 to 63 lower case letters, digits, dots and hyphens, with a letter or digit at each end"
            message = f"The bucket name {name!r} is not valid: use {rules}, and none of AWS's reserved names."
            raise ServiceError("InvalidBucketName", message)
        try:
            (self._root / name).mkdir()
        except FileExistsError:
            message = f"The bucket {name!r} exists already, and you own it."
            raise ServiceError("BucketAlreadyOwnedByYou", message, 409) from None
        self.database.change("INSERT OR REPLACE INTO buckets VALUES (?, ?)", (name, time.time()))

    def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket. Raises ServiceError NoSuchBucket 404, or BucketNotEmpty 409.

        A bucket that contains a file whose name is not a valid key is not empty.
        """
        folder = self.check_bucket(name)
        with self._lock:
            if self.database.has_marker(name) or any(item.type is not FileType.FOLDER for item in walk(folder)):
                message = f"The bucket {name!r} is not empty: remove the files in {folder}."
                raise ServiceError("BucketNotEmpty", message, 409)
            self._files.remove_empty(Path(name))
            self.database.change("DELETE FROM objects WHERE bucket = ?", (name,))
            self.database.change("DELETE FROM bucket_settings WHERE bucket = ?", (name,))
            self.database.change("DELETE FROM buckets WHERE name = ?", (name,))

    # --- writing ---

    @contextmanager
    def new_file(self) -> Iterator[Path]:
        """Yield the path of a new file outside the buckets. It is removed at the end unless `put` moved it."""
        path = self._incoming_folder / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def check_writable(self, bucket: str, key: str) -> None:
        """Check that a key can be written, as `put` does.

        Raises ServiceError NoSuchBucket 404, or KeyTooLongError or InvalidArgument 400 if no file can have the key.
        """
        self.check_bucket(bucket)
        key_path, is_marker = keys.get_relative_path(key), keys.is_folder_marker(key)
        reason = self._files.find_obstacle(bucket / key_path, is_folder=is_marker)
        if reason is None and not is_marker and self.database.has_marker(bucket, f"{key}/"):
            reason = f"there are folder markers whose keys begin with {key + '/'!r}"
        if reason is not None:
            raise keys.make_invalid_key_error(key, reason)

    def put(
        self, bucket: str, key: str, file: Path, details: Details | None = None, condition: Condition | None = None
    ) -> StoredObject:
        """Move a complete file into a bucket in one step, as the object of a key.

        Raises the errors of `check_writable` and of the condition. After an error, the file is still at its old path.

        Args:
            details: the object's details; if None, they are computed from the file when they are needed.
            condition: called before the object is replaced.
        """
        with self._ensure_movable(file) as movable_file, self._lock:
            self.check_writable(bucket, key)
            if condition is not None:
                condition(self._read_current_details(bucket, key))
            stored_object = self._replace_object(bucket, key, movable_file, details)
        file.unlink(missing_ok=True)
        return stored_object

    def delete(self, bucket: str, key: str, condition: Condition | None = None) -> bool:
        """Remove an object, and the folders that are then empty. Return whether the object existed.

        Raises the errors of `check_bucket` and of the condition.
        """
        self.check_bucket(bucket)
        with self._lock:
            if condition is not None:
                condition(self._read_current_details(bucket, key))
            try:
                stored_object = self.get(bucket, key)
            except ServiceError:
                return False
            relative_path = bucket / keys.get_relative_path(key)
            self.database.delete_details(bucket, key)
            if not keys.is_folder_marker(key):
                stored_object.path.unlink()
                relative_path = relative_path.parent
            self._prune(bucket, relative_path)
            return True

    @contextmanager
    def _ensure_movable(self, file: Path) -> Iterator[Path]:
        """Yield the file, or a copy if it has other hard links or is on another device."""
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{file} is not a regular file")
        if status.st_nlink == 1 and status.st_dev == self._incoming_folder.stat().st_dev:
            yield file
            return
        with self.new_file() as copy:
            shutil.copyfile(file, copy)
            yield copy

    def _read_current_details(self, bucket: str, key: str) -> Details | None:
        try:
            return self.head(bucket, key)[1]
        except ServiceError:
            return None

    def _replace_object(self, bucket: str, key: str, file: Path, details: Details | None) -> StoredObject:
        relative_path, is_marker = bucket / keys.get_relative_path(key), keys.is_folder_marker(key)
        if is_marker and file.stat().st_size:
            reason = "it ends with a slash, so it names a folder, which cannot have content"
            raise keys.make_invalid_key_error(key, reason)
        # Two versions of an object never have the same modification time, because the time is a part of the primary key
        # of the row with their details.
        self._last_modified_ns = max(time.time_ns(), self._last_modified_ns + 1)
        os.utime(file, ns=(self._last_modified_ns, self._last_modified_ns))
        status, path = file.stat(), self._empty_file if is_marker else self._root / relative_path
        stored_object = StoredObject(bucket, key, path, status.st_size, status.st_mtime_ns)
        folder = relative_path if is_marker else relative_path.parent
        try:
            (self._root / folder).mkdir(parents=True, exist_ok=True)
            # The row is written before the file is moved. If the server is killed in between, the row has no object.
            # Such a row is ignored.
            if details is not None or is_marker:
                self.database.store_details(stored_object.version, details or guess_details(key, BytesIO()))
            if not is_marker:
                self._files.replace(relative_path, file)
        except BaseException:
            self._prune(bucket, folder)
            raise
        self.database.delete_other_details(stored_object.version)
        return stored_object

    def _prune(self, bucket: str, folder: Path) -> None:
        """Remove a folder and its parents as long as they are empty. The bucket and folders with markers stay."""
        while len(folder.parts) > 1:
            if self.database.find_marker_time(bucket, f"{folder.relative_to(bucket).as_posix()}/") is not None:
                return
            try:
                (self._root / folder).rmdir()
            except OSError:  # the folder is not empty, or another thread has removed it
                return
            folder = folder.parent
