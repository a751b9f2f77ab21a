"""Copies of files to and from hosts."""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from microjobs_orchestrator.local.runtimes.archives import ARTIFACT_UPLOAD
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.space import FreeSpace
from microjobs_orchestrator.local.trees import Entry, FileType, FolderItem, Tree, make_folders, make_link_entry, walk
from microjobs_orchestrator.terminal import escape_bytes

logger = logging.getLogger(__name__)

COPY_BYTES = 1 << 30
"""Bytes that the kernel copies in one call."""
READ_BYTES = 1 << 20


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree into a folder. A later change of the copy does not change the source."""
    make_folders(target)
    for found in walk(source):
        copy = target / found.name
        if found.type is FileType.FOLDER:
            copy.mkdir(exist_ok=True)
        elif found.type is FileType.LINK:
            copy.symlink_to(found.read_link())
        else:
            copy_file(str(source / found.name), str(copy))


def copy_file(source: str, target: str) -> None:
    """Copy a file's content and mode, and make the copy writable for its owner."""
    with open(source, "rb") as reader, open(target, "wb") as writer:  # noqa: PTH123
        _copy_content(reader.fileno(), writer.fileno())
        os.fchmod(writer.fileno(), os.fstat(reader.fileno()).st_mode & 0o777 | 0o600)


def _copy_content(reader: int, writer: int) -> None:
    """Copy a file's data, and keep its holes. On some file systems, both files share the data until one is changed."""
    size, position = os.fstat(reader).st_size, 0
    while (part := _next_data(reader, position, size)) is not None:
        start, position = part
        _copy_range(reader, writer, start, position)
    os.truncate(writer, size)


def _next_data(file: int, position: int, size: int) -> tuple[int, int] | None:
    """Return where the next data of a file begin and end; None if only a hole follows."""
    if position >= size:
        return None
    try:
        start = os.lseek(file, position, os.SEEK_DATA)
        return start, os.lseek(file, start, os.SEEK_HOLE)
    except OSError as error:
        # ENXIO: a hole until the end. Other errors: the file system does not support holes.
        return None if error.errno == errno.ENXIO else (position, size)


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    # An error: the files are on different file systems, or their file system does not support this call.
    with contextlib.suppress(OSError):
        while start < end and (
            copied := os.copy_file_range(reader, writer, min(end - start, COPY_BYTES), start, start)
        ):
            start += copied
    while start < end and (block := os.pread(reader, min(end - start, READ_BYTES), start)):
        start += os.pwrite(writer, block, start)


def make_read_only(folder: Path) -> None:
    """Remove all write permissions of a tree. Root can still write to it."""
    for found in walk(folder):
        if found.type is not FileType.LINK:
            os.chmod(found.base_name, stat.S_IMODE(found.status.st_mode) & ~0o222, dir_fd=found.folder_descriptor)
    folder.chmod(folder.stat().st_mode & ~0o222)


def collect(source: Path, target: Path, *, link: bool) -> Tree | None:
    """Copy a folder or a file of a host into the folder `target`. Return the tree; None if the source does not exist.

    Links that lead out of the folder and special files, such as pipes, are left out with a warning. Files that are
    deleted meanwhile are left out, too. With `link`, hard links replace copies; set it only if no process writes to
    the files any more. Raise CannotRunError if a file does not fit on this device, or cannot be read.
    """
    if not os.path.lexists(source):
        return None
    target.mkdir(parents=True, exist_ok=True)
    space, tree = FreeSpace(target, ARTIFACT_UPLOAD), Tree()
    for found in _items(source, make_readable=link):
        try:
            entry = _collect_item(found, target / str(len(tree)), space, link=link)
        except FileNotFoundError:  # deleted meanwhile
            continue
        except PermissionError as error:
            reason = f"{escape_bytes(found.name)} cannot be read: {error.strerror}"
            raise CannotRunError(f"ClientError: {ARTIFACT_UPLOAD} failed: {reason}") from error
        if entry is not None:
            tree[found.name] = entry
    return tree


def _items(source: Path, *, make_readable: bool) -> Iterator[FolderItem]:
    if source.is_dir() and not source.is_symlink():
        yield from walk(source, make_readable=make_readable)
        return
    folder = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield FolderItem(source.name, source.lstat(), folder)
    finally:
        os.close(folder)


def _collect_item(found: FolderItem, content: Path, space: FreeSpace, *, link: bool) -> Entry | None:
    if found.type is FileType.FOLDER:
        return Entry(FileType.FOLDER, stat.S_IMODE(found.status.st_mode), found.status.st_mtime)
    if found.type is FileType.LINK:
        return make_link_entry(found.name, found.read_link())
    if found.type is not FileType.FILE:
        logger.warning("left out: %s is neither a file nor a folder", escape_bytes(found.name))
        return None
    is_linked = link and _make_hard_link(found, content)
    space.reserve(found.name, found.status.st_size, found.status.st_blocks * 512 if is_linked else 0)
    if not is_linked:
        _copy_item(found, content)
    return Entry.from_status(found.status, content)


def _make_hard_link(found: FolderItem, content: Path) -> bool:
    try:
        os.link(found.base_name, content, src_dir_fd=found.folder_descriptor, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # another file system
        return False
    return True


def _copy_item(found: FolderItem, target: Path) -> None:
    mode = found.status.st_mode
    if not mode & 0o400 and os.getuid() == found.status.st_uid:
        os.chmod(found.base_name, stat.S_IMODE(mode) | 0o400, dir_fd=found.folder_descriptor)
    with (
        open(os.open(found.base_name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=found.folder_descriptor), "rb") as reader,  # noqa: PTH123
        target.open("wb") as writer,
    ):
        _copy_content(reader.fileno(), writer.fileno())
