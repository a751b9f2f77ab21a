"""Checks of complete definitions: names, references, order and arguments."""

import json
import time
from typing import Any

import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.pipelines.definition.checks import read_definition

ROLE = "arn:aws:iam::000000000000:role/microjobs"
VERSION = "2020-12-01"
CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
OUTPUT = {"S3Uri": "s3://b/o", "LocalPath": str(Layout().processing("o")), "S3UploadMode": "EndOfJob"}
FAIL_STEP = {"Name": "stop", "Type": "Fail"}


def make_get(text: str) -> dict[str, Any]:
    """Return a Get expression of a definition."""
    return {"Get": text}


def make_training(name: str = "train", *, depends_on: tuple[str, ...] = (), **members: Any) -> dict[str, Any]:
    arguments = {
        "AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
        "ResourceConfig": CLUSTER,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "RoleArn": ROLE,
        **members,
    }
    return {"Name": name, "Type": "Training", "DependsOn": list(depends_on), "Arguments": arguments}


def make_processing(name: str = "prepare", **members: Any) -> dict[str, Any]:
    arguments = {
        "AppSpecification": {"ImageUri": "i"},
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "o", "S3Output": OUTPUT}]},
        "ProcessingResources": {"ClusterConfig": CLUSTER},
        "RoleArn": ROLE,
    }
    files = [{"PropertyFileName": "report", "OutputName": "o", "FilePath": "r.json"}]
    return {"Name": name, "Type": "Processing", "Arguments": arguments, "PropertyFiles": files, **members}


def make_condition_step(left: Any, *steps: Any, name: str = "check") -> dict[str, Any]:
    condition = {"Type": "LessThan", "LeftValue": left, "RightValue": 1}
    return {"Name": name, "Type": "Condition", "Arguments": {"Conditions": [condition], "IfSteps": list(steps)}}


def make_loop(*body: Any, name: str = "each", **arguments: Any) -> dict[str, Any]:
    members = {"IterableItems": ["a"], "MaxConcurrency": 1, "ForEachBody": list(body), **arguments}
    return {"Name": name, "Type": "ForEach", "Arguments": members}


def make_fail(message: Any, name: str = "stop") -> dict[str, Any]:
    return {"Name": name, "Type": "Fail", "Arguments": {"ErrorMessage": message}}


def make_lambda(name: str = "function", **arguments: Any) -> dict[str, Any]:
    outputs = [{"OutputName": "size", "OutputType": "Integer"}]
    return {
        "Name": name, "Type": "Lambda", "FunctionArn": "f", "Arguments": arguments, "OutputParameters": outputs
    }  # fmt: skip


PARAMETERS = [
    {"Name": "text", "Type": "String"},
    {"Name": "count", "Type": "Integer"},
    {"Name": "rate", "Type": "Float"},
]


def check_steps(*steps: Any, **members: Any) -> None:
    read_definition(json.dumps({"Version": VERSION, "Parameters": PARAMETERS, "Steps": steps, **members}))


def test_all_references_are_accepted() -> None:
    selector = {"Pick": "MaxBy", "Field": make_get("IterationOutput.inner.BillableTimeInSeconds")}
    report = {"Std:JsonGet": {"PropertyFile": make_get("Steps.prepare.PropertyFiles.report"), "Path": "a.b"}}
    inner = make_training("inner", Environment={"ITEM": make_get("ForEach.CurrentItem.name")})
    tuning = {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxParallelTrainingJobs": make_get("Parameters.count"), "MaxNumberOfTrainingJobs": 2},
        },
        "TrainingJobDefinition": make_training()["Arguments"],
    }
    texts = (
        "Steps.train.ModelArtifacts.S3ModelArtifacts",
        "Steps.train.FinalMetricDataList['loss'].Value",
        "Steps.train.HyperParameters['any']",
        "Steps.prepare.ProcessingOutputConfig.Outputs['o'].S3Output.S3Uri",
        "Steps.function.OutputParameters['size']",
        "Steps.check.Outcome",
        "Steps.each.IterationOutputs[0].inner.ModelArtifacts.S3ModelArtifacts",
        "Steps.each.Selected.ModelArtifacts.S3ModelArtifacts",
        "Steps.each.FailedStepCount",
        "Steps.tune.BestTrainingJob.TrainingJobName",
        "Steps.tune.TrainingJobSummaries[0].TrainingJobName",
        "Parameters.text",
        "Execution.PipelineExecutionId",
        "PipelineExperimentConfig.TrialName",
    )
    check_steps(
        make_processing(),
        make_training(),
        make_lambda(path=make_get("Steps.train.OutputDataConfig.S3OutputPath")),
        make_condition_step(report, make_fail({"Std:Join": {"Values": [make_get("Parameters.text")]}})),
        make_loop(inner, Selector=selector),
        {"Name": "tune", "Type": "Tuning", "Arguments": tuning},
        make_lambda("all", **{f"a{number}": make_get(text) for number, text in enumerate(texts)}),
        PipelineExperimentConfig={"ExperimentName": "e", "TrialName": make_get("Execution.PipelineExecutionId")},
    )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([make_training(depends_on=("prepar",)), make_processing()],
         r'step "train", member DependsOn\[0\]: step "prepar" does not exist \(did you mean prepare\?\)'),
        ([make_training(Environment={"A": make_get("Steps.prepar.x.y")}), make_processing()],
         r'member Arguments.Environment.A: step "prepar" does not exist \(did you mean prepare\?\)'),
        ([FAIL_STEP, make_condition_step(1, FAIL_STEP)], 'step "stop": another step has the same name'),
        (
            [make_condition_step(1, FAIL_STEP), make_condition_step(1, FAIL_STEP, name="c")],
            'step "stop": another step has the same name',
        ),
        ([make_training(depends_on=("train",))], "steps wait for each other: train -> train"),
        ([make_training("a", Environment={"A": make_get("Steps.b.TrainingJobArn")}),
          make_training("b", depends_on=("a",))],
         "steps wait for each other: (a -> b -> a|b -> a -> b)"),
        ([make_condition_step(make_get("Steps.train.BillableTimeInSeconds"), make_training())],
         "check -> train -> check|train"),
        ([make_loop(make_training(Environment={"A": make_get("Steps.each.Status")}))], "steps wait for each other"),
        ([make_training(), make_fail(make_get("Steps.train.ModelArtifact.S3ModelArtifacts"))],
         r"'train' of type Training has no property ModelArtifact \(did you mean ModelArtifacts\?\)"),
        ([make_training(), make_fail(make_get("Steps.train.ModelArtifacts.S3ModelArtifact"))],
         r"no property ModelArtifacts.S3ModelArtifact \(did you mean S3ModelArtifacts\?\)"),
        ([make_training(), make_fail(make_get("Steps.train.TrainingJobName.x"))], "no property TrainingJobName.x"),
        ([make_condition_step(1, FAIL_STEP), make_fail(make_get("Steps.check.Outcom"), "s")],
         r"\(did you mean Outcome\?\)"),
        ([FAIL_STEP, make_fail(make_get("Steps.stop.ErrorMessage"), "s")], "of type Fail has no properties"),
        ([make_lambda(), make_fail(make_get("Steps.function.OutputParameters['sise']"))],
         r"has no output parameter 'sise' \(did you mean size\?\)"),
        ([make_processing(), make_condition_step({"Std:JsonGet": {
            "PropertyFile": make_get("Steps.prepare.PropertyFiles.reprot"), "Path": "a"}})],
         r"member Arguments.Conditions\[0\].LeftValue: step 'prepare' has no property file 'reprot' \(did you mean"),
        ([make_processing(PropertyFiles=[{"PropertyFileName": "f", "OutputName": "x", "FilePath": "p"}])],
         r'PropertyFiles\[0\].OutputName: output "x" does not exist \(known: o\)'),
        ([make_fail(make_get("Parameters.txt"))], r'parameter "txt" does not exist \(did you mean text\?\)'),
        ([make_fail(make_get("Execution.PipelineNam"))], r'variable "PipelineNam" does not exist \(did you mean'),
        ([make_fail(make_get("PipelineExperimentConfig.TrialName"))], r"member of Pipeline.*\(known: none\)"),
        ([make_fail({"Std:Joi": {}})], r'step "stop": function "Std:Joi" does not exist \(did you mean Std:Join\?\)'),
        ([{**make_training(), "Arguments": make_get("Parameters.text")}],
         "Arguments: expected an object, found an expr"),
        ([make_fail(make_get("ForEach.CurrentItem"))], "only in the body of a ForEach step"),
        ([make_fail(make_get("IterationOutput.a.b"))], "only in the Selector of a ForEach step"),
        ([make_loop(make_training()), make_fail(make_get("Steps.train.TrainingJobArn"))],
         'step "train" is in the body of each: refer to each instead'),
        ([make_loop(make_training()), make_training("t", depends_on=("train",))], "is in the body of each"),
        ([make_loop(make_training()), make_fail(make_get("Steps.each.Selected.TrainingJobArn"))], "has no Selector"),
        ([make_loop(make_training()), make_fail(make_get("Steps.each.IterationOutputs[0].trian.TrainingJobArn"))],
         r"is IterationOutputs\[0\].<step>.<property> \(did you mean train\?\)"),
        ([make_loop(make_training(), Selector={"Pick": "MaxBy", "Field": make_get("IterationOutput.trian.x")})],
         r"Field of the Selector must be IterationOutput.<step>.<property> \(did you mean train\?\)"),
        ([make_loop(make_training()), make_training("train-0")], 'an iteration of the step "train" has the same name'),
        ([{"Name": "c", "Type": "Cleanup", "Arguments": {"Resources": {"S3": [{"StepName": "trian"}]}}},
          make_training()], r"Resources.S3\[0\].StepName: step \"trian\" does not exist \(did you mean train\?\)"),
    ],
)  # fmt: skip
def test_invalid_steps_are_explained(steps: list[Any], message: str) -> None:
    with pytest.raises(ValidationError, match=f"^Invalid pipeline definition: .*{message}"):
        check_steps(*steps)


def remove_member(step: dict[str, Any], member: str) -> dict[str, Any]:
    return {**step, "Arguments": {name: value for name, value in step["Arguments"].items() if name != member}}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (remove_member(make_training(), "RoleArn"), "CreateTrainingJob: Value null at 'roleArn' .* must not be null"),
        (make_training(Enviroment={}), "Member Enviroment is unknown .did you mean Environment"),
        (make_training(ResourceConfig={**CLUSTER, "InstanceCount": "2"}), "STRING_VALUE can not be converted"),
        (make_training(ResourceConfig={**CLUSTER, "InstanceCount": make_get("Parameters.text")}),
         "at 'resourceConfig.instanceCount' .* Member must be an Integer, but the expression is a String"),
        (make_training(HyperParameters={"n": make_get("Parameters.count")}), "an Integer: convert it with Std:Join"),
        (make_training(ResourceConfig={**CLUSTER, "InstanceType": "ml.m5.huge"}), "must satisfy enum value set"),
        (make_training(EnableManagedSpotTraining={"Std:Join": {"Values": []}}), "must be a Boolean, but the express"),
        (make_training(HyperParameters={"n": make_get("Execution.StartDateTime")},
                       InputDataConfig=[{"ChannelName": "c", "DataSource": {"FileSystemDataSource": {
                           "FileSystemId": "fs-0123456789", "FileSystemAccessMode": "ro", "FileSystemType": "EFS",
                           "DirectoryPath": "/"}}}]), "InputDataConfig.0.*FileSystemDataSource"),
    ],
)  # fmt: skip
def test_arguments_are_checked_as_a_request(step: dict[str, Any], message: str) -> None:
    with pytest.raises(
        ValidationError, match=f'^Invalid pipeline definition: step "train", member Arguments.*{message}'
    ):
        check_steps(step)


def test_arguments_with_expressions_are_accepted() -> None:
    cluster = {
        "InstanceType": make_get("Parameters.text"),
        "InstanceCount": make_get("Parameters.count"),
        "VolumeSizeInGB": make_get("Steps.function.OutputParameters['size']"),
    }
    check_steps(
        make_lambda(),
        make_training(
            ResourceConfig=cluster,
            HyperParameters={"rate": {"Std:Join": {"On": "", "Values": [make_get("Parameters.rate")]}}},
        ),
    )
    check_steps(make_training(OutputDataConfig={"S3OutputPath": {"Std:JsonGet": {"S3Uri": "s3://b/k", "Path": "a"}}}))


def test_duplicate_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match='parameter "a": another parameter has the same name'):
        check_steps(FAIL_STEP, Parameters=[{"Name": "a"}, {"Name": "a"}])


def test_experiment_config_cannot_refer_to_steps() -> None:
    with pytest.raises(ValidationError, match="a step has no values before the execution starts"):
        check_steps(make_training(), PipelineExperimentConfig={"TrialName": make_get("Steps.train.TrainingJobName")})


def test_large_definition_is_checked_fast() -> None:
    steps = [
        make_training(f"s{number}", depends_on=tuple(f"s{n}" for n in range(number)[-1:])) for number in range(500)
    ]
    start = time.monotonic()
    check_steps(*steps)
    assert time.monotonic() - start < 5
