"""Checkpoints of a training job: each one whole or set aside, the newest good one to go on from.

    checkpoints/
      checkpoint-000007/        what the trainer wrote, and checkpoint.json, which is written last
      checkpoint-000006.torn/   not whole: left as it was found, and never gone on from
      .checkpoint-000008        being written, or being removed; gone at the next start

SageMaker copies the folder to S3 while the job runs and back before it starts again, file by file in no order that it
promises, so a checkpoint may also come back in part. Standard library only.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microjobs.contract import Layout, checkpoints_are_kept, read_checkpoint_folder
from microjobs.errors import UserError
from microjobs.files import disk_full_named

MANIFEST = "checkpoint.json"
TORN = ".torn"
OURS = ".made-by-the-job"
"""Marks a folder that nobody gave the job: it is removed when the job is done."""
SAVE_SHARE = 50
"""Saves between epochs take no more than one part in so many of the time."""

_NAME = re.compile(r"checkpoint-(\d{6,})(?:\.torn)?")

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class Checkpoint:
    """One good checkpoint: the files that the trainer wrote, and the state that it gave with them."""

    folder: Path
    epoch: int
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run in a folder, which may hold other things too.

    Args:
        folder: where they lie; made at the first save.
        identity: what must be equal for a run to go on, as JSON has it; differences are told by its names.
        keep: how many are kept.
        temporary: whether the folder is only there for the job to be started again, and goes when it is done. If it
            cannot be made, nothing is saved (`enabled` is false).
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int, *, temporary: bool = False) -> None:
        self.folder = folder
        self.temporary = temporary or (folder / OURS).exists()
        # A read-only container may have no room for what nobody asked for.
        self.enabled = not temporary or folder.is_dir() or os.access(folder.parent, os.W_OK)
        self._identity = json.loads(json.dumps(identity))  # as it will be read again
        self._keep = keep
        self._next_save = 0.0

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last save for another one not to slow the training down."""
        return self.enabled and time.monotonic() >= self._next_save

    def restore(self) -> Checkpoint | None:
        """The newest good checkpoint, None if there is none; what is torn above it is set aside with a warning.

        Raises:
            UserError: it is of other hyperparameters, data or surroundings; each difference is named.
        """
        _remove_leftovers(self.folder)
        for folder in reversed(self._folders()):
            try:
                content = _read(folder)
            except ValueError as reason:
                _set_aside(folder, str(reason))
                continue
            self._check(folder, content["identity"])
            return Checkpoint(folder, content["epoch"], content["state"])
        return None

    def save(self, epoch: int, write: Callable[[Path], None], state: Mapping[str, object]) -> None:
        """Add a checkpoint, whole or not at all, and remove the oldest beyond those that are kept.

        Args:
            epoch: the epochs that are done.
            write: writes the trainer's files into the folder that it is given.
            state: what else the trainer wants back, as JSON.
        """
        if not self.enabled:
            return
        start = time.monotonic()
        self._make_folder()
        number = max((_number(path) for path in _ours(self.folder)), default=0) + 1
        final = self.folder / f"checkpoint-{number:06}"
        with _removed_on_error(_hidden(final)) as partial:
            write(partial)
            files = {path.relative_to(partial).as_posix(): _describe(path) for path in _files(partial)}
            content = {"epoch": epoch, "identity": self._identity, "state": dict(state), "files": files}
            (partial / MANIFEST).write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
            _to_disk(partial)
            partial.rename(final)
        _sync(self.folder)
        for old in self._folders()[: -self._keep]:
            _remove(old)
        self._next_save = time.monotonic() + SAVE_SHARE * (time.monotonic() - start)

    def close(self) -> None:
        """Remove the folder if it is temporary, because the job is done."""
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """The checkpoints that may be good, oldest first."""
        return sorted((path for path in _ours(self.folder) if path.suffix != TORN), key=_number)

    def _check(self, folder: Path, identity: Mapping[str, Any]) -> None:
        names = dict.fromkeys([*identity, *self._identity])
        there, here = ({name: known.get(name, "unknown") for name in names} for known in (identity, self._identity))
        differences = [f"{name} {there[name]} there, {here[name]} here" for name in names if there[name] != here[name]]
        if differences:
            raise UserError(
                f"{folder} is a checkpoint of another training: {'; '.join(differences)}. Give them as they were to go "
                "on, or empty the folder or name another one in CheckpointConfig to train anew"
            )

    def _make_folder(self) -> None:
        if self.folder.is_dir():
            return
        self.folder.mkdir(parents=True)
        if self.temporary:
            (self.folder / OURS).touch()
        if os.getuid() == 0:  # what lies in the user's folder is the user's
            owner = self.folder.parent.stat()
            os.chown(self.folder, owner.st_uid, owner.st_gid)


def job_checkpoints(layout: Layout, identity: Mapping[str, Any], keep: int) -> Checkpoints:
    """The checkpoints of this job, where its platform wants them.

    Without a place of their own they are written all the same, for a container that is started again on the same
    folder; but they go when the job is done, so that the next training in that folder is a new one.
    """
    return Checkpoints(read_checkpoint_folder(layout), identity, keep, temporary=not checkpoints_are_kept(layout))


# --- one checkpoint ---


def _read(folder: Path) -> dict[str, Any]:
    """The manifest of a whole checkpoint. Raises ValueError, saying why, for one that is not."""
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {str(name): (int(file["bytes"]), str(file["sha256"])) for name, file in content["files"].items()}
        if not {"epoch", "identity", "state"} <= content.keys():
            raise KeyError(MANIFEST)
    except OSError as error:
        raise ValueError(f"{MANIFEST}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{MANIFEST} is not whole") from None
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != size:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, not {size}")
        if _digest(path) != digest:
            raise ValueError(f"{name} does not hold what was written")
    return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _to_disk(folder: Path) -> None:
    """A rename may reach the disk before the content does: after a power cut the name would be there, and empty."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- names in the folder ---


def _ours(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found is not None  # noqa: S101  only names that match come here
    return int(found[1])


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}")


@contextlib.contextmanager
def _removed_on_error(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    try:
        with disk_full_named(folder.parent):
            yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _remove(folder: Path) -> None:
    """Under another name: half removed it would look torn."""
    hidden = _hidden(folder)
    shutil.move(folder, hidden)  # a folder that came with an overlay's lower layer cannot be renamed
    shutil.rmtree(hidden)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(".checkpoint-*"):
        if _NAME.fullmatch(path.name.removeprefix(".")):
            shutil.rmtree(path)


def _set_aside(folder: Path, reason: str) -> None:
    aside = folder.with_name(folder.name + TORN)
    logger.warning("checkpoint %s is torn: %s; set aside as %s", folder, reason, aside.name)
    shutil.rmtree(aside, ignore_errors=True)
    shutil.move(folder, aside)
