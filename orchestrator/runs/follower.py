"""Follows a job or an endpoint until it has ended or is in service."""

import time

from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.costs import CostMeter
from microjobs_orchestrator.runs.kinds import Kind, Members
from microjobs_orchestrator.runs.logs import ClientTail
from microjobs_orchestrator.runs.progress import Progress, StepDisplay
from microjobs_orchestrator.runs.trials import list_trials

POLLS_PER_DURATION = 40
"""A job that has run for a time t is polled every t / POLLS_PER_DURATION, within the backend's bounds. Fewer polls
leave more processor time to jobs on this machine."""


class Follower:
    """Polls resources and shows their status, cost and log."""

    def __init__(self, backend: Backend, progress: Progress, costs: CostMeter) -> None:
        self._backend = backend
        self._progress = progress
        self._costs = costs

    def follow(self, kind: Kind, name: str, display: StepDisplay) -> Members:
        """Follow a resource until it ends or is in service, and return its last description.

        Raises:
            JobFailedError: the resource was deleted, or did not come into service in time.
        """
        tail = ClientTail(kind, name, self._backend.logs)
        while True:
            description = kind.describe(self._backend.sagemaker, name)
            if description is None:
                raise display.make_failure(name, "deleted", "it no longer exists")
            is_final = description[kind.status_member] not in kind.lifecycle.transitional_statuses
            self._show(kind, name, description, display)
            self._show_log(kind, tail, display, is_final=is_final)
            if is_final:
                return description
            self._check_time(kind, name, description, display)
            interval = max(self._backend.poll_interval, display.seconds / POLLS_PER_DURATION)
            time.sleep(min(interval, self._backend.max_poll_interval))

    def _show(self, kind: Kind, name: str, description: Members, display: StepDisplay) -> None:
        status = description[kind.status_member]
        secondary_status = description.get("SecondaryStatus", status)
        self._progress.show_status(display, status if secondary_status == status else f"{status}: {secondary_status}")
        display.cost = self._costs.format_total(kind, description)
        if kind.has_trials:
            self._progress.show_trials(display, list_trials(self._backend, name))

    def _show_log(self, kind: Kind, tail: ClientTail, display: StepDisplay, *, is_final: bool) -> None:
        """Show new lines. A running job with trials has many streams, which are read only if they are shown."""
        if is_final:
            self._progress.show_log(display, tail.read_remaining())
        elif not kind.has_trials or self._progress.verbose:
            self._progress.show_log(display, tail.read())

    def _check_time(self, kind: Kind, name: str, description: Members, display: StepDisplay) -> None:
        limit = self._backend.max_seconds
        if kind.lifecycle.runs_until_deleted and display.seconds > limit:
            raise display.make_failure(name, description[kind.status_member], f"not in service within {limit} s")


def check_success(kind: Kind, name: str, description: Members, display: StepDisplay) -> None:
    """Raise JobFailedError if the final status of a resource is not its kind's status of success."""
    status = description[kind.status_member]
    if status != kind.lifecycle.success_status:
        raise display.make_failure(name, status, description.get("FailureReason") or "no reason was reported")
