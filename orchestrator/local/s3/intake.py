"""Incomplete files. They are outside the buckets, on the same file system, and removed with their request."""

import contextlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from microjobs_orchestrator.local.trees import discard


class IncomingFiles:
    """Prepares complete files for renaming into a bucket."""

    def __init__(self, folder: Path) -> None:
        discard(folder)  # files of a killed server
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._last_stamp = 0

    @contextlib.contextmanager
    def file(self) -> Iterator[Path]:
        """Yield the path of a new file. It is removed at the end unless it was renamed."""
        path = self._folder / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def own(self, file: Path) -> Iterator[Path]:
        """Yield a file that can be renamed: the file itself, or a copy, which is removed at the end unless renamed."""
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{file} is not a regular file")
        if found.st_nlink == 1 and found.st_dev == self._folder.stat().st_dev:
            yield file
            return
        with self.file() as copy:  # the file has other names, or is on another device
            shutil.copyfile(file, copy)
            yield copy

    def stamp(self, file: Path) -> None:
        """Set a file's modification time to now, and later than that of each earlier file. One thread at a time."""
        self._last_stamp = max(time.time_ns(), self._last_stamp + 1)
        os.utime(file, ns=(self._last_stamp, self._last_stamp))
