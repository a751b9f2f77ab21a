"""Steps of executions in the state: one record per step that has started."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.values import Step
from microjobs_orchestrator.local.state import Owner, Query, Record, State

STEP_KIND = "pipeline-execution-step"
"""The kind of the records. AWS has no ARN for a step."""
EXECUTION_KIND = "pipeline-execution"
MAX_REASON_CHARACTERS = 1024
MAX_STEPS = 100_000
"""Maximum number of steps that are read for one execution."""

# Keys of the internal state:
REQUEST = "Request"
"""The resolved arguments."""
RESOURCE = "Resource"
"""The name of the created resource. For a model package, its ARN."""
OUTPUTS = "Outputs"
"""The outputs of a step that creates no resource. For a ForEach step, its items."""
RETRY_TIME = "RetryTime"
"""The time of the next attempt, in seconds since 1970."""


class StepStatus(StrEnum):
    """AWS's statuses of steps."""

    STARTING = "Starting"
    EXECUTING = "Executing"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


FINAL_STATUSES = (StepStatus.STOPPED, StepStatus.FAILED, StepStatus.SUCCEEDED)


@dataclass(frozen=True)
class Failure:
    """The failure of an attempt."""

    reason: str
    exception_type: str = ""
    """The type by which retry policies select failures, such as `Step.THROTTLING`; empty if no policy can select this
    failure, for example because of an invalid argument."""


@dataclass(frozen=True)
class StepChange:
    """A change of a step: its new status, metadata and failure."""

    status: StepStatus
    metadata: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    internal: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the internal state."""


@dataclass(frozen=True)
class Iteration:
    """The iteration of a ForEach step that a step belongs to."""

    parent: str
    """The name of the ForEach step."""
    index: int
    item: Any
    body: frozenset[str]
    """The names of the steps in the body of the ForEach step."""

    @property
    def suffix(self) -> str:
        """The end of the names of all steps of the iteration."""
        return f"-{self.index}"

    def describe(self) -> dict[str, Any]:
        """Return the IterationContext of the steps of the iteration."""
        item = self.item if isinstance(self.item, str) else json.dumps(self.item)
        return {"ParentStepName": self.parent, "Index": self.index, "Item": item}


class StepRun:
    """A started step of an execution, and its record."""

    def __init__(self, state: State, step: Step, record: Record, iteration: Iteration | None = None) -> None:
        self._state = state
        self.step = step
        self.record = record
        self.iteration = iteration
        self.chosen_name = ""
        """The name of the resource that the current attempt will create; empty until it is chosen."""
        self.properties: Mapping[str, Any] | None = None
        """The properties that other steps read; None until a step reads one of them."""

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def status(self) -> StepStatus:
        return StepStatus(self.record.status)

    @property
    def has_ended(self) -> bool:
        return self.status in FINAL_STATUSES

    @property
    def attempt_count(self) -> int:
        return int(self.record.description["AttemptCount"])

    @property
    def metadata(self) -> Mapping[str, Any]:
        members: Mapping[str, Any] = self.record.description.get("Metadata", {})
        return members

    def store(self, step_change: StepChange, **members: Any) -> None:
        """Store a change of the step."""
        if step_change.status in FINAL_STATUSES:
            members["EndTime"] = time.time()
        if step_change.failure is not None and step_change.status is StepStatus.FAILED:
            members["FailureReason"] = step_change.failure.reason[:MAX_REASON_CHARACTERS]
        if step_change.metadata:
            members["Metadata"] = step_change.metadata
        changes = {"StepStatus": step_change.status, **members}
        changed_record = self._state.update(
            STEP_KIND, self.record.name, changes, step_change.status, internal=dict(step_change.internal)
        )
        assert changed_record is not None  # noqa: S101  only the execution deletes its steps
        self.record = changed_record


def add_step(state: State, execution_id: str, step: Step, iteration: Iteration | None = None) -> StepRun:
    """Add the record of a step that starts."""
    name = f"{execution_id}/{step.name}"
    description = {
        "StepName": step.name,
        **({"StepDisplayName": step.display_name} if step.display_name else {}),
        **({"StepDescription": step.description} if step.description else {}),
        **({"IterationContext": iteration.describe()} if iteration else {}),
        "StepStatus": StepStatus.STARTING,
        "StartTime": time.time(),
        "AttemptCount": 1,
    }
    owner = Owner(EXECUTION_KIND, execution_id)
    record = state.add(STEP_KIND, name, f"{STEP_KIND}/{name}", StepStatus.STARTING, {}, description, owner=owner)
    return StepRun(state, step, record, iteration)


def list_steps(state: State, execution_id: str, *, descending: bool = True) -> list[Record]:
    """Return the records of an execution's steps, sorted by their start, by default the latest first."""
    owner = Owner(EXECUTION_KIND, execution_id)
    return state.find(Query(STEP_KIND, owner=owner, descending=descending, limit=MAX_STEPS))


def reset_step(state: State, record: Record) -> None:
    """Prepare another start of a step that did not succeed.

    A ForEach step keeps its items and the iterations that succeeded.
    """
    if "ForEach" not in record.description.get("Metadata", {}):
        state.delete(STEP_KIND, record.name)
        return
    status = StepStatus.EXECUTING
    state.update(STEP_KIND, record.name, {"StepStatus": status, "EndTime": None, "FailureReason": None}, status)
