"""Extraction of `.tar.gz` archives that may be damaged or malicious. Standard library only."""

import errno
import gzip
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO

from microjobs.errors import UserError

MAX_MEMBERS = 100_000
MAX_DEPTH = 64
"""Maximum number of parts of a member's path: its folders and its own name."""
MAX_HEADER_BYTES = 1 << 20
"""Maximum size of a member's header, which tarfile reads in one piece."""
MAX_RATIO = 100
"""Maximum size of the extracted files, as a multiple of the archive's size. The multiple of real models is below 10."""
ALWAYS_ALLOWED_BYTES = 1 << 30
"""Total size of extracted files that is always allowed, even if it exceeds MAX_RATIO."""

_INVALID_NAME_ERRORS = (
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
)
"""Error numbers that invalid names in an archive cause. Other error numbers mean a problem of the disk."""


def unpack(archive: Path, folder: Path) -> None:
    """Extract a `.tar.gz` archive into a new `folder`. If the extraction fails, `folder` is not created.

    Raises:
        UserError: the archive is missing, damaged or not a `.tar.gz` archive; a member would leave the folder, is too
            deep, or is not a file, a folder or a link; or there are too many members, or they would be much larger than
            the archive.
    """
    if not archive.exists():
        raise UserError(f"{archive} does not exist")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
        partial = Path(work) / "model"
        partial.mkdir()
        try:
            _Extraction(archive, partial).run()
        except UserError:
            raise
        except Exception as error:  # tarfile raises errors of many types for malicious archives
            if isinstance(error, OSError) and error.errno not in (None, *_INVALID_NAME_ERRORS):
                error.filename = error.filename or str(folder)
                raise
            raise UserError(
                f"{archive.name} is not a complete tar archive: {error}: copy it or create it again"
            ) from error
        partial.rename(folder)


class _BoundedGzipFile(gzip.GzipFile):
    """Refuses large reads. tarfile reads a header in one piece, so a header with a false size would fill the
    memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


class _Extraction:
    """Extracts one archive into an empty folder."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive, self._folder, self._name = archive, folder, archive.name
        self._max_bytes = max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * archive.stat().st_size)
        self._links: list[tuple[Path, str]] = []

    def run(self) -> None:
        with _BoundedGzipFile(self._archive) as content, tarfile.TarFile(fileobj=content) as tar:
            size = 0
            for count, member in enumerate(tar, start=1):
                size += member.size
                if size > self._max_bytes or count > MAX_MEMBERS:
                    raise self._make_bomb_error()
                self._extract(tar, member)
            self._make_links()
            self._read_to_end(content)

    def _extract(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._folder / self._make_relative_path(member.name)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.isfile() and (content := tar.extractfile(member)):
            _write(content, path, executable=bool(member.mode & 0o100))
        elif member.islnk():
            self._make_hard_link(member, path)
        elif member.issym():
            self._check_link(member)
            self._links.append((path, member.linkname))
        else:
            raise UserError(
                f"{self._name}: {member.name!r} is not a file, a folder or a link; remove it from the archive"
            )

    def _make_hard_link(self, member: tarfile.TarInfo, path: Path) -> None:
        source = self._folder / self._make_relative_path(member.linkname)
        if not source.is_file():
            raise UserError(
                f"{self._name}: {member.name!r} is a hard link to {member.linkname!r}, which is not an earlier file of "
                "the archive: create the archive again"
            )
        path.hardlink_to(source)

    def _check_link(self, member: tarfile.TarInfo) -> None:
        # this call raises an error if the link leads out of the folder
        self._make_relative_path(str(PurePosixPath(member.name).parent / member.linkname))
        if not leads_inside(PurePosixPath(member.name), member.linkname):
            raise UserError(
                f"{self._name}: {member.name!r} links to {member.linkname!r}, possibly outside of the archive: refused"
            )

    def _make_links(self) -> None:
        """Make symbolic links after all files and folders, so that no file or link is written through another link."""
        for path, _ in self._links:
            path.parent.mkdir(parents=True, exist_ok=True)
        for path, link_target in self._links:
            path.symlink_to(link_target)
            if not path.resolve().is_relative_to(self._folder.resolve()):
                raise UserError(f"{self._name}: {path.name!r} links out of the archive: refused")

    def _read_to_end(self, content: gzip.GzipFile) -> None:
        """Read the rest of the content, because gzip verifies the checksum at the end."""
        while content.read(MAX_HEADER_BYTES):
            if content.tell() > self._max_bytes + MAX_MEMBERS * 1024 + ALWAYS_ALLOWED_BYTES:
                raise self._make_bomb_error()

    def _make_relative_path(self, member: str) -> PurePosixPath:
        """Return the path of a member below the folder.

        Raises:
            UserError: the path leaves the folder, or it is too deep.
        """
        parts: list[str] = []
        for part in PurePosixPath(member).parts:
            if part == "/" or (part == ".." and not parts) or "\0" in part:
                raise UserError(f"{self._name}: {member!r} leaves the archive's folder: refused")
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        if len(parts) > MAX_DEPTH:
            raise UserError(
                f"{self._name}: {member[:80]!r}… is refused, because its path has more than {MAX_DEPTH} parts: "
                "use fewer folders"
            )
        return PurePosixPath(*parts)

    def _make_bomb_error(self) -> UserError:
        return UserError(
            f"{self._name} would unpack to more than {self._max_bytes} bytes or {MAX_MEMBERS} members: refused "
            "(possible decompression bomb)"
        )


def _write(content: IO[bytes], path: Path, *, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o755 if executable else 0o644)


def leads_inside(link: PurePosixPath, target: str) -> bool:
    """Return whether a link in a folder stays in the folder, regardless of the targets of other links.

    `..` is allowed only at the start of the target. `a/../b` leaves the folder if `a` is a link to the top of the
    folder, but this is known only when all links exist.
    """
    parts = PurePosixPath(target).parts
    parent_count = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return not target.startswith("/") and ".." not in parts[parent_count:] and parent_count < len(link.parts)
