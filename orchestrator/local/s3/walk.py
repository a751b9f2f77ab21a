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
class KeyEntry:
    """An object, a folder marker, or the common prefix of a folder."""

    key: bytes
    size: int = 0
    modified_ns: int | None = None
    """Modification time; None for a common prefix, which stands for all keys of its folder."""


@dataclass(frozen=True)
class Walk:
    """An iterable of the entries of a bucket, in the order of their keys."""

    root: bytes
    """The path of the bucket's folder."""
    folder_cache: FolderCache
    is_folder: Callable[[bytes], bool]
    """This function returns whether a prefix such as `a/b/` is a folder. It returns False if the path contains
    links."""
    find_marker: Callable[[bytes], int | None]
    """This function returns the modification time of a folder marker, or None if the key has no marker."""
    prefix: bytes
    start_after: bytes
    """The position after which the iteration starts: a key, or a prefix followed by `PREFIX_END`."""
    groups_by_folder: bool
    """Whether a folder below the prefix is yielded as one entry if it contains a key."""

    def __iter__(self) -> Iterator[KeyEntry]:
        top_folder = self.prefix[: self.prefix.rfind(b"/") + 1]
        if not self.is_folder(top_folder):
            return
        stack = [self._list_entries(top_folder)]  # this loop does not recurse, because a folder may have 500 parents
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif isinstance(entry, KeyEntry):
                yield entry
            else:
                stack.append(self._list_entries(entry))

    def _list_entries(self, folder: bytes) -> Iterator[KeyEntry | bytes]:
        """Yield the entries directly in a folder, and the prefixes of the subfolders to read."""
        marker_time = self.find_marker(folder) if folder.startswith(self.prefix) and folder > self.start_after else None
        if marker_time is not None:
            yield KeyEntry(folder, modified_ns=marker_time)
        for key in self._list_keys(folder):
            if not key.endswith(b"/"):
                yield from self._read_object(key)
            elif not self.groups_by_folder:
                yield key
            elif self._contains_key(key):
                yield KeyEntry(key)

    def _list_keys(self, folder: bytes) -> Iterator[bytes]:
        """Yield the keys of a folder's files and subfolders that match the prefix. Start after `start_after`."""
        names = self.folder_cache.list_names(self.root, folder)
        name_prefix = self.prefix[len(folder) :] if self.prefix.startswith(folder) else b""
        for index in range(max(bisect_left(names, name_prefix), self._find_first_index(folder, names)), len(names)):
            if not names[index].startswith(name_prefix):
                return
            yield folder + names[index]

    def _find_first_index(self, folder: bytes, names: list[bytes]) -> int:
        """Return the index of the first name that follows `start_after`, or of the subfolder that contains it."""
        if not self.start_after.startswith(folder):
            return 0 if folder > self.start_after else len(names)
        remaining_key = self.start_after[len(folder) :]
        subfolder = remaining_key[: remaining_key.find(b"/") + 1]
        is_inside = bool(subfolder) and not remaining_key.startswith(PREFIX_END, len(subfolder))
        index = bisect_left(names, subfolder) if is_inside else len(names)
        return index if names[index : index + 1] == [subfolder] else bisect_right(names, remaining_key)

    def _read_object(self, key: bytes) -> Iterator[KeyEntry]:
        with suppress(FileNotFoundError, NotADirectoryError):  # the file or its folder was deleted during the walk
            status = os.lstat(self.root + b"/" + key)
            if stat.S_ISREG(status.st_mode):
                yield KeyEntry(key, status.st_size, status.st_mtime_ns)

    def _contains_key(self, folder: bytes) -> bool:
        """Return whether a folder has any key that follows `start_after`."""
        if self.start_after.startswith(folder):
            return any(replace(self, prefix=folder, groups_by_folder=False))
        unread_folders = [folder]
        while unread_folders:
            current_folder = unread_folders.pop()
            if self.find_marker(current_folder) is not None:
                return True
            with suppress(FileNotFoundError, NotADirectoryError):  # the folder was deleted or replaced during the walk
                for name in scan_names(self.root + b"/" + current_folder, current_folder):
                    if not name.endswith(b"/"):
                        return True
                    unread_folders.append(current_folder + name)
        return False
