"""Requests that a workflow will send. Dry runs print them, and cost estimates add them up."""

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
class FirstAttemptNames:
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


def select_remaining(requests: Sequence[PlannedRequest], finished_steps: set[str]) -> list[PlannedRequest]:
    """Return the requests that a resumed run will send."""
    return [planned for planned in requests if (planned.value_step or planned.step) not in finished_steps]
