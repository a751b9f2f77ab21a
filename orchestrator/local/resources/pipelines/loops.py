"""ForEach steps: their iterations, and their results.

The body of a ForEach step becomes one node per step and item, such as `Process-0`. The execution runs these nodes like
other nodes, but at most MaxConcurrency of them at the same time.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    ExpressionError,
    Scope,
    find_references,
    resolve,
)
from microjobs_orchestrator.local.resources.pipelines.definition.messages import get_type_name, quote
from microjobs_orchestrator.local.resources.pipelines.definition.values import Step
from microjobs_orchestrator.local.resources.pipelines.nodes import Node, list_iteration_nodes
from microjobs_orchestrator.local.resources.pipelines.scope import ExecutionValues, StepScope
from microjobs_orchestrator.local.resources.pipelines.step_run import (
    OUTPUTS,
    Failure,
    Iteration,
    StepChange,
    StepRun,
    StepStatus,
)
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner

MAX_ITEMS = 1000
"""Maximum number of items of one ForEach step, if an expression gives the items."""


class ForEachRunner(Runner):
    """Starts ForEach steps. `Loops` then runs their iterations and ends them."""

    def resolve(self, step: Step, scope: Scope) -> Mapping[str, Any]:
        items = resolve(step.arguments["IterableItems"], scope)
        if isinstance(items, str):
            try:
                items = json.loads(items)
            except (ValueError, RecursionError) as error:
                raise ExpressionError(f"IterableItems {quote(items)} is not JSON: {error}") from error
        if not isinstance(items, list):
            raise ExpressionError(f"IterableItems must be a list, not {get_type_name(items)}: {quote(items)}")
        if len(items) > MAX_ITEMS:
            raise ExpressionError(f"IterableItems has {len(items)} items, more than {MAX_ITEMS}")
        return {"Items": items}

    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> StepChange:  # noqa: ARG002
        metadata = {"ForEach": {"InputItemCount": len(arguments["Items"])}}
        return StepChange(StepStatus.EXECUTING, metadata, internal={OUTPUTS: arguments})

    def poll(self, run: StepRun) -> StepChange:
        return StepChange(run.status, run.metadata)

    def stop(self, run: StepRun) -> StepChange:
        return StepChange(StepStatus.STOPPING, run.metadata)

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        properties: Mapping[str, Any] = run.metadata["ForEach"]
        return properties


class Loops:
    """The ForEach steps of one execution that have started.

    Args:
        nodes: all nodes of the execution; iterations are added to them.
        runs: the steps that have started, by name.
    """

    def __init__(
        self,
        nodes: dict[str, Node],
        runs: Mapping[str, StepRun],
        values: ExecutionValues,
        read_properties: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._nodes = nodes
        self._runs = runs
        self._values = values
        self._read_properties = read_properties

    def expand(self, run: StepRun) -> None:
        """Add the iterations of a ForEach step that has started."""
        for iteration in _list_iterations(run):
            self._nodes.update({node.name: node for node in list_iteration_nodes(iteration, run.step.body)})

    def list_active_loops(self) -> list[StepRun]:
        return [run for run in self._runs.values() if run.step.body and not run.has_ended]

    def find_blocked_loops(self) -> frozenset[str]:
        """Return the names of the ForEach steps that may start no step now: they run MaxConcurrency steps, are being
        stopped, or have ended."""
        running_counts = Counter(
            run.iteration.parent for run in self._runs.values() if run.iteration and not run.has_ended
        )
        loops = (run for run in self._runs.values() if run.step.body)
        return frozenset(
            run.name
            for run in loops
            if run.has_ended
            or run.status is StepStatus.STOPPING
            or running_counts[run.name] >= int(run.step.arguments["MaxConcurrency"])
        )

    def is_waiting(self, run: StepRun, may_start: Callable[[Node], bool]) -> bool:
        """Return whether a ForEach step must wait: a step of its iterations runs, or will start when the limit of
        parallel steps allows it.

        Args:
            may_start: a function that returns whether a node may start. It ignores this limit.
        """
        if any(not child.has_ended for child in self._list_children(run)):
            return True
        children = (node for node in self._nodes.values() if node.iteration and node.iteration.parent == run.name)
        return any(may_start(node) for node in children)

    def _list_children(self, run: StepRun) -> list[StepRun]:
        return [child for child in self._runs.values() if child.iteration and child.iteration.parent == run.name]

    def end(self, run: StepRun) -> StepChange:
        """Return the result of a ForEach step whose iterations have ended."""
        counts = Counter(child.status for child in self._list_children(run))
        items, total = run.record.internal[OUTPUTS]["Items"], self._count_steps(run)
        metadata = {
            "InputItemCount": len(items),
            "TotalStepCount": total,
            "SucceededStepCount": counts[StepStatus.SUCCEEDED],
            "FailedStepCount": counts[StepStatus.FAILED],
            "StoppedStepCount": counts[StepStatus.STOPPED],
        }
        failure = None
        if counts[StepStatus.FAILED]:
            status, failure = StepStatus.FAILED, Failure(f"{counts[StepStatus.FAILED]} of {total} steps failed.")
        elif counts[StepStatus.SUCCEEDED] == total:
            status = StepStatus.SUCCEEDED
        else:
            status = StepStatus.STOPPED
        try:
            selected = self._apply_selector(run) if status is StepStatus.SUCCEEDED else {}
        except ExpressionError as error:
            status, failure, selected = StepStatus.FAILED, Failure(f"ClientError: Selector: {error}"), {}
        return StepChange(status, {"ForEach": {**metadata, "Status": status, **selected}}, failure)

    def _count_steps(self, run: StepRun) -> int:
        return len(run.record.internal[OUTPUTS]["Items"]) * len(run.step.body)

    def _apply_selector(self, run: StepRun) -> Mapping[str, Any]:
        """Return the member Selector of the metadata. It names the step with the largest or smallest value of a
        field. Return no member if the step has no Selector, or no items."""
        iterations = list(_list_iterations(run))
        if "Selector" not in run.step.arguments or not iterations:
            return {}
        selector = run.step.arguments["Selector"]
        (reference,) = find_references(selector["Field"])
        values = [_read_number(resolve(selector["Field"], StepScope(self._values, item))) for item in iterations]
        best = max(values) if selector["Pick"] == "MaxBy" else min(values)
        index = values.index(best)
        return {"Selector": {"StepName": f"{reference.name}{iterations[index].suffix}", "Index": index}}

    def read_results(self, run: StepRun) -> Mapping[str, Any]:
        """Return the properties of a ForEach step that depend on its iterations."""
        outputs = [
            {step.name: self._read_properties(f"{step.name}{iteration.suffix}") for step in run.step.body}
            for iteration in _list_iterations(run)
        ]
        selector = run.metadata["ForEach"].get("Selector")
        selected = {"Selected": self._read_properties(selector["StepName"])} if selector else {}
        return {"IterationOutputs": outputs, **selected}


def _list_iterations(run: StepRun) -> Iterator[Iteration]:
    body = frozenset(step.name for step in run.step.body)
    for index, item in enumerate(run.record.internal[OUTPUTS]["Items"]):
        yield Iteration(run.name, index, item, body)


def _read_number(value: Any) -> float:
    """Return a value that a selector compares. Raise ExpressionError if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ExpressionError(f"{quote(value)} is not a number") from None
