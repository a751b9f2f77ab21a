"""Folders of any depth: what hosts leave, and what is given to them.

What a host left is a `Tree`: names and kinds in memory, and the content of each file in a file of its own with a short
name. So neither the depth of folders, the length of paths nor links matter, and no name becomes a path of this machine.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

from microjobs.archives import leads_inside
from microjobs_orchestrator.local.runtimes.process import process_shim
from microjobs_orchestrator.terminal import printable

logger = logging.getLogger(__name__)

MAX_PART_BYTES = 2000
"""Of a path that is passed to the system at once, which takes 4,096."""


class Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a folder or a link of a tree."""

    kind: Kind
    mode: int = 0o755
    modified: float = 0.0
    """Seconds since 1970."""
    size: int = 0
    content: Path | None = None
    """Of a file: where its content is."""
    target: str = ""
    """Of a link: where it leads, relative to its folder."""

    @classmethod
    def of(cls, status: os.stat_result, content: Path) -> "Entry":
        """A file."""
        return cls(Kind.FILE, stat.S_IMODE(status.st_mode), status.st_mtime, status.st_size, content)


Tree = dict[str, Entry]
"""By their names relative to the tree's folder, `a/b`, each folder before what is in it."""


def parent(name: str) -> str:
    """`a/b` of `a/b/c`, and nothing of `a`."""
    return name.rpartition("/")[0]


def is_plain(name: str) -> bool:
    """Whether a name is a path below the folder."""
    return not {"", ".", ".."}.intersection(name.split("/")) and "\0" not in name


def link(name: str, target: str) -> Entry | None:
    """A link that leads to something inside its tree; None, with a warning, for any other."""
    if is_plain(name) and leads_inside(PurePosixPath(name), target):
        return Entry(Kind.LINK, 0o777, target=target)
    logger.warning("left out: the link %s leads to %s, outside of its folder", printable(name), printable(target))
    return None


def in_order(tree: Tree) -> list[str]:
    """The names, each folder before what is in it, and in the order of names within it."""
    return sorted(tree, key=lambda name: name.split("/"))


# --- folders of this machine ---


def remove(folder: Path) -> None:
    """Remove a tree of any depth, folders that a job made read-only too. Harmless if it is not there.

    Raises:
        OSError: something in it cannot be removed; all else is gone.
    """
    process_shim.remove_tree(str(folder))


def discard(folder: Path) -> None:
    """Remove a tree as far as possible; what stays is logged, for the next start to try again."""
    try:
        remove(folder)
    except OSError as error:
        logger.warning("%s could not be removed: %s", folder, error)


def make_folders(folder: Path) -> None:
    """Make a folder and those around it, without a call for each level on the stack."""
    for part in [*reversed(folder.parents), folder]:
        try:
            part.mkdir()
        except FileExistsError:
            if not part.is_dir():
                raise
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not part.is_dir():
                raise


@dataclass(frozen=True, slots=True)
class Found:
    """Something in a folder that is being walked through."""

    name: str
    """Relative to the top, `a/b`."""
    status: os.stat_result
    folder: int
    """A descriptor of the folder that it is in, open until the next one is asked for."""

    @property
    def base(self) -> str:
        return self.name.rpartition("/")[2]

    def target(self) -> str:
        """Where a link leads."""
        return os.readlink(self.base, dir_fd=self.folder)

    @property
    def kind(self) -> Kind | None:
        """None for pipes, sockets and devices."""
        mode = self.status.st_mode
        kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}
        return kinds.get(stat.S_IFMT(mode))


def walk(top: Path, *, opening: bool = False) -> Iterator[Found]:
    """All that is below a folder, each folder before what is in it. Links are not followed, what vanishes is left out.

    Two descriptors are open at a time, and no path is longer than the system takes, so that depth does not matter.

    Args:
        opening: folders that cannot be read are made readable.
    """
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        waiting = [""]
        while waiting:
            name = waiting.pop()
            try:
                with _opened(root, name, opening=opening) as folder:
                    for found in _look(folder, name):
                        if found.kind is Kind.FOLDER:
                            waiting.append(found.name)
                        yield found
            except FileNotFoundError:
                continue
    finally:
        os.close(root)


def _look(folder: int, name: str) -> Iterator[Found]:
    for base in sorted(os.listdir(folder)):
        try:
            status = os.stat(base, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield Found(f"{name}/{base}" if name else base, status, folder)


@contextmanager
def _opened(root: int, name: str, *, opening: bool) -> Iterator[int]:
    """A descriptor of the folder of a name, however long."""
    folder = os.dup(root)
    try:
        for part in _parts(name):
            inner = _open_folder(part, folder, opening=opening)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _open_folder(path: str, folder: int, *, opening: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(path, flags, dir_fd=folder)
    except PermissionError:
        if not opening:
            raise
        os.chmod(path, 0o700, dir_fd=folder)
        return os.open(path, flags, dir_fd=folder)


def _parts(name: str) -> Iterable[str]:
    """A name in parts that the system takes."""
    names = name.split("/") if name else []
    part: list[str] = []
    size = 0
    for each in names:
        length = len(os.fsencode(each)) + 1
        if part and size + length > MAX_PART_BYTES:
            yield "/".join(part)
            part, size = [], 0
        part.append(each)
        size += length
    if part:
        yield "/".join(part)
