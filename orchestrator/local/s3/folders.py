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
"""Age of a folder's last change from which a new change always alters its times, even if timestamps are coarse."""

MAX_NAMES = 500_000
"""Maximum number of cached names, which take about 50 MB. The last folder stays in the cache, however large it is."""

Stamp = tuple[int, int, int, int]
"""A folder's device, inode, mtime and ctime. Programs such as `rsync --times` set mtime back, but never ctime."""


class FolderCache:
    """Reads the names in folders. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listings: OrderedDict[bytes, tuple[Stamp, list[bytes]]] = OrderedDict()
        self._names_count = 0

    def names(self, root: bytes, folder: bytes) -> list[bytes]:
        """Return the names in a folder, in the order of their keys. Subfolders end with a slash.

        Links and names that are not keys are left out. A folder that does not exist is empty. Do not change the list.
        """
        path = root + b"/" + folder
        try:
            stamp = _stamp(path)
            with self._lock:
                listing = self._listings.get(path)
                if listing is not None and listing[0] == stamp:
                    self._listings.move_to_end(path)
                    return listing[1]
            is_settled = time.time_ns() - stamp[3] > SETTLED_AGE_NS
            names = sorted(scan_names(path, folder))
            if is_settled and _stamp(path) == stamp:
                self._store(path, stamp, names)
            return names
        except (FileNotFoundError, NotADirectoryError):  # deleted or replaced meanwhile
            return []

    def _store(self, path: bytes, stamp: Stamp, names: list[bytes]) -> None:
        with self._lock:
            _, earlier = self._listings.pop(path, (stamp, []))
            self._listings[path] = stamp, names
            self._names_count += len(names) - len(earlier)
            while self._names_count > MAX_NAMES and len(self._listings) > 1:
                _, (_, oldest) = self._listings.popitem(last=False)
                self._names_count -= len(oldest)


def scan_names(path: bytes, folder: bytes) -> Iterator[bytes]:
    """Yield the names in a folder, in any order. Subfolders end with a slash."""
    with os.scandir(path) as found:
        for item in found:
            name = item.name
            if item.is_dir(follow_symlinks=False):
                name += b"/"
            elif not item.is_file(follow_symlinks=False):
                continue
            if _is_key(folder + name):
                yield name


def _stamp(path: bytes) -> Stamp:
    found = os.stat(path)  # noqa: PTH116  paths are bytes
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _is_key(name: bytes) -> bool:
    """Return whether a file's name is a valid key."""
    if len(name) > MAX_KEY_BYTES:
        return False
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
