"""Examples of a pipeline and of its execution."""

import json
from typing import Any

from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.pipelines.executions import make_execution_id
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE, PIPELINE_EXECUTION
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from tests.local.clients import ROOT, LocalServer
from tests.local.resources.examples import Example, find_example

MIN_TOKEN_CHARACTERS = 32


def make_request(server: LocalServer, name: str) -> dict[str, Any]:
    """Return the request for a pipeline with a job and a condition.

    The condition compares a value in a JSON file of the job. It is always true, so the pipeline creates a model.
    """
    parameters = [{"Name": "expected", "Type": "String", "DefaultValue": name}]
    process = find_example(PROCESSING_JOB).make_request(server, name)
    del process["ProcessingJobName"]
    process["AppSpecification"]["ContainerArguments"] = [
        f'sleep 1; echo \'{{"name": "{name}"}}\' > {ROOT}/processing/output/result.json'
    ]
    file = {"PropertyFileName": "result", "OutputName": "out", "FilePath": "result.json"}
    result_name = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.process.PropertyFiles.result"}, "Path": "name"}}
    condition = {"Type": "Equals", "LeftValue": result_name, "RightValue": {"Get": "Parameters.expected"}}
    create = {"Name": "create", "Type": "Model", "Arguments": find_example(MODEL).make_request(server, name)}
    fail = {"Name": "stop", "Type": "Fail", "Arguments": {"ErrorMessage": result_name}}
    branches = {"Conditions": [condition], "IfSteps": [create], "ElseSteps": [fail]}
    steps = [
        {"Name": "process", "Type": "Processing", "Arguments": process, "PropertyFiles": [file]},
        {"Name": "check", "Type": "Condition", "Arguments": branches},
    ]
    definition = {"Version": "2020-12-01", "Parameters": parameters, "Steps": steps}
    return {"PipelineDefinition": json.dumps(definition), "RoleArn": server.address.role_arn}


def make_execution_request(server: LocalServer, name: str) -> dict[str, Any]:  # noqa: ARG001
    return {"PipelineName": name, "ClientRequestToken": make_token(name)}


def make_token(name: str) -> str:
    return name.ljust(MIN_TOKEN_CHARACTERS, "-")


def make_arn(name: str) -> str:
    pipeline = format_arn(f"pipeline/{name}")
    return f"{pipeline}/execution/{make_execution_id(pipeline, make_token(name))}"


EXAMPLES = (
    Example(PIPELINE, make_request),
    Example(PIPELINE_EXECUTION, make_execution_request, required_kinds=(PIPELINE,), make_arn=make_arn),
)
