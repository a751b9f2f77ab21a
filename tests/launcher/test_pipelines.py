"""Tests of workflows as definitions of SageMaker Pipelines, and of the table of a pipeline's steps."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from microjobs_orchestrator import workflows
from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.runs.expressions import convert_expressions
from microjobs_orchestrator.runs.pipeline_graph import list_failures, list_nodes, make_table
from tests.aws.test_launch import AWS_FLAGS

OPERATIONS = {
    "Processing": ("CreateProcessingJob", "ProcessingJobName"),
    "Training": ("CreateTrainingJob", "TrainingJobName"),
    "Tuning": ("CreateHyperParameterTuningJob", "HyperParameterTuningJobName"),
    "RegisterModel": ("CreateModelPackage", "ClientToken"),
}
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def export_pipeline(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["pipeline", "export", *arguments]) == 0
    definition: dict[str, Any] = json.loads(capsys.readouterr().out)
    return definition


def iterate_steps(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            yield from iterate_steps([*step["Arguments"]["IfSteps"], *step["Arguments"]["ElseSteps"]])


def replace_expressions(value: Any) -> Any:
    """Replace each expression by a valid S3 URI."""
    if isinstance(value, dict):
        return (
            "s3://bucket/key"
            if {"Get", "Std:Join"} & value.keys()
            else {key: replace_expressions(item) for key, item in value.items()}
        )
    return [replace_expressions(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${Steps.a.B}", {"Get": "Steps.a.B"}),
        ("s3://b/${Parameters.P}/x", {"Std:Join": {"On": "", "Values": ["s3://b/", {"Get": "Parameters.P"}, "/x"]}}),
        ({"a": ["${Steps.a.B['c'].D}", 1]}, {"a": [{"Get": "Steps.a.B['c'].D"}, 1]}),
    ],
)
def test_expressions_in_texts_become_get_and_join(text: Any, expected: Any) -> None:
    assert convert_expressions(text) == expected


@pytest.mark.parametrize("workflow", workflows.list_names())
@pytest.mark.parametrize("flags", [(), ("--on", "aws")])
def test_steps_have_the_arguments_of_create_requests(
    workflow: str, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    definition = export_pipeline(capsys, workflow, *flags)
    assert definition["Version"] == "2020-12-01"
    for step in iterate_steps(definition["Steps"]):
        if step["Type"] in OPERATIONS:
            operation, name_member = OPERATIONS[step["Type"]]
            name = {name_member: "n" * 32}  # all of these operations accept this length
            validate(load_operation_model("sagemaker", operation), {**replace_expressions(step["Arguments"]), **name})


def test_each_step_waits_for_the_steps_whose_outputs_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = list_nodes(json.dumps(export_pipeline(capsys, "housing")))
    assert {node.name: node.dependencies for node in nodes} == {
        "raw": (),
        "scale": ("raw",),
        "train": ("scale",),
        "tune": ("scale",),
        "choose": ("train", "tune"),
        "trained-register": ("train",),
        "trained-batch-score": ("train", "scale"),
        "tuned-register": ("tune",),
        "tuned-batch-score": ("tune", "scale"),
    }
    assert [node.branch for node in nodes if node.depth] == ["if", "if", "else", "else"]


def test_pipeline_without_tuning_has_no_choice(capsys: pytest.CaptureFixture[str]) -> None:
    steps = export_pipeline(capsys, "housing", "--no-tuning", "--epochs", "3")["Steps"]
    assert [step["Name"] for step in steps] == ["raw", "scale", "train", "register", "batch-score"]


def test_options_are_parameters_with_the_flags_as_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    definition = export_pipeline(capsys, "housing", "--epochs", "3")
    assert {item["Name"]: item["DefaultValue"] for item in definition["Parameters"]} == {
        "RunName": "housing-pipeline",
        "epochs": "3",
        "batch_size": "128",
        "learning_rate": "0.01",
    }
    training = next(step for step in definition["Steps"] if step["Name"] == "train")
    assert training["Arguments"]["HyperParameters"]["epochs"] == {"Get": "Parameters.epochs"}


def test_dry_run_prints_the_requests_that_create_and_start_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "housing", *AWS_FLAGS, "--dry-run", "--as-pipeline"]) == 0
    create_request, start_request = map(json.loads, capsys.readouterr().out.splitlines())
    validate(load_operation_model("sagemaker", "CreatePipeline"), {**create_request, "ClientRequestToken": "t" * 32})
    assert json.loads(create_request["PipelineDefinition"])["Steps"][0]["Name"] == "raw"
    assert start_request == {
        "PipelineName": "housing",
        "PipelineParameters": [{"Name": "RunName", "Value": "housing-dry-run"}],
    }


def test_table_shows_the_state_and_time_of_each_step() -> None:
    definition = {
        "Steps": [
            {"Name": "a", "Type": "Processing", "Arguments": {}},
            {
                "Name": "b",
                "Type": "Condition",
                "DependsOn": ["a"],
                "Arguments": {"IfSteps": [{"Name": "c", "Type": "Fail", "Arguments": {}}], "ElseSteps": []},
            },
            {
                "Name": "d",
                "Type": "ForEach",
                "DependsOn": [{"Step": "b", "Trigger": "Any"}],
                "Arguments": {"ForEachBody": [{"Name": "e", "Type": "Training", "Arguments": {}}]},
            },
        ]
    }
    states: dict[str, dict[str, Any]] = {
        "a": {
            "StepStatus": "Succeeded",
            "StartTime": NOW - timedelta(seconds=5),
            "EndTime": NOW - timedelta(seconds=2),
            "CacheHitResult": {"SourcePipelineExecutionArn": "arn:aws:sagemaker:r:0:pipeline/p/execution/abc"},
        },
        "b": {"StepStatus": "Succeeded", "Metadata": {"Condition": {"Outcome": "True"}}},
        "e-10": {"StepStatus": "Executing", "StartTime": NOW},
        "e-2": {"StepStatus": "Succeeded"},
        "c": {"StepStatus": "Failed", "AttemptCount": 2, "FailureReason": "no \x1b[2Jdata", "StartTime": NOW},
    }
    console = Console(width=120)
    with console.capture() as capture:
        console.print(make_table(list_nodes(json.dumps(definition)), states, NOW + timedelta(seconds=61)))
    rows = [" ".join(line.split()) for line in capture.get().splitlines()]
    assert rows == [
        "step type status took after",
        "✓ a Processing Succeeded, cached from abc 3.0 s",
        "✓ b Condition Succeeded, true a",
        "✗ if: c Fail Failed, attempt 2 1 min 01 s",
        "· d ForEach b",
        "✓ each: e-2 Training Succeeded",
        "▶ each: e-10 Training Executing 1 min 01 s",
    ]
    assert list_failures(states, "reason of the execution") == ["c: no data"]
    assert list_failures({}, "reason of the execution") == ["reason of the execution"]


def test_lambda_arguments_may_be_named_like_step_members() -> None:
    arguments = {"DependsOn": 5, "IfSteps": "x", "ForEachBody": [1], "v": {"Get": "Steps.A.OutputParameters['v']"}}
    steps = [{"Name": "B", "Type": "Lambda", "Arguments": arguments, "DependsOn": ["C"]}]
    (node,) = list_nodes(json.dumps({"Steps": steps}))
    assert node.dependencies == ("C", "A")
