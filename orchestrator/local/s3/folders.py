"""Sorted names of folders that were read, kept until the folders change.

A listing comes in pages, and each page would otherwise read and sort the whole folder that it lies in.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from microjobs_orchestrator.local.s3.keys import MAX_KEY_BYTES

SETTLED_NS = 1_000_000_000
"""Age of a folder's last change after which every later change shows in its times, whatever the file system."""

MAX_NAMES = 500_000
"""Names that are kept, some 50 MB. One folder is always kept, however large."""

Stamp = tuple[int, int, int, int]
"""Device, inode and times of a folder. Unlike mtime, ctime cannot be set back, as `rsync --times` does."""


@dataclass(frozen=True)
class _Listing:
    stamp: Stamp
    names: list[bytes]


class FolderCache:
    """Reads folders below a root. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listings: OrderedDict[bytes, _Listing] = OrderedDict()
        self._names_count = 0

    def names(self, root: bytes, folder: bytes) -> list[bytes]:
        """The names in a folder, in the order of their keys; subfolders end with a slash. Do not change the list.

        Links and names that no key can have are left out; a folder that does not exist is empty.
        """
        path = root + b"/" + folder
        try:
            stamp = _stamp(path)
            kept = self._find(path, stamp)
            return self._read(path, folder, stamp) if kept is None else kept
        except (FileNotFoundError, NotADirectoryError):  # deleted or replaced meanwhile
            return []

    def _find(self, path: bytes, stamp: Stamp) -> list[bytes] | None:
        with self._lock:
            listing = self._listings.get(path)
            if listing is None or listing.stamp != stamp:
                return None
            self._listings.move_to_end(path)
            return listing.names

    def _read(self, path: bytes, folder: bytes, stamp: Stamp) -> list[bytes]:
        is_settled = time.time_ns() - stamp[3] > SETTLED_NS
        names = sorted(scan(path, folder))
        if is_settled and _stamp(path) == stamp:
            self._keep(path, _Listing(stamp, names))
        return names

    def _keep(self, path: bytes, listing: _Listing) -> None:
        with self._lock:
            earlier = self._listings.pop(path, None)
            self._names_count += len(listing.names) - (len(earlier.names) if earlier else 0)
            self._listings[path] = listing
            while self._names_count > MAX_NAMES and len(self._listings) > 1:
                _, oldest = self._listings.popitem(last=False)
                self._names_count -= len(oldest.names)


def scan(path: bytes, folder: bytes) -> Iterator[bytes]:
    """The names in a folder, in any order; subfolders end with a slash."""
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
    found = os.stat(path)  # noqa: PTH116  paths are bytes here
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _is_key(name: bytes) -> bool:
    """Whether a file dropped in by hand has a name that is a key."""
    if len(name) > MAX_KEY_BYTES:
        return False
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
