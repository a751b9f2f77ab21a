"""The plan of a workflow: the requests that it will send. Dry runs print it, and cost estimates add it up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from microjobs_orchestrator.runs.kinds import Members


class Namer(Protocol):
    """Names the jobs, models and endpoints of a run."""

    @property
    def id(self) -> str:
        """The run's name, and the folder of its data."""
        ...

    def name(self, step: str) -> str:
        """Return the name of a step's resource."""
        ...


@dataclass(frozen=True)
class PlanNames:
    """The names of a run's first attempt."""

    id: str

    def name(self, step: str) -> str:
        return f"{self.id}-{step}"


@dataclass(frozen=True)
class PlannedRequest:
    """A request that a workflow will send."""

    step: str
    title: str
    operation: str
    """The name of the operation, such as `CreateTrainingJob`."""
    request: Members
    value_step: str = ""
    """The step that stores what this request is for: once it has finished, the request is not sent again.
    Empty: `step` itself."""


def remaining(plan: Sequence[PlannedRequest], finished_steps: set[str]) -> list[PlannedRequest]:
    """Return the requests that a resumed run will send."""
    return [planned for planned in plan if (planned.value_step or planned.step) not in finished_steps]
