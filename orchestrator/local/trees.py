"""Trees of files of any depth: inputs and outputs of hosts.

A `Tree` represents the files that a host wrote: their names and types are in memory, and the content of each file is in
a file with a short name. Therefore, deep folders, long paths and links are harmless, and no file name that the host
chose becomes a path of this machine.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

from microjobs.archives import leads_inside
from microjobs_orchestrator.local.runtimes.process import process_shim
from microjobs_orchestrator.terminal import escape_bytes

logger = logging.getLogger(__name__)

MAX_CALL_PATH_LENGTH = 1000
"""Maximum number of characters of a path in one system call. A character has up to 4 bytes, and the system allows 4,096
bytes."""


class FileType(Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file, a folder or a link of a tree."""

    type: FileType
    mode: int = 0o755
    modification_time: float = 0.0
    """Seconds since 1970."""
    size: int = 0
    content: Path | None = None
    """A file's content on this machine; None for folders and links."""
    target: str = ""
    """A link's target, relative to its folder; empty for files and folders."""

    @classmethod
    def from_status(cls, status: os.stat_result, content: Path) -> "TreeEntry":
        return cls(FileType.FILE, stat.S_IMODE(status.st_mode), status.st_mtime, status.st_size, content)


Tree = dict[str, TreeEntry]
"""Entries by name. Names are relative to the tree's folder, such as `a/b`. Each folder comes before its content."""


def get_parent(name: str) -> str:
    """Return the name of the folder that contains an entry: `a/b` for `a/b/c`, and an empty text for `a`."""
    return name.rpartition("/")[0]


def is_valid_name(name: str) -> bool:
    """Return whether a name is a path below the tree's folder."""
    return not {"", ".", ".."}.intersection(name.split("/")) and "\0" not in name


def make_link_entry(name: str, target: str) -> TreeEntry | None:
    """Return the entry of a link; None, with a warning, if it leads out of its tree."""
    if is_valid_name(name) and leads_inside(PurePosixPath(name), target):
        return TreeEntry(FileType.LINK, 0o777, target=target)
    logger.warning("left out: the link %s leads to %s, outside of its folder", escape_bytes(name), escape_bytes(target))
    return None


def sort_names(tree: Tree) -> list[str]:
    """Return the names sorted, each folder before its content."""
    return sorted(tree, key=lambda name: name.split("/"))


# --- folders of this machine ---


def remove(folder: Path) -> None:
    """Remove a tree of any depth, if it exists. Raises OSError if a part cannot be removed; all other parts are
    removed."""
    process_shim.remove_tree(str(folder))


def discard(folder: Path) -> None:
    """Remove a tree as far as possible. An error is only logged, so that the caller can continue."""
    try:
        remove(folder)
    except OSError as error:
        logger.warning("%s could not be removed: %s", folder, error)


def make_folders(folder: Path) -> None:
    """Make a folder and its parents. `Path.mkdir` recurses, so it fails for deep folders."""
    for path in [*reversed(folder.parents), folder]:
        try:
            path.mkdir()
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.EROFS, errno.EACCES, errno.EPERM) or not path.is_dir():
                raise


@dataclass(frozen=True, slots=True)
class FolderItem:
    """An item of a folder that `walk` has reached."""

    name: str
    """The name relative to the top folder, such as `a/b`."""
    status: os.stat_result
    folder_descriptor: int
    """The open descriptor of the item's folder. It is closed when the walk continues."""

    @property
    def base_name(self) -> str:
        return self.name.rpartition("/")[2]

    def read_link(self) -> str:
        return os.readlink(self.base_name, dir_fd=self.folder_descriptor)

    @property
    def type(self) -> FileType | None:
        """The type; None for pipes, sockets and devices."""
        types = {stat.S_IFREG: FileType.FILE, stat.S_IFDIR: FileType.FOLDER, stat.S_IFLNK: FileType.LINK}
        return types.get(stat.S_IFMT(self.status.st_mode))


def walk(top: Path, *, make_readable: bool = False) -> Iterator[FolderItem]:
    """Yield everything below a folder, each folder before its content.

    Links are not followed. Items that are deleted during the walk are left out. At most three descriptors are open at
    the same time, and no path exceeds the system's limit, so folders may be arbitrarily deep.

    Args:
        make_readable: change the mode of folders that cannot be read.
    """
    root_descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unread = [""]
        while unread:
            name = unread.pop()
            with (
                suppress(FileNotFoundError),
                _open_path(root_descriptor, name, make_readable=make_readable) as descriptor,
            ):
                for item in _list_items(descriptor, name):
                    if item.type is FileType.FOLDER:
                        unread.append(item.name)
                    yield item
    finally:
        os.close(root_descriptor)


def _list_items(folder_descriptor: int, name: str) -> Iterator[FolderItem]:
    for base in sorted(os.listdir(folder_descriptor)):
        with suppress(FileNotFoundError):
            status = os.stat(base, dir_fd=folder_descriptor, follow_symlinks=False)
            yield FolderItem(f"{name}/{base}" if name else base, status, folder_descriptor)


@contextmanager
def _open_path(root_descriptor: int, name: str, *, make_readable: bool) -> Iterator[int]:
    """Open a folder whose name may be longer than the system's limit."""
    folder_descriptor = os.dup(root_descriptor)
    try:
        while name:
            end = name.rindex("/", 0, MAX_CALL_PATH_LENGTH) if len(name) > MAX_CALL_PATH_LENGTH else len(name)
            inner = _open_folder(name[:end], folder_descriptor, make_readable=make_readable)
            os.close(folder_descriptor)
            folder_descriptor, name = inner, name[end + 1 :]
        yield folder_descriptor
    finally:
        os.close(folder_descriptor)


def _open_folder(path: str, folder_descriptor: int, *, make_readable: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(path, flags, dir_fd=folder_descriptor)
    except PermissionError:
        if not make_readable:
            raise
        os.chmod(path, 0o700, dir_fd=folder_descriptor)
        return os.open(path, flags, dir_fd=folder_descriptor)
