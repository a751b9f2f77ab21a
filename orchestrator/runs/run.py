"""A run of a workflow: starts jobs, follows them to their end, keeps a journal, and stops what it started."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.costs import CostMeter
from microjobs_orchestrator.runs.create_guard import CreateGuard
from microjobs_orchestrator.runs.endpoints import delete_endpoint
from microjobs_orchestrator.runs.follower import Follower, check_success
from microjobs_orchestrator.runs.journal import Journal, JournalEntry
from microjobs_orchestrator.runs.kinds import ENDPOINT, KINDS, Kind, Members
from microjobs_orchestrator.runs.progress import Progress, StepDisplay

STOP_TIMEOUT = 150
"""Seconds. A job has 120 s to save its work."""


class Run:
    """Runs the steps of a workflow. Steps that an earlier attempt finished are skipped.

    Args:
        backend: where jobs run.
        journal: the steps so far.
        progress: displays the steps.
        guard: delays Ctrl-C during Create calls.
        keep: leave jobs and endpoints as they are after Ctrl-C or a failure.
    """

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        progress: Progress,
        guard: CreateGuard | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self.backend = backend
        self.journal = journal
        self.guard = guard or CreateGuard()
        self._keep = keep
        self._progress = progress
        self._costs = CostMeter(backend, journal)
        self._follower = Follower(backend, progress, self._costs)
        self._drop_lost_steps()
        if journal.endpoint is not None:  # the launcher was killed while the endpoint existed, or the user kept it
            self._delete_endpoint(journal.endpoint)

    @property
    def id(self) -> str:
        return self.journal.id

    def _drop_lost_steps(self) -> None:
        """Remove from the journal the first step whose job is neither running nor successful, and all later ones."""
        kinds = {kind.noun: kind for kind in KINDS}
        for number, entry in enumerate(self.journal.steps):
            if entry.kind and not self._is_usable(kinds[entry.kind], entry.name):
                self.journal.drop_from(number)
                return

    def _is_usable(self, kind: Kind, name: str) -> bool:
        description = kind.describe(self.backend.sagemaker, name)
        return description is not None and description[kind.status_member] in (
            kind.life.success,
            *kind.life.transitional,
        )

    def name(self, step: str) -> str:
        """Return the name of a step's job, model or endpoint, which is unique and new in each attempt."""
        entry = self.journal.step(step)
        if entry is not None and entry.kind:
            return entry.name
        attempt = "" if self.journal.attempt == 1 else f"-{self.journal.attempt}"
        return f"{self.id}-{step}{attempt}"

    def job(self, step: str, title: str, kind: Kind, request: Members) -> Members:
        """Create a job, unless an earlier attempt did, and wait for its end.

        Args:
            step: the step that `name` named the job after.
            title: the step's name for the user.
            request: the members of the Create operation.

        Returns:
            The job's description.

        Raises:
            JobFailedError: the job did not end as Completed.
        """
        name = request[kind.name_member]
        with self._progress.step(title) as display:
            entry = self.journal.step(step) or self._create(step, title, kind, request)
            with self._stopped_on_failure(kind, name):
                description = self._follower.follow(kind, name, display)
            if entry.seconds is None:
                self._finish(entry, kind, description, display)
        return description

    def _create(self, step: str, title: str, kind: Kind, request: Members) -> JournalEntry:
        entry = JournalEntry(step, title, kind.noun, request[kind.name_member])
        self.journal.steps.append(entry)
        self.journal.save()
        with self._stopped_on_failure(kind, entry.name), self.guard.creating():
            kind.create(self.backend.sagemaker, self._complete(f"Create{kind.noun}", request))
        return entry

    def _finish(self, entry: JournalEntry, kind: Kind, description: Members, display: StepDisplay) -> None:
        self._costs.add_job(kind, description)
        check_success(kind, entry.name, description, display)
        entry.seconds = display.seconds
        self.journal.save()

    def once(self, step: str, title: str, compute: Callable[[], Any]) -> Any:
        """Return a value that is computed once and stored in the journal as JSON."""
        entry = self.journal.step(step)
        if entry is None:
            started = time.monotonic()
            value = compute()
            entry = JournalEntry(step, title, "", step, time.monotonic() - started, value)
            self.journal.steps.append(entry)
            self.journal.save()
        return entry.value

    @contextlib.contextmanager
    def endpoint(self, title: str, model: Members, config: Members, endpoint: Members) -> Iterator[str]:
        """Create a model, an endpoint configuration and an endpoint; yield their common name; delete them afterwards.

        Raises:
            JobFailedError: the endpoint did not come into service.
        """
        name = str(endpoint["EndpointName"])
        self.journal.endpoint = name
        self.journal.save()
        started = time.monotonic()
        try:
            self._start_endpoint(title, model, config, endpoint)
            yield name
            self._delete_endpoint(name)
        except BaseException:
            self._abandon_endpoint(name)
            raise
        finally:
            self._costs.add_endpoint(config, time.monotonic() - started)

    def _start_endpoint(self, title: str, model: Members, config: Members, endpoint: Members) -> None:
        sagemaker, name = self.backend.sagemaker, endpoint["EndpointName"]
        with self._progress.step(title) as display:
            sagemaker.create_model(**self._complete("CreateModel", model))
            sagemaker.create_endpoint_config(**self._complete("CreateEndpointConfig", config))
            with self.guard.creating():
                sagemaker.create_endpoint(**self._complete("CreateEndpoint", endpoint))
            description = self._follower.follow(ENDPOINT, name, display)
            check_success(ENDPOINT, name, description, display)

    def _delete_endpoint(self, name: str) -> None:
        delete_endpoint(self.backend, name, self._progress.note)
        self.journal.endpoint = None
        self.journal.save()

    def _abandon_endpoint(self, name: str) -> None:
        """Delete an endpoint after a failure. If that fails, too, the journal keeps the name."""
        if self._keep:
            self._progress.note(f"endpoint {name} is kept, and costs until it is deleted: {self._stop_command(name)}")
            return
        try:
            self._delete_endpoint(name)
        except (ClientError, BotoCoreError, LauncherError) as error:
            self._progress.note(f"endpoint {name} could not be deleted ({error}): {self._stop_command(name)}")

    def _complete(self, operation: str, request: Members) -> Members:
        return self.backend.complete(self.id, operation, request)

    @contextlib.contextmanager
    def _stopped_on_failure(self, kind: Kind, name: str) -> Iterator[None]:
        """Stop the job if Ctrl-C or a failure of the launcher ends the block."""
        try:
            yield
        except BaseException:
            if self._keep:
                self._progress.note(f"{name} is left as it is: {self._stop_command(name)}")
                raise
            self._progress.note(f"stopping {name}")
            try:
                self._stop(kind, name)
            except (ClientError, BotoCoreError) as error:
                self._progress.note(f"{name} could not be stopped ({error}): {self._stop_command(name)}")
            raise

    def _stop_command(self, name: str) -> str:
        return f"`microjobs stop {name}{'' if self.journal.on == 'here' else f' --on {self.journal.on}'}`"

    def _stop(self, kind: Kind, name: str) -> None:
        if not kind.stop(self.backend.sagemaker, name):
            return
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            description = kind.describe(self.backend.sagemaker, name)
            if description is None or description[kind.status_member] not in kind.life.transitional:
                self._costs.add_job(kind, description)
                return
            time.sleep(self.backend.poll_interval)
        self._progress.note(f"{name} has not stopped after {STOP_TIMEOUT} s: `microjobs ps` shows it")
