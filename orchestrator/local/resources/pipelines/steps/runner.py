"""The interface of step types, and the objects that they use."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.operation_calls import OperationCaller
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError, Scope, resolve
from microjobs_orchestrator.local.resources.pipelines.definition.values import Step
from microjobs_orchestrator.local.resources.pipelines.step_run import StepChange, StepRun, StepStatus


@dataclass(frozen=True)
class Tools:
    """The objects that the steps of one execution use."""

    context: Context
    registry: Registry
    operation_caller: OperationCaller
    execution_id: str
    execution_arn: str
    mlflow_config: Mapping[str, str] | None
    """MLflowConfig of the execution; None if MLflow does not track the execution."""
    find_run: "Callable[[str], StepRun | None]"
    """A function that takes the name of a step, and returns the step; None if it has not started."""
    notify: Callable[[], None]
    """A function that makes the execution update its running steps. Any thread may call it."""


class Runner(ABC):
    """Runs the steps of one type. The execution's thread calls all methods."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def resolve(self, step: Step, scope: Scope) -> Mapping[str, Any]:
        """Return the arguments of a step, with values in place of the expressions.

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
        raise ExpressionError(f"step {run.name} of type {run.step.type} has no job, and therefore no name of a job")

    @abstractmethod
    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> StepChange:
        """Start a step, or restart it after a crash of the server.

        Raises:
            ServiceError: the request of the step is refused.
        """

    def poll(self, run: StepRun) -> StepChange:
        """Check the work of a running step. Return the change of the step since it was last stored."""
        return StepChange(run.status)

    def stop(self, run: StepRun) -> StepChange:  # noqa: ARG002
        """Ask a step to stop, and return the change of the step. By default, the step stops immediately."""
        return StepChange(StepStatus.STOPPED)

    def is_lost(self, run: StepRun) -> bool:  # noqa: ARG002
        """Return whether a step must be restarted, because its work was lost when an earlier server ended."""
        return False

    def has_result(self, internal: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Return whether the result of an earlier step with this internal state still exists."""
        return True

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the properties of a step that succeeded."""
        return {}
