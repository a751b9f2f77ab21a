"""Lock of a home: which process serves it, as the kernel knows it.

The server holds the lock as long as it lives, however it ends, and only the home's owner can open the file. So the
process that is named in a locked file is the server of this home, whatever listens on the server's port.
"""

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from microjobs_orchestrator.local.home import Home

LOCK_SECONDS = 2.0
"""A look at the lock takes it for an instant: a server that starts meanwhile tries again."""


class HeldError(Exception):
    """Another server holds the lock."""


@contextmanager
def hold(home: Home) -> Iterator[None]:
    """Hold the lock in the name of this process.

    Raises:
        HeldError: another process holds it.
    """
    with home.lock.open("a+") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise HeldError
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"{os.getpid()} {_start_time(os.getpid())}")
        file.flush()
        yield


def find(home: Home) -> int | None:
    """The process that serves a home; None if none does."""
    try:
        with home.lock.open() as file:
            if _try_lock(file.fileno(), fcntl.LOCK_SH):
                return None
            pid, _, start_time = file.read().partition(" ")
    except FileNotFoundError:
        return None
    return int(pid) if pid.isdigit() and start_time == _start_time(int(pid)) else None


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start_time(pid: int) -> str:
    """When a process started, in any unit: a later process of the same id has another one."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return stat.read_text().rpartition(")")[2].split()[19]
        except (FileNotFoundError, ProcessLookupError):
            return ""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
