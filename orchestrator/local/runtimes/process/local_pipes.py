"""Named pipes of processes, in the host's folder."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

POLL_INTERVAL = 0.02
"""Seconds between two attempts to open a pipe. The kernel reports no reader, other than by a blocking call."""


def pour(path: Path, has_ended: Callable[[], bool], chunks: Iterable[bytes]) -> bool:
    """Fill a pipe of this machine, as `pipes.Pour` describes.

    Args:
        has_ended: returns whether the host has ended.
    """
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
    while (descriptor := _open_writer(path)) is None:
        if has_ended():
            return False
        time.sleep(POLL_INTERVAL)
    os.set_blocking(descriptor, True)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
            for chunk in chunks:
                file.write(chunk)
    except BrokenPipeError:  # the reader has closed the pipe, or has ended
        pass
    return not has_ended()


def _open_writer(path: Path) -> int | None:
    """Open a pipe for writing; return None if no process has opened it for reading."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
