"""The parts of a parsed definition of a pipeline: parameters, steps, dependencies, policies."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Scalar = str | int | float | bool


class ParameterType(StrEnum):
    """The types of parameters."""

    STRING = "String"
    INTEGER = "Integer"
    FLOAT = "Float"
    BOOLEAN = "Boolean"


class StepType(StrEnum):
    """AWS's types of steps. The module `step_types` states which of them the local server executes."""

    TRAINING = "Training"
    PROCESSING = "Processing"
    TUNING = "Tuning"
    TRANSFORM = "Transform"
    MODEL = "Model"
    REGISTER_MODEL = "RegisterModel"
    CONDITION = "Condition"
    FAIL = "Fail"
    ENDPOINT_CONFIG = "EndpointConfig"
    ENDPOINT = "Endpoint"
    CALLBACK = "Callback"
    LAMBDA = "Lambda"
    FOR_EACH = "ForEach"
    CLEANUP = "Cleanup"
    INFERENCE_COMPONENT = "InferenceComponent"
    QUALITY_CHECK = "QualityCheck"
    CLARIFY_CHECK = "ClarifyCheck"
    EMR = "EMR"
    EMR_SERVERLESS = "EMRServerless"
    AUTO_ML = "AutoML"
    LINEAGE = "Lineage"
    JOB = "Job"


class Trigger(StrEnum):
    """The outcome that a step must have before a dependent step runs."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    ANY = "Any"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a pipeline."""

    name: str
    type: ParameterType
    default: Scalar | None = None
    """None if each execution must supply the value."""
    enum_values: tuple[Scalar, ...] = ()
    """The allowed values; empty if all values are allowed."""


@dataclass(frozen=True)
class Dependency:
    """An entry of DependsOn."""

    step: str
    trigger: Trigger = Trigger.COMPLETED


@dataclass(frozen=True)
class CacheConfig:
    """The CacheConfig of a step."""

    is_enabled: bool
    expire_after: str = ""
    """An ISO 8601 duration; empty if results do not expire."""


@dataclass(frozen=True)
class RetryPolicy:
    """An entry of RetryPolicies. Either `max_attempts` or `expire_after_minutes` is set."""

    exception_types: tuple[str, ...]
    """AWS's names of errors, such as `SageMaker.JOB_INTERNAL_ERROR`."""
    interval_seconds: float = 1
    backoff_rate: float = 2.0
    max_attempts: int | None = None
    """Maximum number of retries; 0 means that the step is not retried."""
    expire_after_minutes: int | None = None


@dataclass(frozen=True)
class PropertyFile:
    """A JSON file in an output of a Processing step."""

    name: str
    output_name: str
    path: str
    """The path of the file below the output's S3 prefix."""


@dataclass(frozen=True)
class OutputParameter:
    """A declared output of a Lambda or Callback step."""

    name: str
    type: ParameterType


@dataclass(frozen=True)
class Step:
    """A step, with the steps that it contains."""

    name: str
    type: StepType
    arguments: Mapping[str, Any]
    """The members of Arguments, with expressions, but without the contained steps."""
    display_name: str = ""
    description: str = ""
    depends_on: tuple[Dependency, ...] = ()
    cache: CacheConfig | None = None
    retry_policies: tuple[RetryPolicy, ...] = ()
    property_files: tuple[PropertyFile, ...] = ()
    output_parameters: tuple[OutputParameter, ...] = ()
    receiver: Any = None
    """FunctionArn of a Lambda step, or SqsQueueUrl of a Callback step: text or an expression."""
    if_steps: tuple["Step", ...] = ()
    else_steps: tuple["Step", ...] = ()
    body: tuple["Step", ...] = ()
    """The steps that a ForEach step runs for each item."""

    @property
    def nested_steps(self) -> tuple["Step", ...]:
        return (*self.if_steps, *self.else_steps, *self.body)

    def walk(self) -> Iterator["Step"]:
        """Yield the step, and all steps that it contains."""
        yield self
        for step in self.nested_steps:
            yield from step.walk()


@dataclass(frozen=True)
class Definition:
    """The definition of a pipeline."""

    version: str
    steps: tuple[Step, ...]
    parameters: tuple[Parameter, ...] = ()
    experiment: Mapping[str, Any] | None = None
    """PipelineExperimentConfig: ExperimentName and TrialName, with expressions."""
    mlflow: Mapping[str, Any] | None = None
    """MlflowConfig: MlflowResourceArn and MlflowExperimentName, with expressions."""

    def walk(self) -> Iterator[Step]:
        """Yield all steps, including the steps in branches and loops."""
        for step in self.steps:
            yield from step.walk()
