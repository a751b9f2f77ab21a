"""Tar archives, with which the engine's API copies files to and from containers."""

import io
import logging
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.space import FreeSpace
from microjobs_orchestrator.local.trees import (
    FileType,
    Tree,
    TreeEntry,
    get_parent,
    is_valid_name,
    make_link_entry,
    walk,
)
from microjobs_orchestrator.terminal import escape_bytes

logger = logging.getLogger(__name__)

SPOOL_BYTES = 1 << 20
"""Maximum size of an archive in memory."""
BLOCK_BYTES = 1 << 20
ZEROS = bytes(BLOCK_BYTES)
ARTIFACT_UPLOAD = "Artifact upload"
"""SageMaker's name for the copy of a job's files, at the beginning of error messages."""
MAX_ENGINE_PATH_BYTES = 4095 - 256
"""Length of the longest path that is copied: the system's limit for a path, less a slash and the longest name. A folder
with a longer path may contain items whose paths exceed the system's limit, and the engine silently omits those."""


@contextmanager
def pack(trees: Iterable[tuple[Path, str]]) -> Iterator[IO[bytes]]:
    """Yield an archive of trees, each with its absolute path in the container. As on SageMaker, root owns all files."""
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
        with tarfile.open(fileobj=file, mode="w", dereference=True) as archive:
            for source, target in trees:
                for folder in reversed(PurePosixPath(target).parents[:-1]):
                    info = tarfile.TarInfo(str(folder).lstrip("/"))
                    info.type = tarfile.DIRTYPE
                    archive.addfile(_normalize_owner_and_mode(info))
                _add(archive, source, target.lstrip("/"))
        file.seek(0)
        yield file


def pack_empty_file(path: str) -> bytes:
    """Return an archive of an empty file with an absolute path. An engine that extracts the archive replaces a folder
    at this path with the file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(_normalize_owner_and_mode(tarfile.TarInfo(path.lstrip("/"))))
    return file.getvalue()


def _add(archive: tarfile.TarFile, source: Path, target: str) -> None:
    """Add a tree of any depth. A link to a file becomes a file; other links are left out."""
    archive.addfile(_normalize_owner_and_mode(archive.gettarinfo(source, target)))
    for item in walk(source):
        path = source / item.name
        if item.type is FileType.FILE or path.is_file():
            with path.open("rb") as file:
                archive.addfile(
                    _normalize_owner_and_mode(archive.gettarinfo(arcname=f"{target}/{item.name}", fileobj=file)), file
                )
        elif item.type is FileType.FOLDER:
            archive.addfile(_normalize_owner_and_mode(archive.gettarinfo(path, f"{target}/{item.name}")))


def _normalize_owner_and_mode(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.isdir() else 0o644 | (info.mode & 0o111)
    return info


def unpack(chunks: Iterable[bytes], target: Path, top: str = "") -> Tree:
    """Read an archive of `top`, a folder or a file of a container. Write the content of each file into
    a numbered file in `target`.

    Return the tree of the archive, with the paths of the numbered files. Devices, and links that lead out of the
    folder, are left out, with a warning. Raise CannotRunError if a file does not fit on this machine's device, or a
    path is too long for the engine.
    """
    target.mkdir(parents=True, exist_ok=True)
    space, tree = FreeSpace(target, ARTIFACT_UPLOAD), Tree()
    with tarfile.open(fileobj=cast("Any", _ChunkReader(chunks)), mode="r|") as archive:
        for member in archive:
            vars(archive)["members"].clear()  # this saves memory, because tarfile would keep all members
            top_name, _, name_below_top = member.name.rstrip("/").partition("/")
            _check_length(top, name_below_top)
            name = name_below_top or top_name
            if (not name_below_top and member.isdir()) or not is_valid_name(name):
                continue
            if name in tree or not _add_parents(tree, name):
                logger.warning(
                    "left out: %s, because the archive has another item at this path or at a parent of it",
                    escape_bytes(name),
                )
                continue
            if member.islnk():  # unlike the names in the tree, the target of a hard link begins with the top folder
                member.linkname = member.linkname.removeprefix(top_name + "/")
            entry = _extract(archive, member, name, tree, target / str(len(tree)), space)
            if entry is not None:
                tree[name] = entry
    return tree


def _add_parents(tree: Tree, name: str) -> bool:
    """Add the missing parents of a name to the tree. Return False if one of the parents is not a folder."""
    missing = []
    while (name := get_parent(name)) and name not in tree:
        missing.append(name)
    if name and tree[name].type is not FileType.FOLDER:
        return False
    tree.update((folder, TreeEntry(FileType.FOLDER)) for folder in reversed(missing))
    return True


def _check_length(top: str, name: str) -> None:
    """Raise CannotRunError for a path that is too long. The engine may silently omit items below such a path."""
    if len(os.fsencode(f"{top}/{name}")) > MAX_ENGINE_PATH_BYTES:
        raise CannotRunError(
            f"ClientError: {ARTIFACT_UPLOAD} failed: the engine cannot copy paths of more than "
            f"{MAX_ENGINE_PATH_BYTES} bytes, such as {escape_bytes(name)[:100]}…: use fewer folders or shorter names"
        )


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, tree: Tree, content_file: Path, space: FreeSpace
) -> TreeEntry | None:
    """Write the content of a member to a file, and return its entry; None, with a warning, if it is left out."""
    if member.isdir():
        return TreeEntry(FileType.FOLDER, member.mode, member.mtime)
    if member.issym():
        return make_link_entry(name, member.linkname)
    if member.islnk():
        return _make_hard_link_entry(name, member.linkname, tree, content_file)
    source = archive.extractfile(member) if member.isfile() else None
    if source is None:
        logger.warning("left out: %s is neither a file nor a folder", escape_bytes(name))
        return None
    space.reserve(name, member.size)
    _write(source, content_file)
    return TreeEntry(FileType.FILE, member.mode, member.mtime, member.size, content_file)


def _make_hard_link_entry(name: str, target: str, tree: Tree, content_file: Path) -> TreeEntry | None:
    target_entry = tree.get(target)
    if target_entry is None or target_entry.type is FileType.FOLDER:
        logger.warning(
            "left out: %s is a hard link to %s, which is not a file", escape_bytes(name), escape_bytes(target)
        )
        return None
    if target_entry.content is None:
        return make_link_entry(name, target_entry.target)
    content_file.hardlink_to(target_entry.content)
    return replace(target_entry, content=content_file)


def _write(source: IO[bytes], path: Path) -> None:
    """Write a file. Blocks that contain only zeros become holes."""
    with path.open("wb") as file:
        while block := source.read(BLOCK_BYTES):
            if block == ZEROS[: len(block)]:
                file.seek(len(block), os.SEEK_CUR)
            else:
                file.write(block)
        file.truncate()


class _ChunkReader:
    """The part of a file's interface that tarfile needs to read a stream: blocks of any size, empty at the end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    def read(self, _size: int) -> bytes:
        return next(self._chunks, b"")
