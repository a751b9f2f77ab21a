"""Functions that all kinds of running jobs share: description, logs, files, attempts and the end."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from microjobs.contract import Layout, parse_failure
from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ServiceError, is_disk_full
from microjobs_orchestrator.local.kinds import JobStatus, Kind, Lifecycle
from microjobs_orchestrator.local.lifecycle.attempt import (
    Attempt,
    EndReason,
    Outcome,
    classify_end,
    launch_plan,
    prepare_plan,
    remove_plan,
)
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import EventQueue
from microjobs_orchestrator.local.lifecycle.hosts import HostGroup
from microjobs_orchestrator.local.lifecycle.usage import Meter
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, MachineFailedError
from microjobs_orchestrator.local.state import Record
from microjobs_orchestrator.local.trees import discard
from microjobs_orchestrator.terminal import strip_controls

logger = logging.getLogger(__name__)

LAYOUT = Layout()
"""The contract's paths below its default root: requests and hosts use these paths."""

MAX_REASON_CHARACTERS = 1024
"""Maximum number of characters of a FailureReason."""
MAX_READ_BYTES = 1 << 20
"""Maximum bytes of a failure or message file that are read."""
INTERNAL_ERROR = "InternalServerError"
"""SageMaker's prefix of the reason for a failure that the job did not cause."""
SERVER_ENDED_REASON = f"{INTERNAL_ERROR}: the local server ended while the job ran"
"""The reason if a server was killed or crashed, and the next server finds no hosts of the job."""
SHUT_DOWN_REASON = f"{INTERNAL_ERROR}: the local server was shut down while the job ran"
"""The reason if a server ends the job itself, because the server is being shut down."""

REASON_PREFIXES = ("ClientError: ", "AlgorithmError: ", f"{INTERNAL_ERROR}: ")
"""The beginnings of SageMaker's failure reasons. `ClientError` is a mistake of the user, `AlgorithmError` is a failure
of the container, and `InternalServerError` is a failure of the service."""

START_KEY = "StartMoment"
"""A key of the internal state, with a value as `Moment` stores it."""


@dataclass(frozen=True)
class JobEnd:
    """The end of a job, as determined before its outputs are collected."""

    end_reason: EndReason
    failure_reason: str | None
    """The FailureReason; None if the job did not fail."""

    @property
    def status(self) -> JobStatus:
        if self.end_reason is EndReason.COMPLETED:
            return JobStatus.COMPLETED
        return JobStatus.STOPPED if self.end_reason in (EndReason.TIMED_OUT, EndReason.STOPPED) else JobStatus.FAILED


def make_host_names(count: int) -> tuple[str, ...]:
    """Return the names of a job's hosts, as on SageMaker."""
    return tuple(f"algo-{number}" for number in range(1, count + 1))


def make_failure_reason(error: Exception) -> str:
    """Return a FailureReason for an error that prevented a job's run, or the collection of its outputs."""
    if is_disk_full(error):
        return f"{INTERNAL_ERROR}: {error}: free disk space"
    if not isinstance(error, CannotRunError | ServiceError):
        return f"{INTERNAL_ERROR}: {type(error).__name__}: {error}; see the server's log"
    if str(error).startswith(REASON_PREFIXES):
        return str(error)
    is_internal = isinstance(error, MachineFailedError) or (isinstance(error, ServiceError) and error.status >= 500)
    return f"{INTERNAL_ERROR if is_internal else 'ClientError'}: {error}"


def _make_time_member(member: str, seconds: float) -> dict[str, Any]:
    """Return the member of a description that contains a time; nothing if the kind has no such member."""
    return {member: seconds} if member else {}


class JobHandle:
    """The functions that all kinds of jobs share: the description, the logs, and the run of an attempt."""

    def __init__(self, context: Context, record: Record, kind: Kind) -> None:
        self.context = context
        self.request = record.request
        self.kind = kind
        self.name = record.name
        self.arn = record.arn
        self.created = record.created
        self.events = EventQueue()
        self._lifecycle = kind.lifecycle or Lifecycle()
        start_time: float | None = record.description.get(self._lifecycle.start_member)
        stored_moment = record.internal.get(START_KEY)
        self.started = Moment.read(stored_moment, start_time or 0.0) if stored_moment or start_time else None
        """The first start of the hosts."""

    @property
    def plan_name(self) -> str:
        return f"{self.kind.arn_type}/{self.name}"

    @property
    def folder(self) -> Path:
        return self.context.get_work_folder(self.plan_name)

    # --- the run ---

    def run(self, work: Callable[[], None], fail: Callable[[str], None] | None = None) -> None:
        """Call `work`, which runs the whole job, and then remove the job's hosts and files.

        If `work` raises an error, call `fail` (default: `self.fail`) with the reason.
        """
        try:
            work()
        except Exception as error:
            if not isinstance(error, CannotRunError | ServiceError):
                logger.exception("%s failed", self.plan_name)
            (fail or self.fail)(make_failure_reason(error))
        finally:
            remove_plan(self.context, self.plan_name)

    def run_attempt(
        self, attempt: Attempt, hosts: Sequence[Host], on_start: Callable[[Sequence[Host]], float]
    ) -> Outcome:
        """Run one attempt, on running or on new hosts.

        Args:
            on_start: called with the hosts when they run. Its result is the time limit: the hosts are stopped after
                this number of seconds.
        """
        if not hosts and self.events.stop_reason is None:
            hosts = self._launch(attempt)
        if not hosts:
            return Outcome()
        return HostGroup(replace(attempt, meter=self._make_meter()), hosts, self.events).run(on_start(hosts))

    def _launch(self, attempt: Attempt) -> Sequence[Host]:
        """Start the hosts of an attempt; return none if the job was stopped before they started."""
        try:
            plan = prepare_plan(self.context, attempt, self.events)
            return launch_plan(self.context, attempt, plan, self.events)
        except CannotRunError:
            # A stop ends the pull of the job's image, and a shutdown of the server also cancels the installation of the
            # job's packages. Both then raise this error.
            if self.events.stop_reason is not None:
                return ()
            raise

    def _make_meter(self) -> Meter:
        namespace = self.kind.log_group(self.name)  # the namespace has the same name as on AWS
        return Meter(
            self.context.metrics,
            namespace,
            lambda host_name: {"Host": f"{self.name}/{host_name}"},
            self.context.home.root,
        )

    def determine_end(self, outcome: Outcome) -> JobEnd:
        """Return how the job ends after the outcome of its last attempt."""
        end_reason, failure_reason = classify_end(outcome, self.events), None
        if end_reason is EndReason.SHUT_DOWN:
            failure_reason = SHUT_DOWN_REASON
        elif end_reason is EndReason.FAILED:
            failure_reason = self.read_failure_reason(outcome)
        return JobEnd(end_reason, failure_reason)

    # --- the description ---

    def update_description(
        self, status: str | None = None, *, internal: Mapping[str, Any] | None = None, **changes: Any
    ) -> None:
        """Change the description and the internal state. None keeps a value. FailureReason and ExitMessage are
        shortened, and lose control characters."""
        members = {name: value for name, value in changes.items() if value is not None}
        for name in {"FailureReason", "ExitMessage"} & members.keys():
            members[name] = strip_controls(members[name])[:MAX_REASON_CHARACTERS]
        if status is not None:
            members[self.kind.status_member] = status
        self.context.state.update(self.kind.arn_type, self.name, members, status, internal=internal)

    def mark_start(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set `started`, and return the members and internal values that store the start of the hosts.

        Both are empty if hosts ran in an earlier attempt.
        """
        if self.started is not None:
            return {}, {}
        self.started = Moment.now()
        return _make_time_member(self._lifecycle.start_member, self.started.wall), {
            START_KEY: self.started.to_members()
        }

    def store_start(self) -> None:
        """Store the start of the hosts, unless it is already stored."""
        members, internal = self.mark_start()
        if internal:
            self.update_description(internal=internal, **members)

    def compute_elapsed_seconds(self) -> float:
        """Return the seconds since the start of the hosts; 0 if no host has started."""
        return self.started.elapsed() if self.started else 0.0

    def compute_end_time(self) -> float:
        """Return the current time as the job's end, but never a time before its start: the clock may be set back."""
        return max(time.time(), self.started.wall if self.started else 0.0)

    def end(self, status: JobStatus, **changes: Any) -> None:
        self.update_description(
            status, **_make_time_member(self._lifecycle.end_member, self.compute_end_time()), **changes
        )

    def fail(self, reason: str, **changes: Any) -> None:
        self.end(JobStatus.FAILED, FailureReason=reason, **changes)

    # --- logs and files ---

    def open_stream(self, host_name: str, suffix: str = "") -> LogStream:
        """Return the log stream of a host, or of one container of an instance, named as on SageMaker."""
        name = f"{self.name}/{host_name}-{self.created * 1000:.0f}{suffix}"
        return self.context.logs.create(self.kind.log_group(self.name), name)

    def note(self, sentence: str, suffix: str = "") -> None:
        """Write a sentence to the server's log, and to a log stream of the first host. The suffix is the end of the
        stream's name."""
        logger.info("%s: %s", self.plan_name, sentence)
        self.open_stream("algo-1", suffix).note(sentence)

    def read_file(self, hosts: Sequence[Host], path: Path) -> dict[str, bytes]:
        """Read a small file of the contract; return its content by the name of each host that has it."""
        contents = {}
        for host in hosts:
            folder = self.folder / "read" / host.name
            entry = (host.copy(str(path), folder) or {}).get(path.name)
            if entry is not None and entry.content is not None:
                with entry.content.open("rb") as file:
                    contents[host.name] = file.read(MAX_READ_BYTES)
            discard(folder)
        return contents

    def read_failure_reason(self, outcome: Outcome) -> str:
        """Return the reason of a failure: the failure file of the host that failed first, and its exit code."""
        name = outcome.first_failed_host or next(iter(outcome.exits))
        host_exit = outcome.exits[name]
        if host_exit.pipe_failed:
            return f"ClientError: Data download failed: {host_exit.reason}"
        content = self.read_file([host for host in outcome.hosts if host.name == name], LAYOUT.failure).get(name, b"")
        text = parse_failure(content)
        cause = text or host_exit.reason or "See job logs for more information"
        exit_reason = f", {host_exit.reason}" if text and host_exit.reason else ""
        where = f" on {name}" if len(outcome.hosts) > 1 else ""
        suffix = f"{exit_reason}, exit code: {host_exit.code}{where}"
        prefix = INTERNAL_ERROR if host_exit.has_external_cause else "AlgorithmError"
        return f"{prefix}: {cause[: MAX_REASON_CHARACTERS - len(suffix) - len(prefix) - 2]}{suffix}"
