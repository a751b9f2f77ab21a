"""A bucket's folder as a sorted list of keys, read only as far as it is asked for.

Keys are bytes here: S3 sorts keys by their UTF-8, and file names are bytes.
"""

import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from microjobs_orchestrator.local.s3.folders import FolderCache, scan

PREFIX_END = b"\xff"
"""`prefix + PREFIX_END` sorts behind every key with that prefix: UTF-8 has no such byte."""


@dataclass(frozen=True)
class Entry:
    """Something found in a bucket."""

    key: bytes
    stat: os.stat_result | None = None
    """Of an object's file; a folder marker has none."""
    folded: bool = False
    """All keys in a folder, as one; `key` is their common prefix."""


@dataclass(frozen=True)
class Walk:
    """What to list, in the order of the keys."""

    root: bytes
    folders: FolderCache
    is_folder: Callable[[bytes], bool]
    """Whether a prefix such as `a/b/` can be entered: no links on the way, names spelled as on the disk."""
    prefix: bytes = b""
    after: bytes = b""
    is_marker: Callable[[bytes], bool] = lambda _: False
    """Whether a folder's own key is an object."""
    fold: bool = False
    """A folder below the prefix is one entry, if there is any key in it."""

    def __iter__(self) -> Iterator[Entry]:
        start = self.prefix[: self.prefix.rfind(b"/") + 1]
        if not self.is_folder(start):
            return
        stack = [self._entries(start)]  # not recursive: folders may be 500 deep
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif isinstance(entry, Entry):
                yield entry
            else:
                stack.append(self._entries(entry))

    def _entries(self, folder: bytes) -> Iterator[Entry | bytes]:
        """What is directly in a folder; folders that are to be walked as bytes."""
        if folder.startswith(self.prefix) and folder > self.after and self.is_marker(folder):
            yield Entry(folder)
        for key in self._keys(folder):
            if not key.endswith(b"/"):
                yield from self._object(key)
            elif not self.fold:
                yield key
            elif self._holds_key(key):
                yield Entry(key, folded=True)

    def _keys(self, folder: bytes) -> Iterator[bytes]:
        """The keys of files and subfolders in a folder that match the prefix and can matter behind `after`."""
        names = self.folders.names(self.root, folder)
        wanted = self.prefix[len(folder) :] if self.prefix.startswith(folder) else b""
        for index in range(max(bisect_left(names, wanted), self._start(folder, names)), len(names)):
            if not names[index].startswith(wanted):
                return
            yield folder + names[index]

    def _start(self, folder: bytes, names: list[bytes]) -> int:
        """The index of the first name behind `after`, or of the subfolder that holds `after`."""
        if not self.after.startswith(folder):
            return 0 if folder > self.after else len(names)
        rest = self.after[len(folder) :]
        subfolder = rest[: rest.find(b"/") + 1]
        is_left = bool(subfolder) and not rest.startswith(PREFIX_END, len(subfolder))
        index = bisect_left(names, subfolder) if is_left else len(names)
        return index if names[index : index + 1] == [subfolder] else bisect_right(names, rest)

    def _object(self, key: bytes) -> Iterator[Entry]:
        try:
            found = os.lstat(self.root + b"/" + key)
        except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile
            return
        if stat.S_ISREG(found.st_mode):
            yield Entry(key, found)

    def _holds_key(self, folder: bytes) -> bool:
        """Whether there is any key in a folder, behind `after`."""
        if self.after.startswith(folder):
            return any(replace(self, prefix=folder, fold=False))
        unread = [folder]
        while unread:
            inner = unread.pop()
            if self.is_marker(inner):
                return True
            try:
                for name in scan(self.root + b"/" + inner, inner):
                    if not name.endswith(b"/"):
                        return True
                    unread.append(inner + name)
            except (FileNotFoundError, NotADirectoryError):  # deleted or replaced meanwhile
                continue
        return False
