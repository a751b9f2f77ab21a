"""A run of a workflow: starts jobs, follows them to their end, keeps a journal, and stops jobs after Ctrl-C or a
failure."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.costs import CostMeter
from microjobs_orchestrator.runs.follower import Follower, check_success
from microjobs_orchestrator.runs.interrupt_handler import InterruptHandler
from microjobs_orchestrator.runs.journal import Journal, JournalEntry
from microjobs_orchestrator.runs.kinds import ENDPOINT_CONFIG, KINDS, Kind, Members
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext
from microjobs_orchestrator.runs.progress import Progress
from microjobs_orchestrator.runs.stopping import delete_endpoint

STOP_TIMEOUT_SECONDS = 150
"""Seconds until a job must have stopped. A job has 120 s to save its work."""


class Run(RunContext):
    """Runs the steps of a workflow. Steps that an earlier attempt finished are skipped.

    Args:
        interrupts: delays Ctrl-C during Create calls.
        keep: leave jobs and endpoints as they are after Ctrl-C or a failure.
    """

    backend: Backend

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        progress: Progress,
        interrupts: InterruptHandler | None = None,
        *,
        keep: bool = False,
    ) -> None:
        super().__init__(backend, journal.id)
        self.journal = journal
        self.interrupts = interrupts or InterruptHandler()
        self._keep = keep
        self._progress = progress
        self._costs = CostMeter(backend, journal)
        self._follower = Follower(backend, progress, self._costs)
        self._drop_lost_steps()
        # An earlier attempt left this endpoint, because its process was killed or the user kept the endpoint. This
        # attempt creates another endpoint.
        if journal.endpoint is not None:
            self._delete_endpoint(journal.endpoint)

    def _drop_lost_steps(self) -> None:
        """Remove from the journal the first step whose job is neither running nor successful, and all later steps."""
        kinds_by_noun = {kind.noun: kind for kind in KINDS}
        for number, entry in enumerate(self.journal.steps):
            if entry.kind and not self._is_usable(kinds_by_noun[entry.kind], entry.name):
                del self.journal.steps[number:]  # later steps depend on this step
                self.journal.save()
                return

    def _is_usable(self, kind: Kind, name: str) -> bool:
        description = kind.describe(self.backend.sagemaker, name) or {}
        return description.get(kind.status_member) in (
            kind.lifecycle.success_status,
            *kind.lifecycle.transitional_statuses,
        )

    def name(self, step: str) -> str:
        """Return the unique name of a step's job, model or endpoint. Jobs in the journal keep their names."""
        entry = self.journal.find_entry(step)
        if entry is not None and entry.kind:
            return entry.name
        return super().name(step) + ("" if self.journal.attempt == 1 else f"-{self.journal.attempt}")

    def run_job(self, planned: PlannedRequest) -> Members:
        """Create a job if no earlier attempt created it, wait for its end, and return its description.

        Raises:
            JobFailedError: the job did not end as Completed.
        """
        kind, name = planned.kind, planned.name
        with self._progress.step(planned.title) as display:
            with self._remove_on_failure(name, partial(self._stop, kind)):
                entry = self.journal.find_entry(planned.step) or self._create_job(planned)
                description = self._follower.follow(kind, name, display)
            if entry.seconds is None:
                self._costs.add_job(kind, description)
                check_success(kind, name, description, display)
                entry.seconds = display.seconds
                self.journal.save()
        return description

    def _create_job(self, planned: PlannedRequest) -> JournalEntry:
        entry = JournalEntry(planned.step, planned.title, planned.kind.noun, planned.name)
        self._add_entry(entry)
        self._send_create_request(planned)
        return entry

    def _add_entry(self, entry: JournalEntry) -> None:
        self.journal.steps.append(entry)
        self.journal.save()

    def _send_create_request(self, planned: PlannedRequest) -> None:
        request = self.backend.complete_request(self.id, planned.kind, planned.members)
        with self.interrupts.delay_ctrl_c():
            planned.kind.create(self.backend.sagemaker, request)

    def compute_once(self, step: str, title: str, compute: Callable[[], Any]) -> Any:
        """Return a value that is computed once and stored in the journal as JSON."""
        entry = self.journal.find_entry(step)
        if entry is None:
            start_time = time.monotonic()
            value = compute()
            entry = JournalEntry(step, title, "", step, time.monotonic() - start_time, value)
            self._add_entry(entry)
        return entry.value

    @contextlib.contextmanager
    def create_temporary_endpoint(self, requests: Sequence[PlannedRequest]) -> Iterator[str]:
        """Create an endpoint and yield its name; delete the endpoint, its configuration and its model afterwards.

        Args:
            requests: for a model, an endpoint configuration and an endpoint, all with the same name.

        Raises:
            JobFailedError: the endpoint did not come into service.
        """
        name = requests[-1].name
        self.journal.endpoint = name
        self.journal.save()
        start_time = time.monotonic()
        try:
            # The journal keeps the name until the deletion, so that a later attempt can delete the endpoint.
            with self._remove_on_failure(name, self._delete_endpoint):
                self._start_endpoint(requests)
                yield name
                self._delete_endpoint(name)
        finally:
            [config] = (planned.members for planned in requests if planned.kind is ENDPOINT_CONFIG)
            self._costs.add_endpoint(config, time.monotonic() - start_time)

    def _start_endpoint(self, requests: Sequence[PlannedRequest]) -> None:
        kind, name = requests[-1].kind, requests[-1].name
        with self._progress.step(requests[-1].title) as display:
            for planned in requests:
                self._send_create_request(planned)
            check_success(kind, name, self._follower.follow(kind, name, display), display)

    def _delete_endpoint(self, name: str) -> None:
        delete_endpoint(self.backend, name, self._progress.print_note)
        self.journal.endpoint = None
        self.journal.save()

    @contextlib.contextmanager
    def _remove_on_failure(self, name: str, remove: Callable[[str], None]) -> Iterator[None]:
        """Stop a job, or delete an endpoint, if Ctrl-C or a failure ends the block. With `keep`, only print a note."""
        on_option = "" if self.journal.is_local else f" --on {self.journal.on}"
        command = f"run `microjobs stop {name}{on_option}` to stop or delete it"
        try:
            yield
        except BaseException:
            if self._keep:
                self._progress.print_note(f"{name} is kept, and may cost money until it ends: {command}")
                raise
            try:
                remove(name)
            except (ClientError, BotoCoreError, CommandError) as error:
                self._progress.print_note(f"{name} could not be stopped ({error}): {command}")
            raise

    def _stop(self, kind: Kind, name: str) -> None:
        self._progress.print_note(f"stopping {name}")
        if not kind.stop_or_delete(self.backend.sagemaker, name):
            return
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            description = kind.describe(self.backend.sagemaker, name)
            if description is None or description[kind.status_member] not in kind.lifecycle.transitional_statuses:
                self._costs.add_job(kind, description)
                return
            time.sleep(self.backend.poll_interval)
        self._progress.print_note(
            f"{name} did not stop within {STOP_TIMEOUT_SECONDS} s: check its status with `microjobs ps`"
        )
