"""The interface of step types, and the objects that they use."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.invocation import Invoker
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError, Scope, resolve
from microjobs_orchestrator.local.resources.pipelines.definition.values import Step
from microjobs_orchestrator.local.resources.pipelines.step_run import Progress, StepRun, StepStatus


@dataclass(frozen=True)
class Tools:
    """The objects that the steps of one execution use."""

    context: Context
    registry: Registry
    invoker: Invoker
    execution: str
    """The id of the execution."""
    execution_arn: str
    mlflow: Mapping[str, str] | None
    """MLflowConfig of the execution; None if MLflow does not track the execution."""
    find_run: "Callable[[str], StepRun | None]"
    """Returns a step that has started, by its name."""
    notify: Callable[[], None]
    """Makes the execution update its running steps. Any thread may call it."""


class Runner(ABC):
    """Runs the steps of one type. The execution's thread calls all methods."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def resolve(self, step: Step, scope: Scope) -> Mapping[str, Any]:
        """Return the arguments of a step without expressions.

        Raises:
            ExpressionError: a value that the step reads does not exist.
        """
        arguments: Mapping[str, Any] = resolve(dict(step.arguments), scope)
        return arguments

    def choose_name(self, run: StepRun) -> str:
        """Return the name of the job that a step is about to create.

        Raises:
            ExpressionError: the step creates no job.
        """
        raise ExpressionError(f"step {run.name} of type {run.step.type} has no job, and thus no name of a job")

    @abstractmethod
    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> Progress:
        """Start a step, or restart it after a crash of the server.

        Raises:
            ServiceError: the request of the step is refused.
        """

    def poll(self, run: StepRun) -> Progress:
        """Return the progress of a step that is executing."""
        return Progress(run.status)

    def stop(self, run: StepRun) -> Progress:  # noqa: ARG002
        """Request a step to stop. By default, it stops at once."""
        return Progress(StepStatus.STOPPED)

    def is_lost(self, run: StepRun) -> bool:  # noqa: ARG002
        """Return whether a step must be restarted, because its work ended with the earlier server."""
        return False

    def has_result(self, internal: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Return whether the result of an earlier step with this internal state still exists."""
        return True

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the properties of a step that succeeded."""
        return {}
