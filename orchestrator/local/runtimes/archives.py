"""Tar streams to and from a container: what the engine's API takes and gives."""

import io
import logging
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from microjobs.bundle import leads_inside

logger = logging.getLogger(__name__)

SPOOL_BYTES = 1 << 20
"""Archives up to this size stay in memory."""


@contextmanager
def packed(trees: Iterable[tuple[Path, str]]) -> Iterator[IO[bytes]]:
    """Trees as one archive to be put at `/`, each at its own absolute path, everything root's as on SageMaker."""
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
        with tarfile.open(fileobj=file, mode="w", dereference=True) as archive:
            for source, target in trees:
                for parent in reversed(PurePosixPath(target).parents[:-1]):
                    archive.addfile(_root_owned(_folder(parent)))
                archive.add(source, target.lstrip("/"), filter=_root_owned)
        file.seek(0)
        yield file


def _folder(path: PurePosixPath) -> tarfile.TarInfo:
    info = tarfile.TarInfo(str(path).lstrip("/"))
    info.type = tarfile.DIRTYPE
    return info


def _root_owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.isdir() else 0o644 | (info.mode & 0o111)
    return info


def unpack(chunks: Iterable[bytes], to: Path) -> None:
    """Extract an archive of one folder (or one file) into `to`, without the folder's own name.

    Links stay links if they lead to something inside; devices and links to elsewhere are left out, with a warning.
    They are made last, so that nothing is written through one: Python's own filter looks where a path leads, and can be
    made to look wrongly by paths that are too long (CVE-2025-4517), or by second names of links (CVE-2025-4330).
    """
    to.mkdir(parents=True, exist_ok=True)
    links: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(fileobj=io.BufferedReader(_Chunks(chunks)), mode="r|") as archive:
        for member in archive:
            root, _, inside = member.name.partition("/")
            if not inside and member.isdir():
                continue
            member.name = inside or root
            if member.islnk():  # names another member, which has the same folder in front
                _second_name(member, member.linkname.removeprefix(root + "/"), links, to)
            elif member.issym():
                links[member.name] = member
            else:
                try:
                    archive.extract(member, to, filter="data")
                except tarfile.FilterError as error:
                    logger.warning("left out: %s", error)
    kept = [(name, link.linkname) for name, link in links.items() if _is_inside(name, link.linkname)]
    for name, _ in kept:  # all before the first link, so that none is made through another one
        (to / name).parent.mkdir(parents=True, exist_ok=True)
    for name, target in kept:
        (to / name).symlink_to(target)


def _second_name(member: tarfile.TarInfo, first: str, links: dict[str, tarfile.TarInfo], to: Path) -> None:
    """Make a hard link to what was extracted already, which may be a link."""
    if first in links:
        links[member.name] = links[first]
    elif _is_plain(first) and _is_plain(member.name) and (to / first).is_file():
        (to / member.name).parent.mkdir(parents=True, exist_ok=True)
        (to / member.name).hardlink_to(to / first)
    else:
        logger.warning("left out: %s is another name of %s, which is no file here", member.name, first)


def _is_inside(name: str, target: str) -> bool:
    if _is_plain(name) and leads_inside(PurePosixPath(name), target):
        return True
    logger.warning("left out: the link %s leads to %s, outside of its folder", name, target)
    return False


def _is_plain(name: str) -> bool:
    """Whether a name is a path below the folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


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
