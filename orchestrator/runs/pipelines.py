"""The definition of a workflow as a SageMaker Pipeline, which the local server and AWS accept.

A job's request becomes a step. If a step reads an output of an earlier step, its request refers to that step, so that
the steps run in the right order. A model becomes a package in the model registry; the run deploys the package.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/define-pipeline.html
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.runs.expressions import convert_expressions, format_expression
from microjobs_orchestrator.runs.kinds import MODEL, PROCESSING, TRAINING, TUNING, Members
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext

VERSION = "2020-12-01"
STEP_TYPES = {PROCESSING: "Processing", TRAINING: "Training", TUNING: "Tuning", MODEL: "RegisterModel"}
"""The type of a request's step, by kind. Other requests, such as CreateEndpoint, have no step."""

RUN_PARAMETER = "RunName"
"""The parameter that contains the name of the run. A folder with this name contains the data of the execution."""

OUTPUT_MEMBERS = ("ProcessingOutputConfig", "OutputDataConfig")
"""The members with the S3 URIs that a job writes."""

REGISTER_STEP = "register"
"""The name of the step that stores the model in the model registry."""

INFERENCE_MEDIA_TYPES = {
    "SupportedContentTypes": ["application/json", "text/csv"],
    "SupportedResponseMIMETypes": ["application/json", "text/csv"],
}


@dataclass(frozen=True)
class Choice:
    """A Condition step with two branches. It runs the first branch if `left` is at most `right`, otherwise the second.

    The names of a branch's steps begin with the name of the branch.
    """

    step: str
    left: str
    """An expression with a number."""
    right: str
    branches: Mapping[str, Sequence[PlannedRequest]]
    """The requests of the two branches, by the name of the branch."""


PipelineItem = PlannedRequest | Choice
"""A request, which becomes one step, or a choice between two branches."""


@dataclass(frozen=True)
class Pipeline:
    """The steps of a pipeline, and the defaults of its parameters."""

    name: str
    items: Sequence[PipelineItem]
    parameters: Mapping[str, str]

    def format_definition(self, context: RunContext) -> str:
        """Return the definition, which is JSON text."""
        parameters = [
            {"Name": name, "Type": "String", "DefaultValue": value} for name, value in self.parameters.items()
        ]
        converter = _StepConverter(context, package_group=self.name)
        steps = [step for item in self.items for step in converter.convert(item)]
        return json.dumps({"Version": VERSION, "Metadata": {}, "Parameters": parameters, "Steps": steps}, indent=1)


def make_pipeline_context(context: RunContext) -> RunContext:
    """Return a context whose requests refer to the run's name as a parameter."""
    return RunContext(context.backend, format_expression(f"Parameters.{RUN_PARAMETER}"))


def make_create_request(context: RunContext, pipeline: Pipeline) -> dict[str, Any]:
    """Return the CreatePipeline request."""
    definition = pipeline.format_definition(make_pipeline_context(context))
    return {"PipelineName": pipeline.name, "PipelineDefinition": definition, "RoleArn": context.backend.role}


class _StepConverter:
    """Converts requests to steps. Later requests refer to the outputs of earlier requests."""

    def __init__(self, context: RunContext, package_group: str) -> None:
        self._context = context
        self._package_group = package_group
        self._expressions_by_uri: dict[str, str] = {}
        """The expression for each S3 URI that an earlier step writes."""

    def convert(self, item: PipelineItem, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Yield the step of a request or a choice, if it has one."""
        if isinstance(item, Choice):
            yield self._convert_choice(item)
        elif item.kind in STEP_TYPES:
            members = self._replace_uris(self._make_arguments(item))
            step = prefix + (REGISTER_STEP if item.kind is MODEL else item.step)
            yield {"Name": step, "Type": STEP_TYPES[item.kind], "Arguments": convert_expressions(members)}
            self._expressions_by_uri.update(_list_outputs(item, step))

    def _convert_choice(self, choice: Choice) -> dict[str, Any]:
        first, second = (self._convert_branch(name, items) for name, items in choice.branches.items())
        condition = {"Type": "LessThanOrEqualTo", "LeftValue": choice.left, "RightValue": choice.right}
        arguments = {"Conditions": [convert_expressions(condition)], "IfSteps": first, "ElseSteps": second}
        return {"Name": choice.step, "Type": "Condition", "Arguments": arguments}

    def _convert_branch(self, name: str, items: Sequence[PlannedRequest]) -> list[dict[str, Any]]:
        """Return the steps of a branch, and then forget their outputs: no step outside the branch can refer to them."""
        outer_expressions = dict(self._expressions_by_uri)
        steps = [step for item in items for step in self.convert(item, prefix=f"{name}-")]
        self._expressions_by_uri = outer_expressions
        return steps

    def _make_arguments(self, planned: PlannedRequest) -> dict[str, Any]:
        if planned.kind is MODEL:
            return self._make_package_arguments(planned.members["PrimaryContainer"])
        members = self._context.backend.complete_request(self._context.id, planned.kind, planned.members)
        return {name: value for name, value in members.items() if name != planned.kind.name_member}

    def _make_package_arguments(self, container: Members) -> dict[str, Any]:
        instance_type = self._context.backend.make_instance_members("endpoint")["InstanceType"]
        specification = {
            "Containers": [container],
            **INFERENCE_MEDIA_TYPES,
            "SupportedRealtimeInferenceInstanceTypes": [instance_type],
            "SupportedTransformInstanceTypes": [instance_type],
        }
        return {
            "ModelPackageGroupName": self._package_group,
            "InferenceSpecification": specification,
            "ModelApprovalStatus": "PendingManualApproval",
        }

    def _replace_uris(self, value: Any) -> Any:
        """Replace each S3 URI that an earlier step writes by the expression for this output of the step."""
        if isinstance(value, Mapping):
            return {name: item if name in OUTPUT_MEMBERS else self._replace_uris(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._replace_uris(item) for item in value]
        return self._replace_uri(value) if isinstance(value, str) else value

    def _replace_uri(self, text: str) -> str:
        for uri, expression in self._expressions_by_uri.items():
            if text == uri or text.startswith(f"{uri}/"):
                return expression + text.removeprefix(uri)
        return text


def _list_outputs(planned: PlannedRequest, step: str) -> Iterator[tuple[str, str]]:
    """Yield the S3 URI of each of a job's outputs, and the expression for it."""
    if planned.kind is PROCESSING:
        for output in planned.members["ProcessingOutputConfig"]["Outputs"]:
            property_path = f"Steps.{step}.ProcessingOutputConfig.Outputs['{output['OutputName']}'].S3Output.S3Uri"
            yield output["S3Output"]["S3Uri"], format_expression(property_path)
    elif planned.kind is TRAINING:
        folder = planned.members["OutputDataConfig"]["S3OutputPath"]
        property_path = f"Steps.{step}.ModelArtifacts.S3ModelArtifacts"
        yield f"{folder}/{planned.name}/output/model.tar.gz", format_expression(property_path)
