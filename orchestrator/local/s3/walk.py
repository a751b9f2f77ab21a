"""A bucket's folder as a sorted list of keys, read only as far as it is asked for.

Keys are bytes here: S3 sorts keys by their UTF-8, and file names are bytes.
"""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from orchestrator.local.s3.keys import KEY_LIMIT

BEYOND = b"\xff"
"""`prefix + BEYOND` sorts behind every key with that prefix: UTF-8 has no such byte."""


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
    is_folder: Callable[[bytes], bool]
    """Whether a prefix such as `a/b/` can be entered: no links on the way, names spelled as on the disk."""
    prefix: bytes = b""
    after: bytes = b""
    markers: Collection[bytes] = ()
    """The keys of folder markers."""
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
        if folder in self.markers and folder.startswith(self.prefix) and folder > self.after:
            yield Entry(folder)
        for key, found in self._scan(folder):
            if found is None:
                if not self.fold:
                    yield key
                elif any(replace(self, prefix=key, fold=False)):
                    yield Entry(key, folded=True)
                continue
            try:
                yield Entry(key, found.stat(follow_symlinks=False))
            except FileNotFoundError:  # deleted meanwhile
                continue

    def _scan(self, folder: bytes) -> list[tuple[bytes, "os.DirEntry[bytes] | None"]]:
        """The files and, with None, the folders in a folder that can matter, sorted as their keys are."""
        wanted: list[tuple[bytes, os.DirEntry[bytes] | None]] = []
        try:
            with os.scandir(self.root + b"/" + folder) as found:
                for item in found:
                    key = folder + item.name
                    if item.is_dir(follow_symlinks=False):
                        if self._may_hold(key + b"/"):
                            wanted.append((key + b"/", None))
                    elif item.is_file(follow_symlinks=False) and self._is_wanted(key):
                        wanted.append((key, item))
        except (FileNotFoundError, NotADirectoryError):  # deleted or replaced meanwhile
            return []
        return sorted(wanted, key=lambda pair: pair[0])

    def _may_hold(self, folder: bytes) -> bool:
        matches = folder.startswith(self.prefix) or self.prefix.startswith(folder)
        return matches and (folder > self.after or self.after.startswith(folder)) and _is_key(folder)

    def _is_wanted(self, key: bytes) -> bool:
        return key.startswith(self.prefix) and key > self.after and _is_key(key)


def _is_key(name: bytes) -> bool:
    """Whether a file dropped in by hand has a name that is a key."""
    if len(name) > KEY_LIMIT:
        return False
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
