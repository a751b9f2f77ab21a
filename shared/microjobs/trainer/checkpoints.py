"""Checkpoints of a training job. The job resumes from the newest complete checkpoint. Damaged checkpoints are set
aside.

    checkpoints/
      checkpoint-000007/        the trainer's files and the manifest checkpoint.json, which is written last
      checkpoint-000006.torn/   damaged: set aside, kept unchanged, and never used
      .checkpoint-000008        incomplete, or partly removed: deleted at the next start

SageMaker copies the folder to S3 while the job runs, and copies it back before the job restarts. It copies single files
in no defined order, so a checkpoint may come back incomplete. This module uses only the standard library.
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
from microjobs.files import report_full_disk

MANIFEST = "checkpoint.json"
DAMAGED_SUFFIX = ".torn"
TEMPORARY_MARK = ".made-by-the-job"
"""Name of the file that marks a temporary folder, which is removed when the job is complete."""
TRAINING_PER_SAVE_TIME = 50
"""Minimum training time between two saves, as a multiple of the time that the last save took."""

_NAME_PATTERN = re.compile(r"checkpoint-\d{6,}(\.torn)?")

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the trainer's files and its state."""

    folder: Path
    epoch: int
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one job in a folder, which may contain other files.

    Args:
        folder: the folder of the checkpoints; the first save creates it.
        fingerprint: JSON values that determine the results of this job. A job resumes only from a checkpoint with equal
            values.
        max_count: maximum number of complete checkpoints in the folder.
        is_temporary: whether `close` removes the folder. If a temporary folder cannot be created, nothing is saved
            (`is_enabled` is false).
    """

    def __init__(
        self, folder: Path, fingerprint: Mapping[str, Any], max_count: int, *, is_temporary: bool = False
    ) -> None:
        self.folder = folder
        self.is_temporary = is_temporary or (folder / TEMPORARY_MARK).exists()
        # In a read-only container, a temporary folder cannot be created. The job then runs without checkpoints.
        self.is_enabled = not is_temporary or folder.is_dir() or os.access(folder.parent, os.W_OK)
        # The values are converted to the types that a manifest contains, such as lists instead of tuples.
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._max_count = max_count
        self._next_save_time = 0.0

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last save; more frequent saves would slow the training down."""
        return self.is_enabled and time.monotonic() >= self._next_save_time

    def restore(self) -> Checkpoint | None:
        """Return the newest complete checkpoint, if there is one. Set newer, damaged checkpoints aside, with a warning.

        Raises:
            UserError: the checkpoint belongs to another training; the message lists the differences.
        """
        _remove_leftovers(self.folder)
        for folder in reversed(self._list_usable_folders()):
            try:
                manifest = _read_manifest(folder)
            except ValueError as reason:
                _set_aside(folder, str(reason))
                continue
            self._check_fingerprint(folder, manifest["identity"])
            return Checkpoint(folder, manifest["epoch"], manifest["state"])
        return None

    def save(self, epoch: int, write: Callable[[Path], None], state: Mapping[str, object]) -> None:
        """Add a complete checkpoint, or none if an error occurs. Then remove the oldest checkpoints, so that at most
        `max_count` remain.

        Args:
            epoch: number of complete epochs.
            write: a function that writes the trainer's files into a folder.
            state: other JSON values of the trainer.
        """
        if not self.is_enabled:
            return
        start = time.monotonic()
        self._make_folder()
        number = max((_parse_number(path) for path in _list_checkpoint_folders(self.folder)), default=0) + 1
        final_folder = self.folder / f"checkpoint-{number:06}"
        with _new_folder(self.folder / f".{final_folder.name}") as new_folder:
            write(new_folder)
            paths = sorted(path for path in new_folder.rglob("*") if path.is_file())
            files = {
                path.relative_to(new_folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _compute_digest(path)}
                for path in paths
            }
            manifest = {"epoch": epoch, "identity": self._fingerprint, "state": dict(state), "files": files}
            (new_folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")
            # Files are flushed before the rename: otherwise, the renamed folder could have empty files after a power
            # failure.
            for path in (*new_folder.rglob("*"), new_folder):
                _flush_to_disk(path)
            new_folder.rename(final_folder)
        _flush_to_disk(self.folder)
        for old_folder in self._list_usable_folders()[: -self._max_count]:
            # The folder is hidden before it is removed, because a partly removed checkpoint would look damaged.
            hidden_folder = old_folder.with_name(f".{old_folder.name}")
            # `move` copies the folder if necessary, because overlayfs cannot rename a folder of a lower layer
            shutil.move(old_folder, hidden_folder)
            shutil.rmtree(hidden_folder)
        self._next_save_time = time.monotonic() + TRAINING_PER_SAVE_TIME * (time.monotonic() - start)

    def close(self) -> None:
        """Remove the folder if it is temporary. The trainer calls this when the job is complete."""
        if self.is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _list_usable_folders(self) -> list[Path]:
        """Return the folders of all checkpoints that were not set aside, oldest first."""
        return sorted(
            (path for path in _list_checkpoint_folders(self.folder) if path.suffix != DAMAGED_SUFFIX), key=_parse_number
        )

    def _check_fingerprint(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        names = dict.fromkeys([*fingerprint, *self._fingerprint])
        old, new = (
            {name: values.get(name, "unknown") for name in names} for values in (fingerprint, self._fingerprint)
        )
        differences = [f"{name} was {old[name]}, is {new[name]}" for name in names if old[name] != new[name]]
        if differences:
            raise UserError(
                f"{folder} is a checkpoint of another training: {'; '.join(differences)}. "
                "Use the old values to resume; to start over, empty the folder or set another CheckpointConfig"
            )

    def _make_folder(self) -> None:
        if self.folder.is_dir():
            return
        self.folder.mkdir(parents=True)
        if self.is_temporary:
            (self.folder / TEMPORARY_MARK).touch()
        if os.getuid() == 0:  # the owner of the parent folder must be able to delete the new folder
            owner = self.folder.parent.stat()
            os.chown(self.folder, owner.st_uid, owner.st_gid)


def open_job_checkpoints(layout: Layout, fingerprint: Mapping[str, Any], max_count: int) -> Checkpoints:
    """Return the checkpoints of this job in the folder that the request names.

    Without such a folder, checkpoints are temporary: only a container that restarts with the same volume resumes from
    them, and they are removed when the job is complete.
    """
    return Checkpoints(
        read_checkpoint_folder(layout), fingerprint, max_count, is_temporary=not checkpoints_are_kept(layout)
    )


# --- one checkpoint ---


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {str(name): (int(file["bytes"]), str(file["sha256"])) for name, file in manifest["files"].items()}
        if not {"epoch", "identity", "state"} <= manifest.keys():
            raise KeyError(MANIFEST)
    except OSError as error:
        raise ValueError(f"{MANIFEST}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{MANIFEST} is incomplete") from None
    for name, (size, digest) in files.items():
        _check_file(folder / name, size, digest)
    return manifest


def _check_file(path: Path, size: int, digest: str) -> None:
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {size}")
    if _compute_digest(path) != digest:
        raise ValueError(f"{path.name} does not have the digest in the manifest")


def _compute_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- names in the folder ---


def _list_checkpoint_folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _NAME_PATTERN.fullmatch(path.name)] if folder.is_dir() else []


def _parse_number(path: Path) -> int:
    return int(path.name.removesuffix(DAMAGED_SUFFIX).removeprefix("checkpoint-"))


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Create a folder for the `with` block. Remove the folder if the block raises."""
    folder.mkdir()
    try:
        with report_full_disk(folder.parent):
            yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(".checkpoint-*"):
        if _NAME_PATTERN.fullmatch(path.name.removeprefix(".")):
            shutil.rmtree(path)


def _set_aside(folder: Path, reason: str) -> None:
    new_folder = folder.with_name(folder.name + DAMAGED_SUFFIX)
    logger.warning("checkpoint %s is damaged: %s; renamed to %s", folder, reason, new_folder.name)
    shutil.rmtree(new_folder, ignore_errors=True)
    shutil.move(folder, new_folder)
