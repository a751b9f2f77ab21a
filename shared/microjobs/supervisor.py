"""Runs one job as an init process does: forwards signals, reaps orphans, and ends all processes of the job.

`sagemaker-training` as PID 1 ignores SIGTERM and does not forward it, so that a stopped job is always killed
(https://github.com/aws/sagemaker-training-toolkit/issues/125 and 173). The supervisor signals the job's process group.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from microjobs import processes
from microjobs.contract import Layout, write_failure

FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
HANDLED_SIGNALS = {*FORWARDED_SIGNALS, signal.SIGCHLD}
INITIALLY_BLOCKED_SIGNALS = {signal.SIGTERM, signal.SIGINT}
"""Signals that are blocked until the job has installed handlers. Without handlers, they would kill the job."""

LEFTOVER_GRACE_SECONDS = 5.0
"""Seconds between SIGTERM and SIGKILL for processes that a job left running."""


def supervise(job: Callable[[], NoReturn], layout: Layout, grace_seconds: float) -> int:
    """Run a job in its own process and return its exit code, or 128 + N if signal N ended it.

    If the job fails without a failure file, write one that explains the exit code. The process is a fork, because a
    new interpreter would add 50 ms to each job.

    Args:
        job: function that runs in the new process, and ends it. It unblocks SIGTERM and SIGINT when it can handle them.
        layout: folders of the job. The supervisor writes the failure file, and restores the ownership of results.
        grace_seconds: seconds between the first stop signal and SIGKILL.
    """
    processes.adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    if (pid := os.fork()) == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS - INITIALLY_BLOCKED_SIGNALS)
        job()
    # the parent sets the child's process group too, because a signal may arrive before the child has set it
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    job_processes = _JobProcesses(pid, grace_seconds)
    status = job_processes.wait()
    job_processes.end_leftovers()
    code = os.waitstatus_to_exitcode(status)
    if code != 0 and job_processes.stop_signal is None:
        _report_missing_reason(layout, code)
    if job_processes.timed_out:
        _report_failure(
            layout,
            f"killed, because it did not end within {grace_seconds:g} s after signal {job_processes.stop_signal}",
        )
    restore_ownership(layout)
    return 128 - code if code < 0 else code


class _JobProcesses:
    """All processes of the job, from its start to the end of the last process."""

    def __init__(self, pid: int, grace_seconds: float) -> None:
        self.pid = pid
        self.grace_seconds = grace_seconds
        self.stop_signal: int | None = None
        self.deadline: float | None = None
        """Time at which all processes are killed; set by a stop signal, or when the job left processes running."""
        self.timed_out = False
        """Whether the job itself was killed at the deadline."""
        self._status: int | None = None

    def wait(self) -> int:
        """Wait until the process of the job has ended, and return its status in the form of `os.wait`."""
        while self._status is None:
            self._step()
        return self._status

    def end_leftovers(self) -> None:
        """End processes that the job left running: SIGTERM, if no stop signal was sent, and SIGKILL at the deadline."""
        if processes.has_children() and self.deadline is None:
            self._signal_all(signal.SIGTERM)
            self.deadline = time.monotonic() + LEFTOVER_GRACE_SECONDS
        while processes.has_children():
            self._step()

    def _step(self) -> None:
        seconds = 3600.0 if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        received = signal.sigtimedwait(HANDLED_SIGNALS, seconds)
        if received is None:
            if self.deadline is not None:
                self.timed_out = self.timed_out or (self._status is None)
                self._signal_all(signal.SIGKILL)
                self.deadline = time.monotonic() + 1.0
        elif received.si_signo in FORWARDED_SIGNALS:
            self._forward(received.si_signo)
        self._reap()

    def _forward(self, signal_number: int) -> None:
        if signal_number in STOP_SIGNALS and self.deadline is None:
            self.stop_signal = signal_number
            self.deadline = time.monotonic() + self.grace_seconds
        processes.signal_group(self.pid, signal_number)

    def _signal_all(self, signal_number: int) -> None:
        """Signal the job's group, and orphans that have left the group."""
        processes.signal_group(self.pid, signal_number)
        for pid in processes.find_children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended_process := os.waitpid(-1, os.WNOHANG))[0]:
                if ended_process[0] == self.pid:
                    self._status = ended_process[1]


def _report_missing_reason(layout: Layout, code: int) -> None:
    """Write the failure file of a job that could not write it."""
    if layout.failure.exists():
        return
    if code == -signal.SIGKILL:
        reason = "killed by SIGKILL: most likely out of memory; use a larger instance or smaller batches"
    elif code < 0:
        reason = f"ended by {signal.Signals(-code).name}: a crash in native code; see the log above"
    else:
        reason = f"exited with code {code} without reporting a reason; see the log above"
    _report_failure(layout, reason)


def _report_failure(layout: Layout, reason: str) -> None:
    print(f"ERROR {reason}", file=sys.stderr)
    with contextlib.suppress(OSError):
        write_failure(layout, reason)


def restore_ownership(layout: Layout) -> None:
    """Give the results of the job to the owner of the folder that contains them.

    On SageMaker, root runs jobs and owns these folders, so nothing changes. On a developer's machine, the user owns the
    folders, but could not delete results that root owns.
    """
    if os.getuid() != 0:
        return
    processing = layout.root / "processing"
    folders = [layout.model, layout.output, layout.output_data, layout.checkpoints]
    for folder in [*folders, *(processing.iterdir() if processing.is_dir() else [])]:
        with contextlib.suppress(OSError):  # read-only inputs are not changed
            owner = folder.stat()
            if owner.st_uid != 0:
                _change_owner(folder, owner.st_uid, owner.st_gid)


def _change_owner(folder: Path, user: int, group: int) -> None:
    pending_folders = [folder]
    # this loop does not recurse, because folders may be nested deeper than Python's recursion limit
    while pending_folders:
        for path in pending_folders.pop().iterdir():
            if path.lstat().st_uid == 0:
                os.chown(path, user, group, follow_symlinks=False)
            if path.is_dir() and not path.is_symlink():
                pending_folders.append(path)
