"""Tar streams to and from a container: what the engine's API takes and gives."""

import io
import logging
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

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
    """
    to.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BufferedReader(_Chunks(chunks)), mode="r|") as archive:
        for member in archive:
            root, _, inside = member.name.partition("/")
            if not inside and member.isdir():
                continue
            if member.islnk():  # names another member, which has the same folder in front
                member.linkname = member.linkname.removeprefix(root + "/")
            member.name = inside or root
            try:
                archive.extract(member, to, filter="data")
            except tarfile.FilterError as error:
                logger.warning("left out: %s", error)


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
