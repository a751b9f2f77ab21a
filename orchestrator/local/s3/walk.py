"""Iteration over the keys of a bucket in sorted order. It reads only the folders that it needs.

Keys are bytes in this module: S3 sorts keys by their UTF-8, and file names are bytes.
"""

import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from microjobs_orchestrator.local.s3.folders import FolderCache, scan_names

PREFIX_END = b"\xff"
"""`prefix + PREFIX_END` sorts after every key with that prefix, because UTF-8 does not use this byte."""


@dataclass(frozen=True)
class Entry:
    """An object, a folder marker, or the common prefix of a folder."""

    key: bytes
    size: int = 0
    modified_ns: int | None = None
    """Modification time; None for a common prefix, which stands for all keys of its folder."""


@dataclass(frozen=True)
class Walk:
    """An iterable of the entries of a bucket, in the order of their keys."""

    root: bytes
    folders: FolderCache
    is_folder: Callable[[bytes], bool]
    """Returns whether a prefix such as `a/b/` is a folder; False if the path contains links."""
    find_marker: Callable[[bytes], int | None]
    """Returns the modification time of a folder marker; None if the key has no marker."""
    prefix: bytes
    after: bytes
    fold: bool
    """Whether a folder below the prefix is yielded as one entry if it contains a key."""

    def __iter__(self) -> Iterator[Entry]:
        start = self.prefix[: self.prefix.rfind(b"/") + 1]
        if not self.is_folder(start):
            return
        stack = [self._list_entries(start)]  # not recursive: folders may be 500 deep
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif isinstance(entry, Entry):
                yield entry
            else:
                stack.append(self._list_entries(entry))

    def _list_entries(self, folder: bytes) -> Iterator[Entry | bytes]:
        """Yield the entries directly in a folder, and the prefixes of the subfolders to read."""
        marker = self.find_marker(folder) if folder.startswith(self.prefix) and folder > self.after else None
        if marker is not None:
            yield Entry(folder, 0, marker)
        for key in self._list_keys(folder):
            if not key.endswith(b"/"):
                yield from self._read_object(key)
            elif not self.fold:
                yield key
            elif self._contains_key(key):
                yield Entry(key)

    def _list_keys(self, folder: bytes) -> Iterator[bytes]:
        """Yield the keys of a folder's files and subfolders that match the prefix, from the position `after` on."""
        names = self.folders.names(self.root, folder)
        name_prefix = self.prefix[len(folder) :] if self.prefix.startswith(folder) else b""
        for index in range(max(bisect_left(names, name_prefix), self._find_start(folder, names)), len(names)):
            if not names[index].startswith(name_prefix):
                return
            yield folder + names[index]

    def _find_start(self, folder: bytes, names: list[bytes]) -> int:
        """Return the index of the first name after `after`, or of the subfolder that contains `after`."""
        if not self.after.startswith(folder):
            return 0 if folder > self.after else len(names)
        rest = self.after[len(folder) :]
        subfolder = rest[: rest.find(b"/") + 1]
        is_inside = bool(subfolder) and not rest.startswith(PREFIX_END, len(subfolder))
        index = bisect_left(names, subfolder) if is_inside else len(names)
        return index if names[index : index + 1] == [subfolder] else bisect_right(names, rest)

    def _read_object(self, key: bytes) -> Iterator[Entry]:
        with suppress(FileNotFoundError, NotADirectoryError):  # deleted meanwhile
            found = os.lstat(self.root + b"/" + key)
            if stat.S_ISREG(found.st_mode):
                yield Entry(key, found.st_size, found.st_mtime_ns)

    def _contains_key(self, folder: bytes) -> bool:
        """Return whether a folder has any key after `after`."""
        if self.after.startswith(folder):
            return any(replace(self, prefix=folder, fold=False))
        unread = [folder]
        while unread:
            inner = unread.pop()
            if self.find_marker(inner) is not None:
                return True
            with suppress(FileNotFoundError, NotADirectoryError):  # deleted or replaced meanwhile
                for name in scan_names(self.root + b"/" + inner, inner):
                    if not name.endswith(b"/"):
                        return True
                    unread.append(inner + name)
        return False
