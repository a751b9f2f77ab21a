"""Files and folders that are written completely or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from microjobs.errors import FULL_DISK_ERRORS, JobError

PROBE_BYTES = 1 << 16
"""Size of the file that `report_full_disk` writes to find out whether the disk is full."""


@contextlib.contextmanager
def report_full_disk(path: Path) -> Iterator[None]:
    """If the `with` block fails and the disk of `path` is full, raise an OSError that names a file, by default `path`.

    Libraries report a full disk in their own words: PyTorch's RuntimeError says "unexpected pos 3904 vs 3856".
    """
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK_ERRORS:
            error.filename = error.filename or str(path)  # an error of a write has no file name
            raise
        if (number := _probe_disk(path if path.is_dir() else path.parent)) in FULL_DISK_ERRORS:
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _probe_disk(folder: Path) -> int:
    """Return the error number of a small write into the folder; 0 if it succeeds."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(PROBE_BYTES))
            file.write(b"0")  # the first write may store a part without an error
    except OSError as error:
        return error.errno or 0
    return 0


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path. The file is renamed to `path` if the `with` block succeeds, and removed if it fails.

    The file is not flushed to the disk: a power failure also ends the job, and only complete jobs have results.

    Raises:
        OSError: for example, the disk is full. The error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.partial")
    try:
        with report_full_disk(path):
            yield partial_path
            partial_path.replace(path)
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            error.filename = str(path)
        raise
    finally:
        partial_path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_group() -> Iterator[Callable[[Path], None]]:
    """Yield a function that registers a written file. If the block fails, all registered files are removed."""
    paths: list[Path] = []
    try:
        yield paths.append
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_fill(folder: Path) -> Iterator[None]:
    """Create the folder if it does not exist. If the `with` block fails, remove the files that it has added."""
    folder.mkdir(parents=True, exist_ok=True)
    existing_paths = set(folder.iterdir())
    try:
        with report_full_disk(folder):
            yield
    except BaseException:
        for path in set(folder.iterdir()) - existing_paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial_path:
        partial_path.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())
