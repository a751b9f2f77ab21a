"""The model bundle: what both trainers write and what serve and batch-score run.

    model.onnx       the model, whatever trained it: input (rows, features) float32 scaled, output (rows, 1)
    manifest.json    framework, features, signatures, metrics, hyperparameters
    scaler.json      what preprocessing fitted; absent if the data was never scaled
    1/ or model.pth  the framework's own format

Standard library only; `microjobs.predictor` runs the model.
"""

import contextlib
import errno
import gzip
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from microjobs.errors import UserError
from microjobs.files import write_whole
from microjobs.scaler import Scaler, read_scaler

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
ARCHIVE_FILE = "model.tar.gz"

SERVING_DEFAULT = "serving_default"
"""Signature that takes features as the model was trained on them (scaled)."""
RAW = "raw"
"""Signature that takes features as they were measured, and scales them with the bundle's scaler."""

MAX_FEATURES = 1_000_000
MAX_MEMBERS = 100_000
MAX_DEPTH = 64
MAX_HEADER_BYTES = 1 << 20
"""Of a member; tarfile reads a header whole, whatever size it says."""
MAX_RATIO = 100
"""An archive may unpack to this many times its own size; real models stay below 10."""
SMALL = 1 << 30
"""Below this many bytes unpacked, the ratio does not matter."""


_REFUSED = (
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
)
"""What the system says to names that contradict each other; anything else is the disk's fault."""


@dataclass(frozen=True)
class Manifest:
    """manifest.json: what the model is, so that nobody has to load it to know."""

    framework: str
    features: int
    signatures: tuple[str, ...] = (SERVING_DEFAULT, RAW)
    metrics: Mapping[str, float] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A model folder that was read and found whole."""

    folder: Path
    manifest: Manifest
    scaler: Scaler | None

    @property
    def model(self) -> Path:
        return self.folder / MODEL_FILE


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json. Last of all: a folder that has it is a whole bundle."""
    write_whole(folder / MANIFEST_FILE, json.dumps(asdict(manifest), indent=1).encode())


def read_bundle(folder: Path) -> Bundle:
    """Read a model folder.

    Raises:
        UserError: a file is missing or not what the trainers write.
    """
    for name in (MODEL_FILE, MANIFEST_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: it is not a model bundle of the train jobs")
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        manifest = Manifest(
            framework=str(content["framework"]),
            features=int(content["features"]),
            signatures=tuple(str(name) for name in content["signatures"]),
            metrics=dict(content["metrics"]),
            hyperparameters=dict(content["hyperparameters"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{folder / MANIFEST_FILE} is not a manifest ({error!r}): train the model again") from error
    if not 1 <= manifest.features <= MAX_FEATURES:
        raise UserError(f"{folder / MANIFEST_FILE} has {manifest.features} features: train the model again")
    scaler = read_scaler(folder)
    if scaler is not None and scaler.features != manifest.features:
        raise UserError(f"{folder}: the scaler has {scaler.features} features, the model {manifest.features}")
    return Bundle(folder, manifest, scaler)


def unpack(archive: Path, folder: Path) -> None:
    """Extract a model archive (.tar.gz) into a new `folder`: whole, or not at all.

    Raises:
        UserError: not such an archive, damaged, or a member that would leave the folder, is no plain file,
            or unpacks to far more than the archive's size.
    """
    if not archive.exists():
        raise UserError(f"{archive} does not exist")
    limit = max(SMALL, MAX_RATIO * archive.stat().st_size)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
        partial = Path(work) / "model"
        partial.mkdir()
        try:
            with _Careful(archive) as content, tarfile.TarFile(fileobj=content) as tar:
                _extract(tar, partial, limit, archive.name)
                _read_to_end(content, limit, archive.name)
        except UserError:
            raise
        except Exception as error:  # tarfile raises nearly anything on archives made to harm
            if isinstance(error, OSError) and error.errno not in (None, *_REFUSED):
                error.filename = error.filename or str(folder)
                raise
            raise UserError(f"{archive.name} is not a whole tar archive: {error}: copy or make it again") from error
        partial.rename(folder)


class _Careful(gzip.GzipFile):
    """Reads little at a time, as contents are: a header that says it is large would fill the memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


@contextlib.contextmanager
def extracted(folder: Path) -> Iterator[Path]:
    """The model's files: the folder itself or, where it holds the archive as training left it, a temporary one.

    Raises:
        UserError: the archive is not safe or not whole.
    """
    archive = folder / ARCHIVE_FILE
    if not archive.is_file() or (folder / MANIFEST_FILE).exists():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="model-") as work:
        unpack(archive, Path(work) / "model")
        yield Path(work) / "model"


def _extract(tar: tarfile.TarFile, folder: Path, limit: int, name: str) -> None:
    size = 0
    links: list[tuple[Path, str]] = []
    for count, member in enumerate(tar, start=1):
        target = folder / _inside(member.name, name)
        size += member.size
        if size > limit or count > MAX_MEMBERS:
            raise UserError(f"{name} unpacks to more than {limit} bytes or {MAX_MEMBERS} members: refused as a bomb")
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.isfile() and (content := tar.extractfile(member)):
            _write(content, target, executable=bool(member.mode & 0o100))
        elif member.islnk() and (source := folder / _inside(member.linkname, name)).is_file():
            target.hardlink_to(source)
        elif member.issym():
            _check_link(member, name)
            links.append((target, member.linkname))
        else:
            raise UserError(f"{name}: {member.name!r} is neither a file nor a folder: refused")
    _make_links(links, folder, name)


def _read_to_end(content: gzip.GzipFile, limit: int, name: str) -> None:
    """Behind the last member too: only at its end does gzip compare its checksum with what was unpacked."""
    while content.read(MAX_HEADER_BYTES):
        if content.tell() > limit + MAX_MEMBERS * 1024 + SMALL:
            raise UserError(f"{name} unpacks to more than {limit} bytes: refused as a bomb")


def _write(content: IO[bytes], target: Path, *, executable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)
    target.chmod(0o755 if executable else 0o644)


def _check_link(member: tarfile.TarInfo, name: str) -> None:
    _inside(str(PurePosixPath(member.name).parent / member.linkname), name)
    if not leads_inside(PurePosixPath(member.name), member.linkname):
        raise UserError(f"{name}: {member.name!r} links to {member.linkname!r}: refused")


def _make_links(links: list[tuple[Path, str]], folder: Path, name: str) -> None:
    """Last, so that no member is written through one, nor a link made through another."""
    for target, _ in links:
        target.parent.mkdir(parents=True, exist_ok=True)
    for target, link in links:
        target.symlink_to(link)
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{name}: {target.name!r} links out of the archive: refused")


def leads_inside(link: PurePosixPath, target: str) -> bool:
    """Whether a link in a folder stays in it wherever other links there lead: `..` is for the link's own parents only.

    `a/../b` leaves by a link `a` to the folder's top, and no look at the files tells it before all links are made.
    """
    parts = PurePosixPath(target).parts
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return not target.startswith("/") and ".." not in parts[up:] and up < len(link.parts)


def _inside(member: str, archive: str) -> PurePosixPath:
    """The member's path, if it stays inside the folder the archive is extracted to."""
    parts: list[str] = []
    for part in PurePosixPath(member).parts:
        if part == "/" or (part == ".." and not parts) or "\0" in part:
            raise UserError(f"{archive}: {member!r} leaves the archive's folder: refused")
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    if len(parts) > MAX_DEPTH:
        raise UserError(f"{archive}: {member[:80]!r}… lies more than {MAX_DEPTH} folders deep: refused")
    return PurePosixPath(*parts)
