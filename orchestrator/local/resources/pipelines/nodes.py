"""The steps of an execution that may run, and when each of them starts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from microjobs_orchestrator.local.resources.pipelines.definition.graph import find_dependencies
from microjobs_orchestrator.local.resources.pipelines.definition.values import (
    Definition,
    Dependency,
    Step,
    Trigger,
)
from microjobs_orchestrator.local.resources.pipelines.step_run import Iteration, StepRun, StepStatus

TRIGGERS: Mapping[Trigger, tuple[StepStatus, ...]] = {
    Trigger.COMPLETED: (StepStatus.SUCCEEDED,),
    Trigger.FAILED: (StepStatus.FAILED,),
    Trigger.STOPPED: (StepStatus.STOPPED,),
    Trigger.ANY: (StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.STOPPED),
}
"""The statuses of a step that let a dependent step start."""


@dataclass(frozen=True)
class Gate:
    """The outcome of a Condition step that runs a branch."""

    condition: str
    outcome: str

    def is_open(self, runs: Mapping[str, StepRun]) -> bool:
        run = runs.get(self.condition)
        return run is not None and run.metadata.get("Condition", {}).get("Outcome") == self.outcome


@dataclass(frozen=True)
class Node:
    """A step that may run, or one iteration of a step in the body of a ForEach step."""

    step: Step
    dependencies: tuple[Dependency, ...]
    gate: Gate | None = None
    iteration: Iteration | None = None

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def follows_failures(self) -> bool:
        """Whether the step runs because another step has failed or was stopped."""
        return any(dependency.trigger is not Trigger.COMPLETED for dependency in self.dependencies)

    def can_start(self, runs: Mapping[str, StepRun]) -> bool:
        """Return whether the step has not started, its branch was chosen, and its dependencies are satisfied.

        Args:
            runs: the steps that have started, by name.
        """
        if self.name in runs or (self.gate is not None and not self.gate.is_open(runs)):
            return False
        return all(_is_met(dependency, runs) for dependency in self.dependencies)


def _is_met(dependency: Dependency, runs: Mapping[str, StepRun]) -> bool:
    run = runs.get(dependency.step)
    return run is not None and run.status in TRIGGERS[dependency.trigger]


def list_nodes(definition: Definition) -> dict[str, Node]:
    """Return the nodes of a definition by name, without the steps in bodies of ForEach steps."""
    return {node.name: node for step in definition.steps for node in _walk(step, None)}


def _walk(step: Step, gate: Gate | None) -> Iterator[Node]:
    yield Node(step, find_dependencies(step), gate)
    for steps, outcome in ((step.if_steps, "True"), (step.else_steps, "False")):
        for inner in steps:
            yield from _walk(inner, Gate(step.name, outcome))


def list_iteration(iteration: Iteration, body: tuple[Step, ...]) -> Iterator[Node]:
    """Yield the nodes of one iteration of a ForEach step. They depend on each other, but not on other iterations."""
    for step in body:
        dependencies = tuple(
            replace(dependency, step=f"{dependency.step}{iteration.suffix}")
            if dependency.step in iteration.body
            else dependency
            for dependency in find_dependencies(step)
        )
        yield Node(replace(step, name=f"{step.name}{iteration.suffix}"), dependencies, iteration=iteration)


def has_follower(nodes: Mapping[str, Node], run: StepRun) -> bool:
    """Return whether a failed or stopped step has a dependent step that runs because of that."""
    return any(
        dependency.step == run.name and run.status in TRIGGERS[dependency.trigger]
        for node in nodes.values()
        for dependency in node.dependencies
    )
