"""The runner of each type of step."""

from collections.abc import Mapping

from microjobs_orchestrator.local.resources.pipelines.definition.step_types import STEP_TYPE_FACTS
from microjobs_orchestrator.local.resources.pipelines.definition.values import StepType
from microjobs_orchestrator.local.resources.pipelines.loops import ForEachRunner
from microjobs_orchestrator.local.resources.pipelines.steps.callbacks import CallbackRunner
from microjobs_orchestrator.local.resources.pipelines.steps.cleanup import CleanupRunner
from microjobs_orchestrator.local.resources.pipelines.steps.control import ConditionRunner, FailRunner
from microjobs_orchestrator.local.resources.pipelines.steps.functions import LambdaRunner
from microjobs_orchestrator.local.resources.pipelines.steps.resources import (
    EndpointConfigRunner,
    EndpointRunner,
    ModelPackageRunner,
    ResourceRunner,
    TuningRunner,
)
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner, Tools

RUNNER_CLASSES: Mapping[StepType, type[ResourceRunner]] = {
    StepType.TUNING: TuningRunner,
    StepType.REGISTER_MODEL: ModelPackageRunner,
    StepType.ENDPOINT_CONFIG: EndpointConfigRunner,
    StepType.ENDPOINT: EndpointRunner,
}
"""The runner classes of the types for which `ResourceRunner` is not enough. The other types that create a resource use
`ResourceRunner` itself."""


def make_runners(tools: Tools) -> Mapping[StepType, Runner]:
    """Return the runners of all types that the local server executes."""
    creating_types = [step_type for step_type, facts in STEP_TYPE_FACTS.items() if facts.create_operation]
    return {
        **{step_type: RUNNER_CLASSES.get(step_type, ResourceRunner)(tools, step_type) for step_type in creating_types},
        StepType.CONDITION: ConditionRunner(tools),
        StepType.FAIL: FailRunner(tools),
        StepType.LAMBDA: LambdaRunner(tools),
        StepType.CLEANUP: CleanupRunner(tools),
        StepType.CALLBACK: CallbackRunner(tools),
        StepType.FOR_EACH: ForEachRunner(tools),
    }
