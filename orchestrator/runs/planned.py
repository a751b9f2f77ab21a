"""Requests that a workflow will send. Runs send them, dry runs print them, and cost estimates add them up."""

from collections.abc import Sequence
from dataclasses import dataclass

from microjobs_orchestrator.runs.backend import RequestContext
from microjobs_orchestrator.runs.kinds import Kind, Members


class RunContext:
    """The values that a run's requests contain. `id` is the run's name, and the folder of its data.

    Args:
        backend: the values of the destination, such as the role. It is a whole `Backend` only for runs, which send
            requests.
    """

    def __init__(self, backend: RequestContext, id: str) -> None:
        self.backend = backend
        self.id = id

    def name(self, step: str) -> str:
        """Return the name of a step's resource. In a resumed run, the name has a suffix: see `Run.name`."""
        return f"{self.id}-{step}"

    def uri(self, name: str) -> str:
        """Return the S3 URI of a file or folder of the run."""
        return self.backend.uri(f"{self.id}/{name}")


@dataclass(frozen=True)
class PlannedRequest:
    """A Create request of a step."""

    step: str
    title: str
    """The name of the step for the user."""
    kind: Kind
    members: Members
    """The members of the request."""
    result_step: str = ""
    """The step that stores the result for which the resource is needed: the endpoint is needed for the step
    `predictions`. If this step has finished, a resumed run does not create the resource again. The name is empty for
    jobs: a resumed run does not repeat a finished job."""

    @property
    def operation(self) -> str:
        """The name of the operation, such as `CreateTrainingJob`."""
        return self.kind.operations["Create"]

    @property
    def name(self) -> str:
        """The name of the resource."""
        return str(self.members[self.kind.name_member])


def select_remaining(requests: Sequence[PlannedRequest], finished_steps: set[str]) -> list[PlannedRequest]:
    """Return the requests that a resumed run will send."""
    return [planned for planned in requests if (planned.result_step or planned.step) not in finished_steps]
