"""What a workflow is going to ask for, as plain values: for `--dry-run`, and for what it may cost."""

from dataclasses import dataclass
from typing import Protocol

from microjobs_orchestrator.runs.backend import Members


class Namer(Protocol):
    """Gives things their names: a run, or what stands for one before it starts."""

    @property
    def id(self) -> str: ...

    def name(self, step: str) -> str:
        """A step's name on SageMaker."""
        ...


@dataclass(frozen=True)
class PlanNames:
    """The names of a first attempt."""

    id: str

    def name(self, step: str) -> str:
        return f"{self.id}-{step}"


@dataclass(frozen=True)
class PlannedRequest:
    """A request that a workflow will send."""

    step: str
    title: str
    operation: str
    """Such as `CreateTrainingJob`."""
    request: Members
