"""Facts about the types of steps: the operations that they perform, and the members that they have."""

from collections.abc import Mapping
from dataclasses import dataclass

from microjobs_orchestrator.local.resources.pipelines.definition.values import StepType

RESOURCE_STEP_MEMBERS = ("CacheConfig", "RetryPolicies")
OUTPUT_STEP_MEMBERS = ("CacheConfig", "OutputParameters")


@dataclass(frozen=True)
class StepTypeFacts:
    """The operations and the members of one type of step."""

    create_operation: str = ""
    """The operation that the step performs, such as `CreateTrainingJob`; empty if it creates no resource."""
    name_member: str = ""
    """The member of the operation that names the new resource. If the member is missing, AWS chooses the name."""
    describe_operations: tuple[str, ...] = ()
    """The operations whose responses contain the properties of the step."""
    additional_properties: tuple[str, ...] = ()
    """The properties that no response contains."""
    members: tuple[str, ...] = ()
    """The members of the step, in addition to the members that all types have."""
    required_members: tuple[str, ...] = ()
    """The members that the step must have, in addition to Name, Type and, for most types, Arguments."""
    alternative: str = ""
    """Advice for an error message: what to use instead. It is empty if the local server executes the step."""


def _make_resource_facts(noun: str, *extra_members: str, describe_operations: tuple[str, ...] = ()) -> StepTypeFacts:
    return StepTypeFacts(
        f"Create{noun}",
        f"{noun}Name",
        (f"Describe{noun}", *describe_operations),
        members=(*RESOURCE_STEP_MEMBERS, *extra_members),
    )


STEP_TYPE_FACTS: Mapping[StepType, StepTypeFacts] = {
    StepType.TRAINING: _make_resource_facts("TrainingJob"),
    StepType.PROCESSING: _make_resource_facts("ProcessingJob", "PropertyFiles"),
    StepType.TUNING: _make_resource_facts(
        "HyperParameterTuningJob", describe_operations=("ListTrainingJobsForHyperParameterTuningJob",)
    ),
    StepType.TRANSFORM: _make_resource_facts("TransformJob"),
    StepType.MODEL: _make_resource_facts("Model"),
    StepType.REGISTER_MODEL: _make_resource_facts("ModelPackage"),
    StepType.ENDPOINT_CONFIG: _make_resource_facts("EndpointConfig"),
    StepType.ENDPOINT: _make_resource_facts("Endpoint"),
    StepType.CONDITION: StepTypeFacts(additional_properties=("Outcome",)),
    StepType.FAIL: StepTypeFacts(),
    StepType.CLEANUP: StepTypeFacts(),
    StepType.LAMBDA: StepTypeFacts(members=("FunctionArn", *OUTPUT_STEP_MEMBERS), required_members=("FunctionArn",)),
    StepType.CALLBACK: StepTypeFacts(members=("SqsQueueUrl", *OUTPUT_STEP_MEMBERS), required_members=("SqsQueueUrl",)),
    StepType.FOR_EACH: StepTypeFacts(
        additional_properties=(
            "Status",
            "InputItemCount",
            "TotalStepCount",
            "SucceededStepCount",
            "FailedStepCount",
            "StoppedStepCount",
        ),
    ),
    StepType.INFERENCE_COMPONENT: StepTypeFacts(alternative="use an Endpoint step with one model per variant"),
    StepType.QUALITY_CHECK: StepTypeFacts(alternative="use a Processing step with your own checks"),
    StepType.CLARIFY_CHECK: StepTypeFacts(alternative="use a Processing step with your own checks"),
    StepType.EMR: StepTypeFacts(alternative="use a Processing step, which can run several hosts"),
    StepType.EMR_SERVERLESS: StepTypeFacts(alternative="use a Processing step, which can run several hosts"),
    StepType.AUTO_ML: StepTypeFacts(alternative="use a Tuning step"),
    StepType.LINEAGE: StepTypeFacts(alternative="remove the step; the execution lists its jobs"),
    StepType.JOB: StepTypeFacts(alternative="use a Training or Processing step"),
}
