"""Executions of pipelines while they run.

The thread of an execution starts steps whose dependencies have ended, and waits for an event, such as the end of a
step's job, or a stop request. A later server can continue with the records of the steps in the state.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Change, EventQueue, StopReason
from microjobs_orchestrator.local.lifecycle.job import INTERNAL_ERROR, make_failure_reason
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.operation_calls import OperationCaller
from microjobs_orchestrator.local.resources.pipelines.attempts import Attempts
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError
from microjobs_orchestrator.local.resources.pipelines.definition.parse import parse_definition
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE_EXECUTION, ExecutionStatus
from microjobs_orchestrator.local.resources.pipelines.loops import Loops
from microjobs_orchestrator.local.resources.pipelines.nodes import Node, has_follower, list_nodes
from microjobs_orchestrator.local.resources.pipelines.scope import ExecutionValues, make_variables
from microjobs_orchestrator.local.resources.pipelines.selection import read_selection
from microjobs_orchestrator.local.resources.pipelines.step_run import (
    FINAL_STATUSES,
    OUTPUTS,
    RETRY_TIME,
    Failure,
    StepChange,
    StepRun,
    StepStatus,
    list_steps,
)
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Tools
from microjobs_orchestrator.local.resources.pipelines.steps.types import make_runners
from microjobs_orchestrator.local.resources.pipelines.tracking import MLFLOW_CONFIG
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record
from microjobs_orchestrator.terminal import strip_controls

logger = logging.getLogger(__name__)

DEFINITION, PARAMETERS = "Definition", "Parameters"
"""Keys of the stored request. `Definition` has the text of the definition. `Parameters` has the values of all
parameters by name; each value has the type of its parameter."""
MAX_PARALLEL_STEPS = 50
"""Maximum number of steps that run at the same time, unless the execution has a ParallelismConfiguration."""
MAX_REASON_CHARACTERS = 1300
FAILED_REASON = "Step failure: One or multiple steps failed."
SHUT_DOWN_REASON = f"{INTERNAL_ERROR}: the local server was shut down while the execution ran"


class Execution:
    """A running execution."""

    def __init__(self, context: Context, record: Record, registry: Registry) -> None:
        self.events = EventQueue()
        self.plan_name = f"{PIPELINE_EXECUTION.arn_type}/{record.name}"
        self._context = context
        self._record = record
        definition = parse_definition(record.request[DEFINITION])
        self._nodes = list_nodes(definition)
        self._runs: dict[str, StepRun] = {}
        """The steps that have started, by name."""
        selection = read_selection(definition, record.request)
        if selection is not None:
            included_steps = selection.selected_steps | selection.reused_steps
            self._nodes = {name: node for name, node in self._nodes.items() if name in included_steps}
        tools = Tools(
            context,
            registry,
            OperationCaller(context, registry),
            execution_id=record.name,
            execution_arn=record.arn,
            mlflow_config=record.description.get(MLFLOW_CONFIG),
            find_run=self._runs.get,
            notify=self._notify,
        )
        values = ExecutionValues(
            definition,
            context.store,
            parameters=record.request[PARAMETERS],
            variables=make_variables(record.arn, record.created),
            read_properties=self._read_properties,
        )
        self._attempts = Attempts(tools, make_runners(tools), values, selection)
        self._loops = Loops(self._nodes, self._runs, values, self._read_properties)

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:
            logger.exception("%s failed", self.plan_name)
            reason = make_failure_reason(error)
            for run in self._list_active_runs():
                self._fail_step(run, reason)
            self._end(ExecutionStatus.FAILED, reason)

    def _fail_step(self, run: StepRun, reason: str) -> None:
        """Stop the work of a step, and describe its failure. Raise no error, so that other steps are stopped too."""
        try:
            self._attempts.stop(run)
        except Exception:
            logger.exception("step %s of %s could not be stopped", run.name, self.plan_name)
        with suppress(Exception):  # the first error has been logged
            run.store(StepChange(StepStatus.FAILED, run.metadata, Failure(reason)))

    def recover(self, hosts: Sequence[Host]) -> None:  # noqa: ARG002  an execution has no hosts
        """Continue after a restart of the server. The server has already resumed the jobs of the steps."""
        for record in list_steps(self._context.state, self._record.name, descending=False):
            node = self._nodes[record.description["StepName"]]
            self._add_run(StepRun(self._context.state, node.step, record, node.iteration))
        self.run()

    def _notify(self) -> None:
        self.events.send(Change.OWNED_RESOURCE_CHANGED)

    def _run(self) -> None:
        self._restart_interrupted_steps()
        while True:
            self._advance()
            if not self._list_active_runs():
                break
            self.events.wait(self._find_timeout())
        self._end(*self._find_final_status())

    # --- steps ---

    def _restart_interrupted_steps(self) -> None:
        """Restart the steps whose start was interrupted, or whose work was lost, when an earlier server ended."""
        for run in self._list_active_runs():
            if self.events.stop_reason is None and self._attempts.is_interrupted(run):
                self._attempts.start(run)
                self._add_run(run)

    def _advance(self) -> None:
        """Update all running steps, and start steps until no other step can start."""
        for run in self._list_active_runs():
            if self.events.stop_reason is not None:
                self._attempts.stop(run)
            if not run.has_ended:
                self._attempts.update(run)
        max_parallel_steps = self._read_max_parallel_steps()
        self._start_steps(max_parallel_steps)
        while self._end_loops():
            self._start_steps(max_parallel_steps)

    def _start_steps(self, max_parallel_steps: int) -> None:
        while (node := self._find_next_node(max_parallel_steps)) is not None:
            self._add_run(self._attempts.start_first_attempt(node))

    def _add_run(self, run: StepRun) -> None:
        """Add a step that has started, and the iterations of a ForEach step."""
        self._runs[run.name] = run
        if run.step.body and OUTPUTS in run.record.internal:
            self._loops.expand(run)

    def _end_loops(self) -> bool:
        """End the ForEach steps whose iterations have ended; return whether any step was ended."""
        ended_runs = [
            run for run in self._loops.list_active_loops() if not self._loops.is_waiting(run, self._may_start)
        ]
        for run in ended_runs:
            self._attempts.store(run, self._loops.end(run))
        return bool(ended_runs)

    def _find_next_node(self, max_parallel_steps: int) -> Node | None:
        """Return a step to start now, or None if no other step can start."""
        running_count = sum(not run.step.body for run in self._list_active_runs())  # a ForEach step only waits
        if running_count >= max_parallel_steps:
            return None
        blocked_loops = self._loops.find_blocked_loops()
        nodes = (
            node for node in self._nodes.values() if not (node.iteration and node.iteration.parent in blocked_loops)
        )
        return next(filter(self._may_start, nodes), None)

    def _may_start(self, node: Node) -> bool:
        """Return whether a step may start if the number of parallel steps allows it.

        After a failure that lets no dependent step run, only steps that wait for failures or stops may start.
        """
        if self.events.stop_reason is not None or not node.can_start(self._runs):
            return False
        return node.follows_failures or not any(self._list_failed_runs(has_followers=False))

    def _read_max_parallel_steps(self) -> int:
        """Return the current limit, which UpdatePipelineExecution can change."""
        record = self._context.state.get(PIPELINE_EXECUTION.arn_type, self._record.name) or self._record
        limit: int = record.description.get("ParallelismConfiguration", {}).get(
            "MaxParallelExecutionSteps", MAX_PARALLEL_STEPS
        )
        return limit

    def _list_active_runs(self) -> list[StepRun]:
        return [run for run in self._runs.values() if not run.has_ended]

    def _find_timeout(self) -> float | None:
        """Return the seconds until the next attempt of a step; None if no step waits for an attempt."""
        times = [
            retry_time
            for run in self._list_active_runs()
            if (retry_time := run.record.internal.get(RETRY_TIME)) is not None
        ]
        return max(0.0, min(times) - time.time()) if times else None

    def _read_properties(self, step_name: str) -> Mapping[str, Any]:
        run = self._runs.get(step_name)
        if run is None or run.status is not StepStatus.SUCCEEDED:
            raise ExpressionError(f"step {step_name} did not succeed")
        if run.step.body:
            return {**self._attempts.read_properties(run), **self._loops.read_results(run)}
        return self._attempts.read_properties(run)

    # --- the end ---

    def _list_failed_runs(self, *, has_followers: bool) -> Iterator[StepRun]:
        """Yield the steps that did not succeed.

        Args:
            has_followers: True to yield the steps whose failure or stop lets a dependent step run; False to yield the
                other steps.
        """
        # An iteration that fails is not listed, because its ForEach step also fails.
        steps = (run for run in self._runs.values() if run.iteration is None)
        ended_runs = (run for run in steps if run.status in FINAL_STATUSES and run.status is not StepStatus.SUCCEEDED)
        return (run for run in ended_runs if has_follower(self._nodes, run) == has_followers)

    def _find_final_status(self) -> tuple[ExecutionStatus, str | None]:
        if self.events.stop_reason is StopReason.SHUTDOWN:
            return ExecutionStatus.FAILED, SHUT_DOWN_REASON
        if self.events.stop_reason is not None:
            return ExecutionStatus.STOPPED, None
        if failed_runs := list(self._list_failed_runs(has_followers=False)):
            details = "; ".join(
                f"{run.name}: {run.record.description.get('FailureReason', run.status)}" for run in failed_runs
            )
            return ExecutionStatus.FAILED, f"{FAILED_REASON} {details}"
        if any(self._list_failed_runs(has_followers=True)):
            return ExecutionStatus.COMPLETED_WITH_FAILURES, None
        return ExecutionStatus.SUCCEEDED, None

    def _end(self, status: ExecutionStatus, reason: str | None) -> None:
        changes: dict[str, Any] = {PIPELINE_EXECUTION.status_member: status}
        if reason is not None:
            changes["FailureReason"] = strip_controls(reason)[:MAX_REASON_CHARACTERS]
        self._context.state.update(PIPELINE_EXECUTION.arn_type, self._record.name, changes, status)
