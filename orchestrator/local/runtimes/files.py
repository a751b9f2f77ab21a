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
from microjobs_orchestrator.local.trees import (
    FileType,
    FolderItem,
    Tree,
    TreeEntry,
    make_folders,
    make_link_entry,
    walk,
)
from microjobs_orchestrator.terminal import escape_bytes

logger = logging.getLogger(__name__)

COPY_BYTES = 1 << 30
"""Maximum number of bytes that the kernel copies in one call."""
READ_BYTES = 1 << 20


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree into a folder. A later change of the copy does not change the source.

    Files of an earlier copy are overwritten. Raise FileExistsError if the path of a symbolic link exists in the target.
    """
    make_folders(target)
    for item in walk(source):
        copy = target / item.name
        if item.type is FileType.FOLDER:
            copy.mkdir(exist_ok=True)
        elif item.type is FileType.LINK:
            copy.symlink_to(item.read_link())
        else:
            copy_file(str(source / item.name), str(copy))


def copy_file(source: str, target: str) -> None:
    """Copy a file's content and mode, and make the copy writable for its owner."""
    with open(source, "rb") as reader, open(target, "wb") as writer:  # noqa: PTH123
        _copy_content(reader.fileno(), writer.fileno())
        os.fchmod(writer.fileno(), os.fstat(reader.fileno()).st_mode & 0o777 | 0o600)


def _copy_content(reader: int, writer: int) -> None:
    """Copy a file's data, and keep its holes. On some file systems, both files share the data until one is changed."""
    size, position = os.fstat(reader).st_size, 0
    while (data_range := _find_next_data(reader, position, size)) is not None:
        start, position = data_range
        _copy_range(reader, writer, start, position)
    os.truncate(writer, size)


def _find_next_data(file: int, position: int, size: int) -> tuple[int, int] | None:
    """Return the start and the end of the next data of a file; None if only a hole follows."""
    if position >= size:
        return None
    try:
        start = os.lseek(file, position, os.SEEK_DATA)
        return start, os.lseek(file, start, os.SEEK_HOLE)
    except OSError as error:
        # ENXIO means that a hole ends the file. Other errors mean that the file system does not support holes.
        return None if error.errno == errno.ENXIO else (position, size)


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    # An error means that the files are on different file systems, or that their file system does not support this call.
    with contextlib.suppress(OSError):
        while start < end and (
            copied := os.copy_file_range(reader, writer, min(end - start, COPY_BYTES), start, start)
        ):
            start += copied
    while start < end and (block := os.pread(reader, min(end - start, READ_BYTES), start)):
        start += os.pwrite(writer, block, start)


def make_read_only(folder: Path) -> None:
    """Remove all write permissions of a tree. Root can still write to it."""
    for item in walk(folder):
        if item.type is not FileType.LINK:
            os.chmod(item.base_name, stat.S_IMODE(item.status.st_mode) & ~0o222, dir_fd=item.folder_descriptor)
    folder.chmod(folder.stat().st_mode & ~0o222)


def collect(source: Path, target: Path, *, use_hard_links: bool) -> Tree | None:
    """Copy the files of a folder, or one file, of a host. Return their tree; None if the source does not exist.

    The contents become numbered files in the folder `target`; only the tree has the names, the folders and the links.
    Links that lead out of the folder, and special files such as pipes, are left out with a warning. Files that are
    deleted during the copy are left out, too. Raise CannotRunError if a file does not fit on the device of `target`, or
    cannot be read.

    Args:
        use_hard_links: make hard links instead of copies, and make unreadable folders of the source readable. Set this
            only if no process writes to the files any more: a later write would also change the collected contents.
    """
    if not os.path.lexists(source):
        return None
    target.mkdir(parents=True, exist_ok=True)
    space, tree = FreeSpace(target, ARTIFACT_UPLOAD), Tree()
    for item in _list_items(source, make_readable=use_hard_links):
        try:
            entry = _collect_item(item, target / str(len(tree)), space, use_hard_links=use_hard_links)
        except FileNotFoundError:  # the file was deleted during the copy
            continue
        except PermissionError as error:
            reason = f"{escape_bytes(item.name)} cannot be read: {error.strerror}"
            raise CannotRunError(f"ClientError: {ARTIFACT_UPLOAD} failed: {reason}") from error
        if entry is not None:
            tree[item.name] = entry
    return tree


def _list_items(source: Path, *, make_readable: bool) -> Iterator[FolderItem]:
    if source.is_dir() and not source.is_symlink():
        yield from walk(source, make_readable=make_readable)
        return
    folder_descriptor = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield FolderItem(source.name, source.lstat(), folder_descriptor)
    finally:
        os.close(folder_descriptor)


def _collect_item(item: FolderItem, content_file: Path, space: FreeSpace, *, use_hard_links: bool) -> TreeEntry | None:
    if item.type is FileType.FOLDER:
        return TreeEntry(FileType.FOLDER, stat.S_IMODE(item.status.st_mode), item.status.st_mtime)
    if item.type is FileType.LINK:
        return make_link_entry(item.name, item.read_link())
    if item.type is not FileType.FILE:
        logger.warning("left out: %s is neither a file nor a folder", escape_bytes(item.name))
        return None
    is_linked = use_hard_links and _make_hard_link(item, content_file)
    space.reserve(item.name, item.status.st_size, item.status.st_blocks * 512 if is_linked else 0)
    if not is_linked:
        _copy_item(item, content_file)
    return TreeEntry.from_status(item.status, content_file)


def _make_hard_link(item: FolderItem, target: Path) -> bool:
    """Make a hard link to an item. Return False if this is impossible, so that the item must be copied."""
    try:
        os.link(item.base_name, target, src_dir_fd=item.folder_descriptor, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # the files are on different file systems
        return False
    return True


def _copy_item(item: FolderItem, target: Path) -> None:
    mode = item.status.st_mode
    if not mode & 0o400 and os.getuid() == item.status.st_uid:
        os.chmod(item.base_name, stat.S_IMODE(mode) | 0o400, dir_fd=item.folder_descriptor)
    with (
        open(os.open(item.base_name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=item.folder_descriptor), "rb") as reader,  # noqa: PTH123
        target.open("wb") as writer,
    ):
        _copy_content(reader.fileno(), writer.fileno())
