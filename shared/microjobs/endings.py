"""Endings of the hosts of a job, each with the certainty that it is the cause of the job's failure."""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from microjobs.errors import EXIT_BUG, EXIT_OK, EXIT_PLATFORM, EXIT_USER, JobError, PlatformError, Stopped, UserError

MAX_REASON_CHARACTERS = 5_000

ERRORS_BY_CODE: Mapping[int, type[JobError]] = {EXIT_USER: UserError, EXIT_PLATFORM: PlatformError}

LOST_CONNECTION_PATTERN = re.compile(
    r"(?i)connection (was )?(likely )?(closed|reset|refused|lost)|broken pipe|socket closed|remote process exited"
)
"""Matches the errors of Gloo, NCCL and gRPC that report a lost connection to another process."""


class Certainty(IntEnum):
    """Confidence that an error is the root cause of the job's failure."""

    LOST_CONNECTION = 0
    """The error names a lost connection, so the cause is probably on another host."""
    DOUBTFUL = 1
    """The error may be a consequence of a lost connection."""
    NO_REPORT = 2
    """A process died without a report."""
    CERTAIN = 3
    """The worker reported the cause, or the system killed it."""


@dataclass(frozen=True)
class Ending:
    """The end of one host's part of a job.

    code: 0, an exit code of `microjobs.errors`, or 128 + N after stop signal N.
    reason: a sentence with the name of the host; empty for code 0 and after a stop signal.
    """

    host: str
    code: int = EXIT_OK
    reason: str = ""
    certainty: int = Certainty.CERTAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", self.reason[:MAX_REASON_CHARACTERS])

    def raise_error(self) -> None:
        """Raise `Stopped` after a stop signal, or a `JobError` for any other code except 0. Do nothing for code 0."""
        if self.code > 128:
            raise Stopped(self.code - 128)
        if self.code != EXIT_OK:
            raise ERRORS_BY_CODE.get(self.code, JobError)(self.reason)


def from_report(host: str, code: int, reason: str) -> Ending:
    """Return the ending of a worker that reported its exit code and the reason."""
    if code == EXIT_OK:
        return Ending(host)
    return _make_failure(host, code, reason, Certainty.DOUBTFUL if code == EXIT_BUG else Certainty.CERTAIN)


def from_script(host: str, code: int, reason: str) -> Ending:
    """Return the ending of a user's script that failed.

    Args:
        code: the exit code of the script, or -N if signal N ended it.
        reason: the cause, as found in the output of the script.
    """
    certainty = Certainty.DOUBTFUL if code > 0 else _find_certainty(code)
    return _make_failure(host, EXIT_BUG, reason, certainty)


def from_exit_code(host: str, code: int, *, is_agent: bool = False) -> Ending:
    """Return the ending of a process that failed without a report.

    Args:
        code: the exit code, or -N if signal N ended the process.
        is_agent: whether the process is an agent, such as torchrun, that hides how its workers ended.
    """
    cause = f"exited with code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
    is_killed = code == -signal.SIGKILL
    hint = "most likely out of memory; " if is_agent or is_killed else ""
    reason = f"its process {cause} without reporting a reason: {hint}see the log above"
    return _make_failure(host, EXIT_PLATFORM if is_killed else EXIT_BUG, reason, _find_certainty(code))


def _find_certainty(code: int) -> Certainty:
    """Return the certainty for a process that ended with this exit code (-N: by signal N) and without a report."""
    return Certainty.CERTAIN if code == -signal.SIGKILL else Certainty.NO_REPORT


def _make_failure(host: str, code: int, reason: str, certainty: Certainty) -> Ending:
    if certainty < Certainty.CERTAIN and LOST_CONNECTION_PATTERN.search(reason):
        certainty = Certainty.LOST_CONNECTION
    return Ending(host, code, f"host {host} failed: {reason}", certainty)
