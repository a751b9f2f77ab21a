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
"""The statuses of a step that let a dependent step start, by the trigger of the dependency."""


@dataclass(frozen=True)
class BranchOutcome:
    """The outcome of a Condition step that lets a branch run."""

    condition: str
    """The name of the Condition step."""
    outcome: str
    """The outcome as text: `True` or `False`."""

    def has_occurred(self, runs: Mapping[str, StepRun]) -> bool:
        run = runs.get(self.condition)
        return run is not None and run.metadata.get("Condition", {}).get("Outcome") == self.outcome


@dataclass(frozen=True)
class Node:
    """A step that may run, or one iteration of a step in the body of a ForEach step."""

    step: Step
    dependencies: tuple[Dependency, ...]
    branch_outcome: BranchOutcome | None = None
    iteration: Iteration | None = None

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def follows_failures(self) -> bool:
        """Whether the step may run after another step has failed or was stopped."""
        return any(dependency.trigger is not Trigger.COMPLETED for dependency in self.dependencies)

    def can_start(self, runs: Mapping[str, StepRun]) -> bool:
        """Return whether the step has not started, its branch was chosen, and its dependencies are satisfied.

        Args:
            runs: the steps that have started, by name.
        """
        if self.name in runs or (self.branch_outcome is not None and not self.branch_outcome.has_occurred(runs)):
            return False
        return all(_is_met(dependency, runs) for dependency in self.dependencies)


def _is_met(dependency: Dependency, runs: Mapping[str, StepRun]) -> bool:
    run = runs.get(dependency.step)
    return run is not None and run.status in TRIGGERS[dependency.trigger]


def list_nodes(definition: Definition) -> dict[str, Node]:
    """Return the nodes of a definition by name, without the steps in bodies of ForEach steps."""
    return {node.name: node for step in definition.steps for node in _walk(step, None)}


def _walk(step: Step, branch_outcome: BranchOutcome | None) -> Iterator[Node]:
    yield Node(step, find_dependencies(step), branch_outcome)
    for steps, outcome in ((step.if_steps, "True"), (step.else_steps, "False")):
        for inner in steps:
            yield from _walk(inner, BranchOutcome(step.name, outcome))


def list_iteration_nodes(iteration: Iteration, body: tuple[Step, ...]) -> Iterator[Node]:
    """Yield the nodes of one iteration of a ForEach step.

    They may depend on each other and on steps outside of the loop, but not on other iterations.
    """
    for step in body:
        dependencies = tuple(
            replace(dependency, step=f"{dependency.step}{iteration.suffix}")
            if dependency.step in iteration.body
            else dependency
            for dependency in find_dependencies(step)
        )
        yield Node(replace(step, name=f"{step.name}{iteration.suffix}"), dependencies, iteration=iteration)


def has_follower(nodes: Mapping[str, Node], run: StepRun) -> bool:
    """Return whether the status of a failed or stopped step lets a dependent step start."""
    return any(
        dependency.step == run.name and run.status in TRIGGERS[dependency.trigger]
        for node in nodes.values()
        for dependency in node.dependencies
    )
