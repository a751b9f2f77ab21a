"""Processes and their descendants. Standard library only."""

import contextlib
import os
import sys
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, as PID 1 always is."""
    if os.getpid() != 1 and sys.platform == "linux":
        import ctypes  # imported here, so that jobs in containers (PID 1) do not wait for the import

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(parent_pid: int, signal_number: int) -> None:
    """Let the kernel send a signal to this process when its parent ends, even if `kill -9` ends the parent.

    If the parent ended before this call, this process sends the signal to itself.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal_number)


def has_children() -> bool:
    """Return whether a child of this process, or an adopted orphan, is running or not reaped yet."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def find_children(parent_pid: int) -> list[int]:
    """Return the process IDs of the children of a process."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The process's name is in parentheses. It may contain spaces and parentheses, and may end within a UTF-8
            # character, because the kernel truncates it. The parent's process ID is the second field after the name.
            if stat.read_text(errors="replace").rpartition(")")[2].split()[1] == str(parent_pid):
                children.append(int(stat.parent.name))
    return children


def signal_group(group_id: int, signal_number: int) -> None:
    """Send a signal to a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group_id, signal_number)
