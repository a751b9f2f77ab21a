"""Named pipes of processes: made and filled in the host's own folder."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

LOOK_SECONDS = 0.02


def pour(path: Path, has_ended: Callable[[], bool], chunks: Iterable[bytes]) -> bool:
    """As `pipes.Pour`, for a path of this machine; `has_ended` tells of the host."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
    while (descriptor := _opened(path)) is None:
        if has_ended():
            return False
        time.sleep(LOOK_SECONDS)
    os.set_blocking(descriptor, True)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
            for chunk in chunks:
                file.write(chunk)
    except BrokenPipeError:  # the reader has closed it, or has ended
        pass
    return not has_ended()


def _opened(path: Path) -> int | None:
    """The pipe for writing; None if nobody has it open for reading yet."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
