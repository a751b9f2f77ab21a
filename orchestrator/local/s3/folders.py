"""A cache of the sorted names in folders.

A listing has pages. Without the cache, each page would read and sort its whole folder.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator

from microjobs_orchestrator.local.s3.keys import MAX_KEY_BYTES

SETTLED_AGE_NS = 1_000_000_000
"""A folder's names are cached only if the folder's last change is older than this time. A later change then always sets
a different timestamp, even on file systems with coarse timestamps."""

MAX_NAMES = 500_000
"""Maximum number of cached names, which take about 50 MB. The folder that was read last stays in the cache, even if it
has more names."""

Stamp = tuple[int, int, int, int]
"""A folder's device, inode, mtime and ctime. The stamp needs ctime, because programs such as `rsync --times` set mtime
back to an earlier value. No program can set ctime."""


class FolderCache:
    """Reads the names in folders. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listings: OrderedDict[bytes, tuple[Stamp, list[bytes]]] = OrderedDict()
        self._name_count = 0

    def list_names(self, root: bytes, folder: bytes) -> list[bytes]:
        """Return the names in a folder, in the order of their keys. Subfolders end with a slash.

        Links and names that are not keys are left out. For a folder that does not exist, the list is empty. Do not
        change the list: the cache contains it.

        Args:
            root: the path of the bucket's folder.
            folder: the path below `root`, with a slash at its end unless it is empty.
        """
        path = root + b"/" + folder
        try:
            stamp = _read_stamp(path)
            with self._lock:
                listing = self._listings.get(path)
                if listing is not None and listing[0] == stamp:
                    self._listings.move_to_end(path)
                    return listing[1]
            is_settled = time.time_ns() - stamp[3] > SETTLED_AGE_NS
            names = sorted(scan_names(path, folder))
            if is_settled and _read_stamp(path) == stamp:
                self._store(path, stamp, names)
            return names
        except (FileNotFoundError, NotADirectoryError):  # the folder was deleted or replaced during the scan
            return []

    def _store(self, path: bytes, stamp: Stamp, names: list[bytes]) -> None:
        with self._lock:
            _, old_names = self._listings.pop(path, (stamp, []))
            self._listings[path] = stamp, names
            self._name_count += len(names) - len(old_names)
            while self._name_count > MAX_NAMES and len(self._listings) > 1:
                _, (_, oldest_names) = self._listings.popitem(last=False)
                self._name_count -= len(oldest_names)


def scan_names(path: bytes, folder: bytes) -> Iterator[bytes]:
    """Yield the names in a folder, in any order. Subfolders end with a slash.

    Args:
        path: the path of the folder on this machine.
        folder: the folder's path in its bucket, which is the beginning of the keys.
    """
    with os.scandir(path) as entries:
        for item in entries:
            name = item.name
            if item.is_dir(follow_symlinks=False):
                name += b"/"
            elif not item.is_file(follow_symlinks=False):
                continue
            if _is_key(folder + name):
                yield name


def _read_stamp(path: bytes) -> Stamp:
    status = os.stat(path)  # noqa: PTH116  paths are bytes
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _is_key(path: bytes) -> bool:
    """Return whether the path of a file or a folder in its bucket is a valid key."""
    if len(path) > MAX_KEY_BYTES:
        return False
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True
