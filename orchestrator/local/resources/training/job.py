"""Execution of training jobs."""

import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.kinds import JobStatus
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.attempt import Attempt, EndReason, Outcome
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Interruption, StopReason
from microjobs_orchestrator.local.lifecycle.hosts import select_final_parts
from microjobs_orchestrator.local.lifecycle.job import (
    LAYOUT,
    SERVER_ENDED_REASON,
    JobHandle,
    make_failure_reason,
    make_host_names,
)
from microjobs_orchestrator.local.resources.training.channels import PIPE_MODE, read_channels
from microjobs_orchestrator.local.resources.training.checkpoints import Checkpoints
from microjobs_orchestrator.local.resources.training.create import CREATION_MOMENT, make_model_uri, make_output_uri
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.training.metrics import Metrics, Point
from microjobs_orchestrator.local.resources.training.mlflow_run import MlflowRun
from microjobs_orchestrator.local.resources.training.plan import make_plan
from microjobs_orchestrator.local.resources.training.registration import prepare_registration
from microjobs_orchestrator.local.resources.training.secondary_status import enter_status
from microjobs_orchestrator.local.resources.training.tensorboard import TensorBoard
from microjobs_orchestrator.local.resources.training.time_limits import AttemptUsage, TimeLimits
from microjobs_orchestrator.local.runtimes.base import Host, Line, MachineFailedError
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

NAMESPACE = "/aws/sagemaker/TrainingJobs"
"""CloudWatch's namespace of the metrics that MetricDefinitions find in the log."""
SKIPPED_METRICS = "MetricsGivenUp"
"""Key of the internal state. Its value lists the names of the metrics whose regular expressions take too long."""


class TrainingJob:
    """A training job: one or more attempts, an upload of the model, and metrics from the log."""

    def __init__(self, context: Context, record: Record) -> None:
        self.job = JobHandle(context, record, TRAINING_JOB)
        self.events = self.job.events
        self.plan_name = self.job.plan_name
        definitions = record.request["AlgorithmSpecification"].get("MetricDefinitions", [])
        skipped_names = record.internal.get(SKIPPED_METRICS, ())
        self.metrics = Metrics(
            definitions, note=self._note_metric, skipped_names=skipped_names, record=self._record_point
        )
        self._dimensions = {"TrainingJobName": record.name}
        self._transitions = list(record.description["SecondaryStatusTransitions"])
        self._usage = AttemptUsage.load(record.internal)
        self._limits = TimeLimits(record.request, Moment.read(record.internal.get(CREATION_MOMENT), record.created))
        self._channels = read_channels(record.request)
        self._checkpoints = Checkpoints(self.job)
        self._tensorboard = TensorBoard(self.job)
        self._mlflow = MlflowRun(self.job, record)

    def run(self) -> None:
        self.job.run(self._run, self.fail)

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume with the hosts that an earlier server left. If that is impossible, start over on new hosts or fail."""
        self.job.run(partial(self._recover, hosts), self.fail)

    def _recover(self, hosts: Sequence[Host]) -> None:
        if hosts:
            self._read_logs()
        # Pipes end with the server that fills them, so a host may have read incomplete data without an error.
        if not hosts or any(channel.mode == PIPE_MODE for channel in self._channels):
            self._recover_without_hosts()
            return
        if self._transitions[-1]["Status"] == "Interrupted":
            self.events.send(Interruption())
        self._run(hosts)

    def _read_logs(self) -> None:
        """Read the metrics from the lines that an earlier server received, and record all of them again."""
        self.job.context.metrics.remove(NAMESPACE, self._dimensions, self.job.created)
        for host in make_host_names(self.job.request["ResourceConfig"]["InstanceCount"]):
            lines = (
                Line(event.time / 1000, event.text, event.is_whole)
                for event in self.job.open_stream(host).events()
                if not event.is_from_server
            )
            for line in select_final_parts(lines):
                self._read_line(line)

    def _recover_without_hosts(self) -> None:
        had_hosts = self._transitions[-1]["Status"] not in ("Interrupted", "Starting", "Downloading")
        if self._limits.is_spot and not had_hosts:  # the job has lost no work, so this is no retry of RetryStrategy
            self._end_attempt("starting over on new hosts", pause=0.0)
            self._run()
        elif self.events.stop_reason is not None or self._retry(SERVER_ENDED_REASON):
            self._run()
        else:
            self.fail(SERVER_ENDED_REASON)

    # --- attempts ---

    @property
    def attempt(self) -> Attempt:
        return Attempt(
            self.plan_name,
            self.job.request["AlgorithmSpecification"]["TrainingImage"],
            partial(make_plan, self.job, self._channels, self._checkpoints, self._tensorboard, self._mlflow),
            self.job.open_stream,
            on_line=self._read_line,
            on_interruption=self._handle_interruption,
        )

    def _run(self, hosts: Sequence[Host] = ()) -> None:
        self._mlflow.create()
        while (outcome := self._run_attempt(hosts)) is None:
            hosts = ()
        self._handle_outcome(outcome)

    def _run_attempt(self, hosts: Sequence[Host]) -> Outcome | None:
        """Return the outcome of an attempt, or None if the job starts another attempt."""
        if not hosts and self.events.stop_reason is None:
            self._enter_status("Downloading")
        try:
            outcome = self.job.run_attempt(self.attempt, hosts, self.handle_start)
        except MachineFailedError as error:
            if self._retry(make_failure_reason(error)):
                return None
            raise
        self._finish_uploads()
        return None if self._start_over_if_possible(outcome) else outcome

    def handle_start(self, hosts: Sequence[Host]) -> float:
        """Update the description, and start to upload checkpoints and TensorBoard files. Return the seconds that the
        hosts may run."""
        if self.job.started is None and self.job.request.get("ProfilerRuleConfigurations"):
            self.job.note("ProfilerRuleConfigurations has no effect: the local server has no profiler")
        if self._usage.since is None:
            self._usage.since = Moment.now()
            members, internal = self.job.mark_start()
            self._enter_status("Training", internal={**internal, **self._usage.to_members()}, **members)
        self._checkpoints.start(hosts)
        self._tensorboard.start(hosts)
        return self.remaining_seconds

    def _finish_uploads(self) -> None:
        self._checkpoints.finish()
        self._tensorboard.finish()

    @property
    def remaining_seconds(self) -> float:
        """Seconds that the hosts may run."""
        return math.ceil(self._limits.compute_remaining_seconds(self._usage))

    def _read_line(self, line: Line) -> None:
        self.metrics.read(line.time, line.text.decode(errors="replace"))

    def _record_point(self, name: str, point: Point) -> None:
        time_, value = point
        self.job.context.metrics.record(NAMESPACE, self._dimensions, {name: value}, time_, is_exact=True)

    def _note_metric(self, sentence: str) -> None:
        """Log a sentence about a metric, unless an earlier server has logged it. Store the names of skipped metrics."""
        if not any(
            event.is_from_server and sentence in event.message for event in self.job.open_stream("algo-1").events()
        ):
            self.job.note(sentence)
        # A restarted server must not search for these metrics again.
        self.job.update_description(internal={SKIPPED_METRICS: self.metrics.skipped_names})

    def interrupt(self, interruption: Interruption) -> bool:
        """Interrupt the hosts of a spot job, if they are running. Return whether they are interrupted."""
        can_interrupt = self._limits.is_spot and self._transitions[-1]["Status"] == "Training"
        if can_interrupt:
            self.events.send(interruption)
        return can_interrupt

    def _handle_interruption(self) -> None:
        if self._transitions[-1]["Status"] != "Interrupted":
            self._enter_status("Interrupted")

    def _start_over_if_possible(self, outcome: Outcome) -> bool:
        """Remove the old hosts and return True if the job starts over on new hosts; otherwise return False."""
        if self.events.stop_reason is not None:
            return False
        if (interruption := outcome.interruption) is not None:
            self._end_attempt("interrupted: starting over on new hosts", interruption.away_seconds)
            return True
        failed_host = outcome.first_failed_host
        if failed_host is None or not outcome.exits[failed_host].has_external_cause:
            return False
        return self._retry(self.job.read_failure_reason(outcome))

    def _retry(self, reason: str) -> bool:
        """Prepare the next attempt and return True; return False if the RetryStrategy allows no other attempt."""
        if self._usage.retries >= self._limits.max_retries:
            return False
        self._usage.retries += 1
        count = f"{self._usage.retries} of {self._limits.max_retries}"
        self._end_attempt(f"{reason}; starting over on new hosts, retry {count}", self._usage.retry_delay_seconds)
        return True

    def _end_attempt(self, note: str, pause: float) -> None:
        """Remove the current hosts, and wait until new hosts are available.

        Args:
            note: a line for the job's log.
            pause: seconds until new hosts are available.
        """
        self._usage.end_attempt()
        self.job.update_description(internal=self._usage.to_members())
        self.job.context.runtime.remove(self.plan_name)
        self.job.note(note)
        remaining_seconds = self._limits.compute_remaining_seconds(self._usage)
        self.events.pause(min(pause, remaining_seconds))
        if pause >= remaining_seconds:
            self.events.stop(StopReason.TIMEOUT)
        if self.events.stop_reason is None:
            self._enter_status("Starting")

    # --- end of the job ---

    def _handle_outcome(self, outcome: Outcome) -> None:
        end = self.job.determine_end(outcome)
        if end.end_reason is not EndReason.SHUT_DOWN:
            self._upload_outputs(
                outcome.hosts, has_model=bool(outcome.hosts) and end.end_reason is not EndReason.FAILED
            )
        is_late = end.end_reason is EndReason.TIMED_OUT
        secondary_status = self._limits.find_exceeded_status(self._usage) if is_late else end.status
        register = prepare_registration(self.job, end.status)
        self._mlflow.finish(end.status, self.metrics.list_all_points())
        with self.job.context.state.transaction():
            self._end(end.status, secondary_status, FailureReason=end.failure_reason, **register())

    def _upload_outputs(self, hosts: Sequence[Host], *, has_model: bool) -> None:
        """Upload the output data, and the model if there is one."""
        self._enter_status("Uploading")
        folder, store, note = self.job.folder / "collected", self.job.context.store, self.job.note
        if data := outputs.merge_outputs(hosts, str(LAYOUT.output_data), folder / "output", note):
            outputs.upload_archive(store, data, make_output_uri(self.job.request, "output.tar.gz"), folder)
        if has_model:
            tree, uri = (
                outputs.merge_outputs(hosts, str(LAYOUT.model), folder / "model", note),
                make_model_uri(self.job.request),
            )
            if uri.endswith("/"):
                outputs.upload(store, tree, uri)
            else:
                outputs.upload_archive(store, tree, uri, folder)

    def fail(self, reason: str) -> None:
        """End the job with the status Failed."""
        try:
            self._finish_uploads()
        except Exception:  # for example, the log cannot be written
            logger.exception("%s: could not save its checkpoints and TensorBoard files", self.job.plan_name)
        self._mlflow.finish(JobStatus.FAILED, self.metrics.list_all_points())
        self._end(JobStatus.FAILED, JobStatus.FAILED, FailureReason=reason)

    def _enter_status(self, status: str, **changes: Any) -> None:
        members = enter_status(self._transitions, status, time.time())
        self._transitions = members["SecondaryStatusTransitions"]
        self.job.update_description(**members, **changes)

    def _end(self, status: JobStatus, secondary_status: str, **changes: Any) -> None:
        """Store the end of the job with the job's times and final metrics."""
        started = self.job.started
        seconds = round(started.elapsed()) if started else 0
        self._usage.end_attempt()
        self.job.end(
            status,
            **enter_status(self._transitions, secondary_status, self.job.compute_end_time()),
            TrainingStartTime=started.wall if started else None,
            TrainingTimeInSeconds=max(1, seconds),
            BillableTimeInSeconds=max(1, min(seconds, round(self._usage.ran))),
            FinalMetricDataList=self.metrics.list_final_values(),
            **changes,
        )
