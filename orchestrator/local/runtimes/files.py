"""Files of a host: given to it, copied from it, removed with it."""

import contextlib
import errno
import logging
import os
import stat
from pathlib import Path

from microjobs_orchestrator.local import trees
from microjobs_orchestrator.local.runtimes.archives import UPLOAD
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.space import Room
from microjobs_orchestrator.local.trees import Entry, Found, Kind, Tree, make_folders, walk
from microjobs_orchestrator.local.trees import link as link_entry
from microjobs_orchestrator.terminal import printable

logger = logging.getLogger(__name__)

_CHUNK = 1 << 30


def give(source: Path, target: Path) -> None:
    """Copy a tree so that who writes into the copy does not change the source; what is there already is merged."""
    make_folders(target)
    for found in walk(source):
        copy = target / found.name
        if found.kind is Kind.FOLDER:
            copy.mkdir(exist_ok=True)
        elif found.kind is Kind.LINK:
            copy.symlink_to(found.target())
        else:
            clone(str(source / found.name), str(copy))


def clone(source: str, target: str) -> None:
    """Copy a file's content; the copy is the job's to write, and programs stay programs."""
    with open(source, "rb") as reader, open(target, "wb") as writer:  # noqa: PTH123
        _copy_content(reader.fileno(), writer.fileno())
        os.fchmod(writer.fileno(), os.fstat(reader.fileno()).st_mode & 0o777 | 0o600)


def _copy_content(reader: int, writer: int) -> None:
    """Copy data and leave holes; file systems that can share content until one side is written do so."""
    size, position = os.fstat(reader).st_size, 0
    while (part := _next_data(reader, position, size)) is not None:
        start, position = part
        _copy_range(reader, writer, start, position)
    os.truncate(writer, size)


def _next_data(file: int, position: int, size: int) -> tuple[int, int] | None:
    """Where the next data of a file begin and end; None if there are no more."""
    if position >= size:
        return None
    try:
        start = os.lseek(file, position, os.SEEK_DATA)
        return start, os.lseek(file, start, os.SEEK_HOLE)
    except OSError as error:
        # ENXIO: a hole until the end; anything else: a file system that knows no holes.
        return None if error.errno == errno.ENXIO else (position, size)


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    with contextlib.suppress(OSError):  # two file systems, or one that cannot
        while start < end and (copied := os.copy_file_range(reader, writer, min(end - start, _CHUNK), start, start)):
            start += copied
    while start < end and (block := os.pread(reader, min(end - start, 1 << 20), start)):
        start += os.pwrite(writer, block, start)


def protect(folder: Path) -> None:
    """Take the right to write into a tree from everybody; root does not ask for it."""
    for found in walk(folder):
        if found.kind is not Kind.LINK:
            os.chmod(found.base, stat.S_IMODE(found.status.st_mode) & ~0o222, dir_fd=found.folder)
    folder.chmod(folder.stat().st_mode & ~0o222)


def take(source: Path, to: Path, *, link: bool) -> Tree | None:
    """Copy what a folder holds, or a file; None if there is nothing. The content of files is put into the folder `to`.

    Links that lead to something outside, pipes and the like are left out, with a warning. What vanishes meanwhile is
    left out too.

    Args:
        link: nobody writes any more, so hard links do instead of copies.

    Raises:
        CannotRunError: a file does not fit on this device, or cannot be read.
    """
    if not os.path.lexists(source):
        return None
    to.mkdir(parents=True, exist_ok=True)
    taker = _Taker(to, link=link)
    if source.is_dir() and not source.is_symlink():
        for found in walk(source, opening=link):
            taker.take(found)
    else:
        folder = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            taker.take(Found(source.name, source.lstat(), folder))
        finally:
            os.close(folder)
    return taker.tree


class _Taker:
    """Makes a tree of what is found in a folder."""

    def __init__(self, to: Path, *, link: bool) -> None:
        self.tree = Tree()
        self._to = to
        self._link = link
        self._room = Room(to, UPLOAD)

    def take(self, found: Found) -> None:
        try:
            entry = self._entry(found)
        except FileNotFoundError:  # gone meanwhile
            return
        except PermissionError as error:
            what = f"{printable(found.name)} cannot be read: {error.strerror}"
            raise CannotRunError(f"ClientError: {UPLOAD} failed: {what}") from error
        if entry is not None:
            self.tree[found.name] = entry

    def _entry(self, found: Found) -> Entry | None:
        if found.kind is Kind.FOLDER:
            return Entry(Kind.FOLDER, stat.S_IMODE(found.status.st_mode), found.status.st_mtime)
        if found.kind is Kind.LINK:
            return link_entry(found.name, found.target())
        if found.kind is Kind.FILE:
            return self._file(found)
        logger.warning("left out: %s is neither a file nor a folder", printable(found.name))
        return None

    def _file(self, found: Found) -> Entry:
        content = self._to / str(len(self.tree))
        linked = self._link and self._hard_link(found, content)
        self._room.take(found.name, found.status.st_size, found.status.st_blocks * 512 if linked else 0)
        if not linked:
            _clone_found(found, content)
        return Entry.of(found.status, content)

    def _hard_link(self, found: Found, content: Path) -> bool:
        try:
            os.link(found.base, content, src_dir_fd=found.folder, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError:  # another file system
            return False
        return True


def _clone_found(found: Found, target: Path) -> None:
    mode = found.status.st_mode
    if not mode & 0o400 and os.getuid() == found.status.st_uid:
        os.chmod(found.base, stat.S_IMODE(mode) | 0o400, dir_fd=found.folder)
    with (
        open(os.open(found.base, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=found.folder), "rb") as reader,  # noqa: PTH123
        target.open("wb") as writer,
    ):
        _copy_content(reader.fileno(), writer.fileno())


remove = trees.remove
