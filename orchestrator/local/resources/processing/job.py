"""Execution of processing jobs."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from microjobs import contract
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.attempt import Attempt, EndReason, Outcome
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import LAYOUT, SERVER_ENDED_REASON, JobHandle
from microjobs_orchestrator.local.lifecycle.sync import Sync
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.processing.plan import list_output_items, make_plan
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record

DEFAULT_MAX_RUNTIME_SECONDS = 86_400
"""Default time limit in seconds: one day, as on SageMaker."""


class ProcessingJob:
    """A processing job: one attempt, whose outputs are uploaded at its end or while it runs."""

    def __init__(self, context: Context, record: Record) -> None:
        self.job = JobHandle(context, record, PROCESSING_JOB)
        self.events = self.job.events
        self.plan_name = self.job.plan_name
        self._syncs: list[Sync] = []

    def run(self) -> None:
        self.job.run(self._run)

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume with the hosts that an earlier server left. Without hosts, fail unless a stop was requested."""
        if hosts or self.events.stop_reason is not None:
            self.job.run(partial(self._run, hosts))
        else:
            self.job.run(partial(self.job.fail, SERVER_ENDED_REASON))

    @property
    def attempt(self) -> Attempt:
        image = self.job.request["AppSpecification"]["ImageUri"]
        return Attempt(self.plan_name, image, partial(make_plan, self.job), self.job.open_stream)

    def _run(self, hosts: Sequence[Host] = ()) -> None:
        outcome = self.job.run_attempt(self.attempt, hosts, self.handle_start)
        for sync in self._syncs:
            sync.finish()
        self._handle_outcome(outcome)

    def handle_start(self, hosts: Sequence[Host]) -> float:
        """Start the continuous uploads; return the seconds that the hosts may run."""
        self.job.store_start()
        elapsed, store, note = self.job.compute_elapsed_seconds(), self.job.context.store, self.job.note
        for number, output in enumerate(self._list_outputs("Continuous")):
            folder = self.job.folder / "sync" / str(number)
            sync = Sync(store, hosts, output["LocalPath"], output["S3Uri"], folder, note, deletes_removed_files=False)
            sync.start()
            self._syncs.append(sync)
        stopping_condition = self.job.request.get("StoppingCondition", {})
        return float(stopping_condition.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_SECONDS)) - elapsed

    def _list_outputs(self, mode: str) -> list[Mapping[str, Any]]:
        """Return the S3Output structures whose S3UploadMode is `mode`."""
        items = [item["S3Output"] for item in list_output_items(self.job.request)]
        return [item for item in items if item["S3UploadMode"] == mode]

    def _handle_outcome(self, outcome: Outcome) -> None:
        message, end = self._read_message(outcome.hosts), self.job.determine_end(outcome)
        if end.end_reason is EndReason.COMPLETED:
            self._upload_outputs(outcome.hosts)
        reason = "MaxRuntimeExceeded" if end.end_reason is EndReason.TIMED_OUT else end.failure_reason
        exit_message = None if end.end_reason is EndReason.SHUT_DOWN else message
        self.job.end(end.status, ExitMessage=exit_message, FailureReason=reason)

    def _upload_outputs(self, hosts: Sequence[Host]) -> None:
        """Upload the EndOfJob outputs. Copy all of them from the hosts first, so that nothing is uploaded if a copy
        fails."""
        folder, items = self.job.folder / "collected", self._list_outputs("EndOfJob")
        trees = [
            outputs.merge_outputs(hosts, item["LocalPath"], folder / str(number), self.job.note)
            for number, item in enumerate(items)
        ]
        for item, tree in zip(items, trees, strict=True):
            outputs.upload(self.job.context.store, tree, item["S3Uri"])

    def _read_message(self, hosts: Sequence[Host]) -> str | None:
        """Join the exit messages of the hosts, and return the first kilobyte; None if all messages are empty."""
        content = b"".join(self.job.read_file(hosts, LAYOUT.message).values())
        try:
            return contract.parse_message(content) or None
        except UnicodeDecodeError as error:
            raise ServiceError("ClientError", f"ClientError: the exit message is not UTF-8: {error}") from error
