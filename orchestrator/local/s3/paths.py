"""Access to the files of buckets, which follows no links and compares names exactly."""

import errno
import os
import stat
import uuid
from pathlib import Path

from microjobs_orchestrator.local.trees import FileType, walk


class BucketFiles:
    """The files and folders of all buckets. Paths are relative to `root` and begin with the bucket's name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ignores_case = _ignores_case(root.parent)

    def stat(self, relative: Path) -> os.stat_result | None:
        """Return the status of a file, folder or link; None if it does not exist or a parent folder is a link."""
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
            if self._ignores_case and name not in _names(parent):
                return None
        return found

    def is_folder(self, relative: str) -> bool:
        """Return whether a folder exists. Paths that are not keys, such as those with `..`, do not exist."""
        segments = relative.removesuffix("/").split("/")
        if not {"", ".", ".."}.isdisjoint(segments) or "\0" in relative:
            return False
        found = self.stat(Path(*segments))
        return found is not None and stat.S_ISDIR(found.st_mode)

    def obstacle(self, relative: Path, *, folder: bool) -> str | None:
        """Return why a file (or a folder) cannot be created at a path; None if it can.

        A file can replace a file, or a folder with only empty folders. Folder markers are not considered.
        """
        for part in (*reversed(relative.parents[:-2]), relative):
            reason = self._obstacle_at(part, folder=folder or part != relative)
            if reason is not None:
                return reason
        return None

    def _obstacle_at(self, relative: Path, *, folder: bool) -> str | None:
        key = relative.relative_to(relative.parts[0]).as_posix()
        if (other := self._other_spelling(relative)) is not None:
            return f"this file system ignores case, and {other!r} exists already"
        found = self.stat(relative)
        if found is None:
            return None
        if folder:
            return None if stat.S_ISDIR(found.st_mode) else f"{key!r} is an object or a link, not a folder"
        if stat.S_ISDIR(found.st_mode):
            has_files = any(found.type is not FileType.FOLDER for found in walk(self._root / relative))
            return f"there are objects whose keys begin with {key + '/'!r}" if has_files else None
        return None if stat.S_ISREG(found.st_mode) else "a special file or a link exists at its path"

    def replace(self, relative: Path, file: Path) -> None:
        """Move a file to a path, in place of a file or of a folder of empty folders."""
        path = self._root / relative
        if path.is_dir():
            self.remove_empty(relative)
        file.replace(path)

    def remove_empty(self, relative: Path) -> None:
        """Remove a folder of empty folders. Raises OSError if it contains a file."""
        folder = self._root / relative
        for found in [*walk(folder)][::-1]:  # not recursive: folders may be very deep
            (folder / found.name).rmdir()
        folder.rmdir()

    def _other_spelling(self, relative: Path) -> str | None:
        """Return the name of an existing file that differs only in case, such as `Train` for `train`."""
        path = self._root / relative
        if not self._ignores_case or not os.path.lexists(path):
            return None
        names = _names(path.parent)
        if path.name in names:
            return None
        return next((name for name in names if os.path.samestat((path.parent / name).lstat(), path.lstat())), path.name)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _ignores_case(folder: Path) -> bool:
    """Return whether the file system ignores the case of names."""
    probe = folder / f"Probe-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.with_name(probe.name.lower()).exists()
    finally:
        probe.unlink()
