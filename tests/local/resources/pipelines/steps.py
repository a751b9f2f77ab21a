"""Functions that create and run pipelines on a real server. The jobs of the steps run short scripts."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from microjobs.contract import Layout
from tests.local.clients import (
    ROOT,
    LocalServer,
    make_processing_output,
    make_processing_request,
    make_training_request,
    make_unique_name,
)
from tests.polling import wait_until

FINAL_STATUSES = ("Succeeded", "Failed", "Stopped", "CompletedWithFailures")
OUTPUT = f"{ROOT}/processing/output"
"""The path of the output folder, for the scripts of `make_processing_step`."""


def make_get(path: str) -> dict[str, str]:
    """Return a Get expression of a pipeline's definition. It stands for the value at the path."""
    return {"Get": path}


def make_step(
    name: str, step_type: str, arguments: Mapping[str, Any], *depends_on: Any, **members: Any
) -> dict[str, Any]:
    step = {"Name": name, "Type": step_type, "Arguments": arguments, **members}
    return {**step, "DependsOn": list(depends_on)} if depends_on else step


def make_processing_step(
    server: LocalServer, name: str, script: Any = "true", *depends_on: Any, files: Sequence[str] = (), **members: Any
) -> dict[str, Any]:
    """Return a step that runs a script. Its output `out` has its own folder in S3.

    Args:
        files: the names of JSON files in the output, which become property files.
    """
    output = make_processing_output(
        "out", server.uri(f"{make_unique_name('step')}"), str(Layout().processing("output"))
    )
    arguments = make_processing_request("", ProcessingOutputConfig={"Outputs": [output]})
    arguments["AppSpecification"]["ContainerArguments"] = [script]
    del arguments["ProcessingJobName"]
    if files:
        members["PropertyFiles"] = [
            {"PropertyFileName": file, "OutputName": "out", "FilePath": f"{file}.json"} for file in files
        ]
    return make_step(name, "Processing", arguments, *depends_on, **members)


def make_training_step(
    server: LocalServer, name: str, script: str = "true", *depends_on: Any, **members: Any
) -> dict[str, Any]:
    """Return a step that runs a script. `members` are members of the request."""
    arguments = make_training_request(server, script, **members)
    del arguments["TrainingJobName"]
    return make_step(name, "Training", arguments, *depends_on)


def create_pipeline(server: LocalServer, *steps: Mapping[str, Any], **members: Any) -> str:
    """Create a pipeline; return its name. `members` are members of the definition."""
    name = make_unique_name("pipeline")
    definition = {"Version": "2020-12-01", "Steps": steps, **members}
    server.sagemaker.create_pipeline(
        PipelineName=name,
        PipelineDefinition=json.dumps(definition),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=server.address.role_arn,
    )
    return name


def start_execution(
    server: LocalServer, pipeline: str, parameters: Mapping[str, str] | None = None, **members: Any
) -> str:
    """Start an execution; return its ARN."""
    values = [{"Name": name, "Value": value} for name, value in (parameters or {}).items()]
    response = server.sagemaker.start_pipeline_execution(PipelineName=pipeline, PipelineParameters=values, **members)
    return str(response["PipelineExecutionArn"])


def describe_execution(server: LocalServer, arn: str) -> dict[str, Any]:
    description: dict[str, Any] = server.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    return description


def wait_for_end(server: LocalServer, arn: str) -> dict[str, Any]:
    """Wait for the end of an execution; return its description."""
    description: dict[str, Any] = wait_until(
        lambda: describe_execution(server, arn),
        lambda execution: execution["PipelineExecutionStatus"] in FINAL_STATUSES,
    )
    return description


def list_steps(server: LocalServer, arn: str) -> dict[str, dict[str, Any]]:
    """Return the steps of an execution by name, in the order of their start."""
    response = server.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
    return {step["StepName"]: step for step in response["PipelineExecutionSteps"]}


def run_pipeline(
    server: LocalServer, *steps: Mapping[str, Any], **members: Any
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Run a pipeline to its end; return the status of the execution, and its steps. `members` are members of the
    definition."""
    arn = start_execution(server, create_pipeline(server, *steps, **members))
    return str(wait_for_end(server, arn)["PipelineExecutionStatus"]), list_steps(server, arn)


def list_statuses(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: step["StepStatus"] for name, step in steps.items()}
