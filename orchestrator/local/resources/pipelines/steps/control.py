"""Steps that only decide how the execution continues: Condition and Fail."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.conditions import evaluate_all
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import Scope
from microjobs_orchestrator.local.resources.pipelines.definition.values import Step
from microjobs_orchestrator.local.resources.pipelines.step_run import Failure, StepChange, StepRun, StepStatus
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner

DEFAULT_MESSAGE = "The execution reached a Fail step."


class ConditionRunner(Runner):
    """Runs Condition steps, whose outcome decides which branch runs."""

    def resolve(self, step: Step, scope: Scope) -> Mapping[str, Any]:
        return {"Outcome": str(evaluate_all(step.arguments["Conditions"], scope))}

    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> StepChange:  # noqa: ARG002
        return StepChange(StepStatus.SUCCEEDED, {"Condition": arguments})

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        properties: Mapping[str, Any] = run.metadata["Condition"]
        return properties


class FailRunner(Runner):
    """Runs Fail steps, which always fail with a message."""

    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> StepChange:  # noqa: ARG002
        message = str(arguments.get("ErrorMessage", DEFAULT_MESSAGE))
        return StepChange(StepStatus.FAILED, {"Fail": {"ErrorMessage": message}}, Failure(message))
