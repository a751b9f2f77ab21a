"""Lock of a home, which shows the process that serves the home.

The server holds the lock until its process ends, and only the home's owner can open the file. Therefore, the process
that a locked file names is the server of this home, even if another program listens on the server's port.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from microjobs_orchestrator.local.home import Home

LOCK_TIMEOUT_SECONDS = 2.0
"""Seconds for which a starting server retries, because `find_holder` in other processes holds the lock for a short
time."""


class HeldError(Exception):
    """Another server holds the lock."""


@contextmanager
def hold(home: Home) -> Iterator[None]:
    """Create the home, if it does not exist, and hold its lock within the block.

    Raises:
        HeldError: another process holds the lock.
        HomeError: the home cannot be created.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        home.create()  # also for each retry, because the holder may be `microjobs clean home`, which removes the folder
        with home.lock.open("a+") as file:
            if _try_lock(file.fileno(), fcntl.LOCK_EX) and is_current(home, file.fileno()):
                home.create()  # the previous holder may have removed folders after the call above
                file.truncate(0)
                file.write(f"{os.getpid()} {_read_start_time(os.getpid())}")
                file.flush()
                yield
                return
        if time.monotonic() > deadline:
            raise HeldError
        time.sleep(0.05)


def is_current(home: Home, descriptor: int) -> bool:
    """Return whether an open file is the lock file of a home. `microjobs clean` may have removed the file since it was
    opened, and other processes then do not see a lock on this file."""
    try:
        return os.path.samestat(os.fstat(descriptor), home.lock.stat())
    except FileNotFoundError:
        return False


def find_holder(home: Home) -> int | None:
    """Return the id of the process that serves a home; None if no process serves it."""
    try:
        with home.lock.open() as file:
            if _try_lock(file.fileno(), fcntl.LOCK_SH):
                return None
            pid, _, start_time = file.read().partition(" ")
    except FileNotFoundError:
        return None
    return int(pid) if pid.isdigit() and start_time == _read_start_time(int(pid)) else None


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_start_time(pid: int) -> str:
    """Return the start of a process, in clock ticks since the boot. It differs if another process reuses the id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
