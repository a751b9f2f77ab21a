"""Greetings while they run: one attempt on one host."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from microjobs_orchestrator.local.resources.greeting.kinds import GREETING

from microjobs_orchestrator.local.lifecycle.attempt import Attempt
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.job import SERVER_ENDED, JobHandle
from microjobs_orchestrator.local.runtimes.base import Host, HostPlan, Plan
from microjobs_orchestrator.local.state import Record

IMAGE = "microjobs/serve:dev"
"""The image that runs, before the aliases of the configuration."""

MAX_RUNTIME = 86_400
"""Seconds."""


class GreetingRun:
    def __init__(self, context: Context, record: Record) -> None:
        self.job = JobHandle(context, record, GREETING)
        self.events = self.job.events
        self.plan_name = self.job.plan_name

    def run(self) -> None:
        self.job.run(self._run)

    def recover(self, hosts: Sequence[Host]) -> None:
        """Resume with the hosts that an earlier server left; without them the run has failed, or was stopped."""
        if hosts or self.events.stop_reason is not None:
            self.job.run(partial(self._run, hosts))
        else:
            self.job.run(partial(self.job.fail, SERVER_ENDED))

    def _run(self, hosts: Sequence[Host] = ()) -> None:
        attempt = Attempt(self.plan_name, self.job.context.image(IMAGE), self._make_plan, self.job.open_stream)
        outcome = self.job.run_attempt(attempt, hosts, self._handle_start)
        result = self.job.result(outcome)
        self.job.end(result.status, FailureReason=result.reason)

    def _handle_start(self, hosts: Sequence[Host]) -> float:  # noqa: ARG002  for runs that collect while they run
        """Describe the start; return the seconds that the hosts may run."""
        return MAX_RUNTIME - self.job.describe_start()

    def _make_plan(self, folder: Path) -> Plan:
        """Return what runs. The host finds the files below `files` in the root of the contract."""
        files = folder / "files"
        files.mkdir()
        script = f"echo hello from {self.job.name}"
        image = self.job.context.image(IMAGE)
        host = HostPlan("algo-1", image, files, entrypoint=("sh",), arguments=("-c", script))
        return Plan(self.plan_name, (host,))
