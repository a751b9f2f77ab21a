"""Looking into the buckets' folders without following links, and with names exactly as they are on the disk."""

import errno
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

from microjobs_orchestrator.local.trees import FileType, walk


class BucketFiles:
    """The folders and files below `root`; paths are relative to it, and begin with the bucket."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folds_names = _folds_names(root.parent)

    def stat(self, relative: Path) -> os.stat_result | None:
        """What is at a path: not what a link there points to, and nothing behind a link."""
        found: os.stat_result | None = None
        path = self._root
        for name in relative.parts:
            parent, path = path, path / name
            try:
                found = path.lstat()
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                    return None
                raise
            is_last = path == self._root / relative
            if not is_last and not stat.S_ISDIR(found.st_mode):
                return None
            if self._folds_names and name not in _names(parent):
                return None
        return found

    def is_folder(self, relative: str) -> bool:
        """Whether there is a folder; not for a path that no key can have, such as one with `..`."""
        segments = relative.removesuffix("/").split("/")
        if not {"", ".", ".."}.isdisjoint(segments) or "\0" in relative:
            return False
        found = self.stat(Path(*segments))
        return found is not None and stat.S_ISDIR(found.st_mode)

    def obstacle(self, relative: Path, *, folder: bool) -> str | None:
        """Why a file (or a folder) cannot be put at a path; None if it can, also in place of a file, or empty folders.

        A folder marker in such folders is not seen here.
        """
        for part in (*reversed(relative.parents[:-2]), relative):
            reason = self._in_the_way(part, folder=folder or part != relative)
            if reason is not None:
                return reason
        return None

    def _in_the_way(self, relative: Path, *, folder: bool) -> str | None:
        key = relative.relative_to(relative.parts[0]).as_posix()
        if (other := self._other_spelling(relative)) is not None:
            return f"this file system takes {key!r} for {other!r}, which is there already"
        found = self.stat(relative)
        if found is None:
            return None
        if folder:
            return None if stat.S_ISDIR(found.st_mode) else f"{key!r} is an object or a link, not a folder"
        if stat.S_ISDIR(found.st_mode):
            held = any(found.type is not FileType.FOLDER for found in walk(self._root / relative))
            return f"there are objects whose keys begin with {key + '/'!r}" if held else None
        return None if stat.S_ISREG(found.st_mode) else "something that is not a plain file is in its place"

    def prune(self, relative: Path, is_kept: Callable[[Path], bool]) -> None:
        """Remove a folder and those around it as far as they are empty; a bucket's own folder stays."""
        while len(relative.parts) > 1 and not is_kept(relative):
            try:
                (self._root / relative).rmdir()
            except OSError:  # not empty, or gone
                return
            relative = relative.parent

    def remove_empty(self, relative: Path) -> None:
        """Remove a folder and those in it. Raises OSError if there is a file."""
        folder = self._root / relative
        for found in [*walk(folder)][::-1]:  # not recursive: folders may be very deep
            (folder / found.name).rmdir()
        folder.rmdir()

    def _other_spelling(self, relative: Path) -> str | None:
        """The name on the disk that the file system takes for the path's last one, such as `Train` for `train`."""
        path = self._root / relative
        if not self._folds_names or not os.path.lexists(path):
            return None
        names = _names(path.parent)
        if path.name in names:
            return None
        return next((name for name in names if os.path.samestat((path.parent / name).lstat(), path.lstat())), path.name)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _folds_names(folder: Path) -> bool:
    """Whether the file system takes names that differ only in case for one."""
    probe = folder / f"Probe-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.with_name(probe.name.lower()).exists()
    finally:
        probe.unlink()
