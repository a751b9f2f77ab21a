"""Files that appear whole or not at all."""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to; it becomes `path` when the block succeeds, and is gone when it fails.

    It is not flushed to the disk: what a job wrote counts when the job has ended well, and no job outlives a power cut.

    Raises:
        OSError: among others that the disk is full; it names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a write names no file
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def together() -> Iterator[Callable[[Path], None]]:
    """Files that stay all or not at all: call it with each that was written; when the block fails they are removed."""
    written: list[Path] = []
    try:
        yield written.append
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """A folder, made if it is not there; what the block puts into it is removed when the block fails."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    try:
        yield
    except BaseException:
        for path in set(folder.iterdir()) - before:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    with whole(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_whole(path, content.encode())
