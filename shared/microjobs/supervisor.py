"""Runs one job as an init process should: signals passed on, orphans reaped, nobody left behind.

`sagemaker-training` as PID 1 ignores SIGTERM and its child never hears of it, so a stopped job is always killed
(facts: aws/sagemaker-training-toolkit issues 125 and 173). Here the whole process group of the job gets the signal.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from microjobs.contract import Layout, write_failure

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
HANDLED = {*PASSED_ON, signal.SIGCHLD}
HELD_BACK = {signal.SIGTERM, signal.SIGINT}
"""What the job starts with blocked, and unblocks when it has its handlers: before, it would die of them."""

LEFTOVER_SECONDS = 5.0
"""What processes that the job left running get to end themselves, when nobody asked the job to stop."""

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def supervise(job: Callable[[], NoReturn], layout: Layout, grace: float) -> int:
    """Run a job in a process of its own to its end and return its exit code, 128 + N if signal N ended it.

    A job that ends badly without having said why gets a failure file that says what is known. The process is forked
    from this one: a new interpreter would cost each job a twentieth of a second.

    Args:
        job: ends its process, and unblocks SIGTERM and SIGINT when it is ready for them.
        layout: where the failure file goes, and whose folders are handed back to their owner.
        grace: seconds between the first stop signal and SIGKILL.
    """
    _adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    if (pid := os.fork()) == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED - HELD_BACK)
        job()
    with contextlib.suppress(OSError):  # here too: a signal to the group may come before the job has made it
        os.setpgid(pid, pid)
    watch = _Watch(pid, grace)
    status = watch.until_ended()
    watch.end_leftovers()
    code = os.waitstatus_to_exitcode(status)
    if code != 0 and watch.stop_signal is None:
        _explain(layout, code)
    if watch.out_of_time:
        _complain(layout, f"did not end within {grace:g} s of signal {watch.stop_signal}: killed")
    hand_back(layout)
    return 128 - code if code < 0 else code


class _Watch:
    """The job's process group from its start to the last process of it."""

    def __init__(self, pid: int, grace: float) -> None:
        self.pid = pid
        self.grace = grace
        self.stop_signal: int | None = None
        self.deadline: float | None = None
        self.out_of_time = False
        self._status: int | None = None

    def until_ended(self) -> int:
        while self._status is None:
            self._step()
        return self._status

    def end_leftovers(self) -> None:
        """Let what the job left running end: it has the stop signal already, or gets SIGTERM now."""
        if _anyone_left() and self.deadline is None:
            self._signal_all(signal.SIGTERM)
            self.deadline = time.monotonic() + LEFTOVER_SECONDS
        while _anyone_left():
            self._step()

    def _step(self) -> None:
        wait = 3600.0 if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        received = signal.sigtimedwait(HANDLED, wait)
        if received is None:
            if self.deadline is not None:
                self.out_of_time = self.out_of_time or (self._status is None)
                self._signal_all(signal.SIGKILL)
                self.deadline = time.monotonic() + 1.0
        elif received.si_signo in PASSED_ON:
            self._pass_on(received.si_signo)
        self._reap()

    def _pass_on(self, number: int) -> None:
        if number in STOPPING and self.deadline is None:
            self.stop_signal = number
            self.deadline = time.monotonic() + self.grace
        _kill_group(self.pid, number)

    def _signal_all(self, number: int) -> None:
        """The job's group, and what left the group and was adopted by us."""
        _kill_group(self.pid, number)
        for pid in children_of(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    self._status = ended[1]


def _adopt_orphans() -> None:
    """Become the parent of orphaned descendants, as PID 1 is; needed where we are not PID 1."""
    if os.getpid() != 1 and sys.platform == "linux":
        import ctypes  # not in a container, where each job would wait for it

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _anyone_left() -> bool:
    """Whether a child, our own or adopted, is still running (or not reaped yet)."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold spaces, and half a character; the parent is the second field after it.
            if stat.read_text(errors="replace").rpartition(")")[2].split()[1] == str(parent):
                found.append(int(stat.parent.name))
    return found


def _kill_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _explain(layout: Layout, code: int) -> None:
    """The failure file for a job that could not write one itself."""
    if layout.failure.exists():
        return
    if code == -signal.SIGKILL:
        _complain(layout, "killed by SIGKILL: most likely out of memory; use a larger instance or less data at a time")
    elif code < 0:
        _complain(layout, f"ended by {signal.Signals(-code).name}: a crash in native code; see the log above")
    else:
        _complain(layout, f"exited with code {code} without giving a reason; see the log above")


def _complain(layout: Layout, reason: str) -> None:
    print(f"ERROR {reason}", file=sys.stderr)
    with contextlib.suppress(OSError):
        write_failure(layout, reason)


def hand_back(layout: Layout) -> None:
    """Give what the job wrote to whoever owns the folder it was put in.

    SageMaker runs jobs as root, and there these folders are root's: nothing changes. On one's own machine they are
    mounted from the user's folders, and root-owned results could not even be deleted.
    """
    if os.getuid() != 0:
        return
    processing = layout.root / "processing"
    folders = [layout.model, layout.output, layout.output_data, layout.checkpoints]
    for folder in [*folders, *(processing.iterdir() if processing.is_dir() else [])]:
        with contextlib.suppress(OSError):  # read-only inputs stay as they are
            owner = folder.stat()
            if owner.st_uid != 0:
                _give(folder, owner.st_uid, owner.st_gid)


def _give(folder: Path, user: int, group: int) -> None:
    waiting = [folder]
    while waiting:  # not recursive: a job may nest its folders deeper than calls may be
        for path in waiting.pop().iterdir():
            if path.lstat().st_uid == 0:
                os.chown(path, user, group, follow_symlinks=False)
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
