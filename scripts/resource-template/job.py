"""Runs greetings: one attempt on one host."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from microjobs_orchestrator.local.resources.greeting.kinds import GREETING

from microjobs_orchestrator.local.lifecycle.attempt import Attempt
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import SERVER_ENDED_REASON, JobHandle
from microjobs_orchestrator.local.runtimes.base import Host, HostPlan, Plan
from microjobs_orchestrator.local.state import Record

IMAGE = "microjobs/serve:dev"
"""The image of the host. The setting `local.images` can replace it by another image."""

MAX_RUNTIME_SECONDS = 86_400


class GreetingRun:
    def __init__(self, context: Context, record: Record) -> None:
        self.job = JobHandle(context, record, GREETING)
        self.events = self.job.events
        self.plan_name = self.job.plan_name

    def run(self) -> None:
        self.job.run(self._run)

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume with the hosts of an earlier server.

        If there are no hosts, the run fails. After a stop request, however, it ends as stopped: `_run` then starts no
        hosts.
        """
        if hosts or self.events.stop_reason is not None:
            self.job.run(partial(self._run, hosts))
        else:
            self.job.run(partial(self.job.fail, SERVER_ENDED_REASON))

    def _run(self, hosts: Sequence[Host] = ()) -> None:
        attempt = Attempt(self.plan_name, IMAGE, self._make_plan, self.job.open_stream)
        outcome = self.job.run_attempt(attempt, hosts, self._handle_start)
        end = self.job.determine_end(outcome)
        self.job.end(end.status, FailureReason=end.failure_reason)

    def _handle_start(self, hosts: Sequence[Host]) -> float:  # noqa: ARG002  other families read the hosts' output
        """Store the start in the description, and return the seconds that the hosts may still run."""
        self.job.store_start()
        return MAX_RUNTIME_SECONDS - self.job.compute_elapsed_seconds()

    def _make_plan(self, folder: Path) -> Plan:
        """Return the plan. The runtime copies the content of `files` to the contract's root before the host starts."""
        files = folder / "files"
        files.mkdir()
        script = f"echo hello from {self.job.name}"
        image = self.job.context.resolve_image(IMAGE)
        host = HostPlan("algo-1", image, files, entrypoint=("sh",), arguments=("-c", script))
        return Plan(self.plan_name, (host,))
