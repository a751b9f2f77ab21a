"""Tar streams to and from a container: what the engine's API takes and gives."""

import io
import logging
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.space import Room
from microjobs_orchestrator.local.trees import Entry, FileType, Tree, is_plain, link, parent, walk
from microjobs_orchestrator.terminal import escape_bytes

logger = logging.getLogger(__name__)

SPOOL_BYTES = 1 << 20
"""Archives up to this size stay in memory."""
BLOCK_BYTES = 1 << 20
ZEROS = bytes(BLOCK_BYTES)
UPLOAD = "Artifact upload"
MAX_ENGINE_PATH_BYTES = 4095 - 256
"""Of a folder in a container. Paths have 4,095 bytes at most and names 255: all that such a folder holds is found."""


@contextmanager
def packed(trees: Iterable[tuple[Path, str]]) -> Iterator[IO[bytes]]:
    """Trees as one archive to be put at `/`, each at its own absolute path, everything root's as on SageMaker."""
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
        with tarfile.open(fileobj=file, mode="w", dereference=True) as archive:
            for source, target in trees:
                for parent in reversed(PurePosixPath(target).parents[:-1]):
                    archive.addfile(_root_owned(_folder(parent)))
                _add(archive, source, target.lstrip("/"))
        file.seek(0)
        yield file


def _add(archive: tarfile.TarFile, source: Path, target: str) -> None:
    """Add a tree of any depth, links as what they lead to."""
    archive.addfile(_root_owned(archive.gettarinfo(source, target)))
    for found in walk(source):
        path = source / found.name
        if found.type is FileType.FILE or path.is_file():
            with path.open("rb") as file:
                archive.addfile(_root_owned(archive.gettarinfo(arcname=f"{target}/{found.name}", fileobj=file)), file)
        elif found.type is FileType.FOLDER:
            archive.addfile(_root_owned(archive.gettarinfo(path, f"{target}/{found.name}")))


def _folder(path: PurePosixPath) -> tarfile.TarInfo:
    info = tarfile.TarInfo(str(path).lstrip("/"))
    info.type = tarfile.DIRTYPE
    return info


def _root_owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.isdir() else 0o644 | (info.mode & 0o111)
    return info


def unpack(chunks: Iterable[bytes], to: Path, top: str = "") -> Tree:
    """Read an archive of one folder (or one file), and put the content of files into the folder `to`.

    Args:
        top: where the folder is in the container.

    Returns:
        What the folder holds; links that lead out of it, and devices, are left out with a warning.

    Raises:
        CannotRunError: a file is too large for this device, or a path too long for the engine.
    """
    to.mkdir(parents=True, exist_ok=True)
    room, tree = Room(to, UPLOAD), Tree()
    with tarfile.open(fileobj=io.BufferedReader(_Chunks(chunks)), mode="r|") as archive:
        for member in archive:
            vars(archive)["members"].clear()  # it keeps all of them
            root, _, inside = member.name.rstrip("/").partition("/")
            _check_length(top, inside)
            if (not inside and member.isdir()) or not is_plain(inside or root):
                continue
            if (inside or root) in tree or not _has_place(tree, inside or root):
                logger.warning("left out: %s is in the place of something else", escape_bytes(inside or root))
                continue
            if member.islnk():  # names another member, which has the same folder in front
                member.linkname = member.linkname.removeprefix(root + "/")
            entry = _entry(archive, member, inside or root, tree, to / str(len(tree)), room)
            if entry is not None:
                tree[inside or root] = entry
    return tree


def _has_place(tree: Tree, name: str) -> bool:
    """Whether a name is free, and what it is in are folders, which are made if they are not there."""
    missing = []
    while (name := parent(name)) and name not in tree:
        missing.append(name)
    if name and tree[name].type is not FileType.FOLDER:
        return False
    tree.update((folder, Entry(FileType.FOLDER)) for folder in reversed(missing))
    return True


def _check_length(top: str, name: str) -> None:
    """The engine leaves what has a longer path out of its archive, without an error."""
    if len(os.fsencode(f"{top}/{name}")) > MAX_ENGINE_PATH_BYTES:
        raise CannotRunError(
            f"ClientError: {UPLOAD} failed: the engine cannot copy paths over {MAX_ENGINE_PATH_BYTES} bytes, and there "
            f"is one that begins with {escape_bytes(name)[:100]}: write fewer or shorter folders"
        )


def _entry(
    archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, tree: Tree, content: Path, room: Room
) -> Entry | None:
    """A member of an archive, with its content written to a file."""
    if member.isdir():
        return Entry(FileType.FOLDER, member.mode, member.mtime)
    if member.issym():
        return link(name, member.linkname)
    if member.islnk():
        return _second_name(name, member.linkname, tree, content)
    source = archive.extractfile(member) if member.isfile() else None
    if source is None:
        logger.warning("left out: %s is neither a file nor a folder", escape_bytes(name))
        return None
    room.take(name, member.size)
    _write(source, content)
    return Entry(FileType.FILE, member.mode, member.mtime, member.size, content)


def _second_name(name: str, first: str, tree: Tree, content: Path) -> Entry | None:
    """A hard link to what was read already, which may be a link."""
    found = tree.get(first)
    if found is None or found.type is FileType.FOLDER:
        logger.warning(
            "left out: %s is another name of %s, which is no file here", escape_bytes(name), escape_bytes(first)
        )
        return None
    if found.content is None:
        return link(name, found.target)
    content.hardlink_to(found.content)
    return replace(found, content=content)


def _write(source: IO[bytes], path: Path) -> None:
    """Write a file with holes where there are only zeros."""
    with path.open("wb") as file:
        while block := source.read(BLOCK_BYTES):
            if block == ZEROS[: len(block)]:
                file.seek(len(block), os.SEEK_CUR)
            else:
                file.write(block)
        file.truncate()


class _Chunks(io.RawIOBase):
    """Chunks as a file to read from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's WriteableBuffer
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
