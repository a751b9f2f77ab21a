"""Access to the files of buckets, which follows no links and compares names exactly."""

import errno
import os
import stat
from pathlib import Path

from microjobs_orchestrator.local.trees import FileType, is_valid_name, walk


class BucketFiles:
    """The files and folders of all buckets. Paths are relative to `root` and begin with the bucket's name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ignores_case = root.with_name(root.name.swapcase()).exists()  # file systems of macOS ignore case

    def stat(self, relative_path: Path) -> os.stat_result | None:
        """Return the status of a file, folder or link; None if it does not exist or a parent folder is a link."""
        status: os.stat_result | None = None
        path = str(self._root)
        for name in relative_path.parts:
            if status is not None and not stat.S_ISDIR(status.st_mode):
                return None
            path += f"/{name}"
            status = _lstat(path)
            if status is None or not self._has_exact_name(path):
                return None
        return status

    def is_folder(self, relative_path: str) -> bool:
        """Return whether a folder exists. The result is False for paths that are not keys, such as paths with `..`."""
        name = relative_path.removesuffix("/")
        status = self.stat(Path(name)) if is_valid_name(name) else None
        return status is not None and stat.S_ISDIR(status.st_mode)

    def find_obstacle(self, relative_path: Path, *, is_folder: bool) -> str | None:
        """Return the reason why a file or a folder cannot be created at a path in a bucket; None if it can be created.

        A file can replace a file, or a folder with only empty folders. This method does not consider folder markers.
        """
        parent_paths = reversed(relative_path.parents[:-2])  # without the last two, which are the bucket and `.`
        for path in (*parent_paths, relative_path):
            status = _lstat(f"{self._root}/{path}")
            if status is None:
                return None
            if not self._has_exact_name(f"{self._root}/{path}"):
                folder = self._root / path.parent
                names = [item.name for item in folder.iterdir() if item.name.lower() == path.name.lower()]
                return f"this file system ignores case, and {' or '.join(map(repr, names))} exists already"
            reason = self._describe_conflict(path, status.st_mode, is_folder=is_folder or path != relative_path)
            if reason is not None:
                return reason
        return None

    def _has_exact_name(self, path: str) -> bool:
        """Return whether an existing file has exactly this name."""
        return not self._ignores_case or Path(path) in Path(path).parent.iterdir()

    def _describe_conflict(self, relative_path: Path, mode: int, *, is_folder: bool) -> str | None:
        key = "/".join(relative_path.parts[1:])
        if is_folder:
            return None if stat.S_ISDIR(mode) else f"{key!r} is an object or a link, not a folder"
        if stat.S_ISDIR(mode):
            has_files = any(item.type is not FileType.FOLDER for item in walk(self._root / relative_path))
            return f"there are objects whose keys begin with {key + '/'!r}" if has_files else None
        return None if stat.S_ISREG(mode) else "a special file or a link exists at its path"

    def replace(self, relative_path: Path, file: Path) -> None:
        """Move a file to a path, where it replaces a file or a folder that contains only empty folders."""
        path = self._root / relative_path
        if path.is_dir():
            self.remove_empty(relative_path)
        file.replace(path)

    def remove_empty(self, relative_path: Path) -> None:
        """Remove a folder that contains only empty folders. Raises OSError if it contains a file."""
        folder = self._root / relative_path
        for item in [*walk(folder)][::-1]:  # this loop does not recurse, because folders may be very deep
            (folder / item.name).rmdir()
        folder.rmdir()


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)  # noqa: PTH116  Path is slow
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise
