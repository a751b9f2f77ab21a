"""Pipelines with steps that are not jobs, on a real server."""

import json
import os
import uuid
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.clients import ROOT, LocalServer, run_server
from tests.local.resources.examples.models import make_request as make_model_request
from tests.local.resources.pipelines.steps import (
    OUTPUT,
    create_pipeline,
    list_statuses,
    list_steps,
    make_get,
    make_processing_step,
    make_step,
    make_training_step,
    run_pipeline,
    start_execution,
    wait_for_end,
)
from tests.polling import wait_until

HANDLERS = """
import os, boto3

def double(event, context):
    print("this is not a part of the result")
    return {"result": event["number"] * 2, "who": context.function_name, "extra": 1}

def fail(event, context):
    raise ValueError("the number is bad")

def sleep(event, context):
    import time
    time.sleep(100)

def count(event, context):
    jobs = boto3.client("sagemaker").list_processing_jobs()["ProcessingJobSummaries"]
    return {"sees_value": "PRIVATE_VALUE" in os.environ, "jobs": str(len(jobs))}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server with functions for Lambda steps."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "handlers.py").write_text(HANDLERS)
    functions = {name: f"{folder}/handlers.py:{name}" for name in ("double", "fail", "sleep", "count")}
    functions["shell"] = "sh -c 'cat > /dev/null; echo {}'"
    functions["text"] = "echo text"
    functions["infinite"] = "echo '{\"loss\": NaN}'"
    os.environ["PRIVATE_VALUE"] = "x"
    try:
        with run_server(folder / "home", runtime="process", functions=functions) as server:
            yield server
    finally:
        del os.environ["PRIVATE_VALUE"]


def make_lambda_step(name: str, function: str, *outputs: tuple[str, str], **arguments: Any) -> dict[str, Any]:
    output_parameters = [{"OutputName": output, "OutputType": output_type} for output, output_type in outputs]
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:{function}"
    return make_step(name, "Lambda", arguments, FunctionArn=arn, OutputParameters=output_parameters)


# --- Lambda ---


def test_lambda_step_calls_a_python_function(server: LocalServer) -> None:
    outputs = (("result", "Integer"), ("who", "String"))
    call = make_lambda_step("Double", "double", *outputs, number=make_get("Parameters.N"))
    condition = {"Type": "Equals", "LeftValue": make_get("Steps.Double.OutputParameters['result']"), "RightValue": 42}
    check = make_step("Check", "Condition", {"Conditions": [condition], "IfSteps": [], "ElseSteps": []})
    parameters = [{"Name": "N", "Type": "Integer", "DefaultValue": 21}]
    status, steps = run_pipeline(server, call, check, Parameters=parameters)
    assert (status, steps["Check"]["Metadata"]["Condition"]["Outcome"]) == ("Succeeded", "True")
    assert steps["Double"]["Metadata"]["Lambda"] == {
        "Arn": call["FunctionArn"],
        "OutputParameters": [{"Name": "result", "Value": "42"}, {"Name": "who", "Value": "double"}],
    }


def test_lambda_step_calls_a_command(server: LocalServer) -> None:
    assert run_pipeline(server, make_lambda_step("Shell", "shell"))[0] == "Succeeded"


def test_function_uses_this_server_and_gets_no_private_variables(server: LocalServer) -> None:
    step = make_lambda_step("Count", "count", ("sees_value", "Boolean"), ("jobs", "Integer"))
    status, steps = run_pipeline(server, step)
    assert status == "Succeeded", steps
    values = {item["Name"]: item["Value"] for item in steps["Count"]["Metadata"]["Lambda"]["OutputParameters"]}
    assert values["sees_value"] == "false"


@pytest.mark.parametrize(
    ("function", "outputs", "reason"),
    [
        ("fail", (), "exit code 1: ValueError: the number is bad"),
        ("text", (), "the result is not JSON"),
        ("shell", (("missing", "String"),), "the output missing is missing"),
        ("infinite", (("loss", "Float"),), "the output loss must be of type Float, not NaN"),
        ("absent", (), "The function absent has no command: add "),
    ],
)
def test_failure_of_a_function_has_a_reason(
    server: LocalServer, function: str, outputs: tuple[tuple[str, str], ...], reason: str
) -> None:
    status, steps = run_pipeline(server, make_lambda_step("Call", function, *outputs))
    assert status == "Failed"
    assert reason in steps["Call"]["FailureReason"]


def test_stop_ends_a_function(server: LocalServer) -> None:
    arn = start_execution(server, create_pipeline(server, make_lambda_step("Sleep", "sleep")))
    wait_until(lambda: list_steps(server, arn), lambda steps: list_statuses(steps) == {"Sleep": "Executing"})
    server.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert wait_for_end(server, arn)["PipelineExecutionStatus"] == "Stopped"
    assert list_statuses(list_steps(server, arn)) == {"Sleep": "Stopped"}


# --- ForEach ---


def make_loop(name: str, items: Any, *body: Any, concurrency: int = 2, **members: Any) -> dict[str, Any]:
    return make_step(
        name, "ForEach", {"IterableItems": items, "MaxConcurrency": concurrency, "ForEachBody": list(body), **members}
    )


def test_loop_runs_its_body_for_each_item_and_selects_the_best(server: LocalServer) -> None:
    """The second step of the body depends on the first step of the same iteration."""
    outputs = (("result", "Integer"),)
    first = make_lambda_step("First", "double", *outputs, number=make_get("ForEach.CurrentItem.size"))
    second = make_lambda_step("Second", "double", *outputs, number=make_get("Steps.First.OutputParameters['result']"))
    selector = {"Pick": "MaxBy", "Field": make_get("IterationOutput.Second.OutputParameters['result']")}
    loop = make_loop("Loop", make_get("Parameters.Items"), first, second, Selector=selector)
    values = [make_get("Steps.Loop.Selected.OutputParameters['result']"), make_get("Steps.Loop.InputItemCount")]
    values.append(make_get("Steps.Loop.IterationOutputs[0].First.OutputParameters['result']"))
    after = make_step("After", "Fail", {"ErrorMessage": {"Std:Join": {"On": " ", "Values": values}}})
    items = json.dumps([{"size": 1}, {"size": 10}, {"size": 5}])
    parameters = [{"Name": "Items", "Type": "String", "DefaultValue": items}]
    _, steps = run_pipeline(server, loop, after, Parameters=parameters)
    assert steps["After"]["FailureReason"] == "40 3 2"
    assert steps["Loop"]["Metadata"]["ForEach"] == {
        "Status": "Succeeded",
        "InputItemCount": 3,
        "TotalStepCount": 6,
        "SucceededStepCount": 6,
        "FailedStepCount": 0,
        "StoppedStepCount": 0,
        "Selector": {"StepName": "Second-1", "Index": 1},
    }
    assert steps["Second-1"]["IterationContext"] == {"ParentStepName": "Loop", "Index": 1, "Item": '{"size": 10}'}


def test_loop_limits_its_concurrency_and_reports_failures(server: LocalServer) -> None:
    script = {"Std:Join": {"On": "", "Values": ["sleep 0.3; exit ", make_get("ForEach.CurrentItem")]}}
    body = make_processing_step(server, "Job", script)
    status, steps = run_pipeline(server, make_loop("Loop", [0, 3, 0], body, concurrency=1))
    jobs = [steps[f"Job-{index}"] for index in range(3)]
    assert [job["StepStatus"] for job in jobs] == ["Succeeded", "Failed", "Succeeded"]
    assert all(before["EndTime"] <= after["StartTime"] for before, after in pairwise(jobs))
    assert (status, steps["Loop"]["FailureReason"]) == ("Failed", "1 of 3 steps failed.")


def test_retry_of_a_loop_repeats_the_failed_iterations(server: LocalServer) -> None:
    key = f"{uuid.uuid4().hex}/flag"
    values = ["test ", make_get("ForEach.CurrentItem"), f" = 0 || test -e {server.bucket / key}"]
    body = make_processing_step(server, "Job", {"Std:Join": {"On": "", "Values": values}})
    arn = start_execution(server, create_pipeline(server, make_loop("Loop", [0, 1], body)))
    assert wait_for_end(server, arn)["PipelineExecutionStatus"] == "Failed"
    steps_before = list_steps(server, arn)
    server.put({key: ""})
    server.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn)
    assert wait_for_end(server, arn)["PipelineExecutionStatus"] == "Succeeded"
    steps = list_steps(server, arn)
    assert list_statuses(steps) == dict.fromkeys(("Loop", "Job-0", "Job-1"), "Succeeded")
    assert steps["Job-0"] == steps_before["Job-0"]
    assert "FailureReason" not in steps["Loop"]


def test_results_of_a_loop_are_not_reused(server: LocalServer) -> None:
    loop = make_loop("Loop", [1], make_lambda_step("Call", "shell"))
    after = make_step("After", "Fail", {"ErrorMessage": {"Std:Join": {"Values": [make_get("Steps.Loop.Status")]}}})
    pipeline = create_pipeline(server, loop, after)
    source = start_execution(server, pipeline)
    wait_for_end(server, source)
    assert list_steps(server, source)["After"]["FailureReason"] == "Succeeded"
    selection = {"SourcePipelineExecutionArn": source, "SelectedSteps": [{"StepName": "After"}]}
    with pytest.raises(ClientError, match="The results of ForEach step Loop cannot be reused"):
        start_execution(server, pipeline, SelectiveExecutionConfig=selection)
    loop_execution = start_execution(
        server, pipeline, SelectiveExecutionConfig={"SelectedSteps": [{"StepName": "Loop"}]}
    )
    assert wait_for_end(server, loop_execution)["PipelineExecutionStatus"] == "Succeeded"
    assert list_statuses(list_steps(server, loop_execution)) == {"Loop": "Succeeded", "Call-0": "Succeeded"}


def test_items_that_are_not_a_list_fail_the_loop(server: LocalServer) -> None:
    parameters = [{"Name": "Items", "Type": "String", "DefaultValue": "{}"}]
    loop = make_loop("Loop", make_get("Parameters.Items"), make_lambda_step("Call", "shell"))
    status, steps = run_pipeline(server, loop, Parameters=parameters)
    assert (status, list(steps)) == ("Failed", ["Loop"])
    assert "IterableItems must be a list, not an object" in steps["Loop"]["FailureReason"]


# --- Cleanup ---


def test_cleanup_deletes_the_outputs_of_steps(server: LocalServer) -> None:
    train = make_training_step(server, "Train", f"echo x > {ROOT}/model/x")
    process = make_processing_step(server, "Process", f"echo 1 > {OUTPUT}/a; echo 2 > {OUTPUT}/b")
    uri = process["Arguments"]["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
    sources = [{"StepName": "Train"}, {"StepName": "Process", "S3Uris": [f"{uri}/a"]}]
    cleanup = make_step("Cleanup", "Cleanup", {"Resources": {"S3": sources}}, "Train", "Process")
    status, steps = run_pipeline(server, train, process, cleanup)
    assert status == "Succeeded", steps
    assert steps["Cleanup"]["Metadata"]["Cleanup"] == {
        "CleanedSteps": ["Train", "Process"],
        "FailedSteps": [],
        "SkippedSteps": [],
    }
    job = steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    assert not (server.bucket / "models" / job).exists()
    folder = server.bucket / uri.partition(f"{server.address.bucket}/")[2]
    assert [path.name for path in folder.iterdir()] == ["b"]


def test_step_whose_outputs_were_deleted_is_not_taken_from_the_cache(server: LocalServer) -> None:
    cache = {"Enabled": True, "ExpireAfter": "PT1H"}
    process = make_processing_step(server, "Process", f"echo 1 > {OUTPUT}/a", CacheConfig=cache)
    uri = process["Arguments"]["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
    sources = [{"StepName": "Process", "S3Uris": [f"{uri}/a"]}]
    pipeline = create_pipeline(server, process, make_step("Cleanup", "Cleanup", {"Resources": {"S3": sources}}))
    for _ in range(2):
        arn = start_execution(server, pipeline)
        wait_for_end(server, arn)
        steps = list_steps(server, arn)
        assert list_statuses(steps) == dict.fromkeys(("Process", "Cleanup"), "Succeeded")
        assert "CacheHitResult" not in steps["Process"]


def test_cleanup_deletes_nothing_outside_of_the_outputs(server: LocalServer) -> None:
    server.put({"precious": "x"})
    process = make_processing_step(server, "Process")
    source = {"StepName": "Process", "S3Uris": [server.uri("precious")]}
    status, steps = run_pipeline(
        server, process, make_step("Cleanup", "Cleanup", {"Resources": {"S3": [source]}}, "Process")
    )
    assert status == "Failed"
    assert "precious is not below an output of step Process" in steps["Cleanup"]["FailureReason"]
    assert (server.bucket / "precious").exists()


# --- endpoints and models ---


def test_endpoint_is_created_and_updated(process_server: LocalServer) -> None:
    """The second execution updates the endpoint that the first execution has created."""
    model = make_step("Model", "Model", make_model_request(process_server, "served"))
    variant = {
        "VariantName": "main",
        "ModelName": make_get("Steps.Model.ModelName"),
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    config = make_step("Config", "EndpointConfig", {"ProductionVariants": [variant]})
    arguments = {"EndpointName": "served", "EndpointConfigName": make_get("Steps.Config.EndpointConfigName")}
    endpoint = make_step("Endpoint", "Endpoint", arguments)
    pipeline, configs = create_pipeline(process_server, model, config, endpoint), []
    for _ in range(2):
        arn = start_execution(process_server, pipeline)
        description = wait_for_end(process_server, arn)
        assert description["PipelineExecutionStatus"] == "Succeeded", description
        endpoint_description = process_server.sagemaker.describe_endpoint(EndpointName="served")
        assert (
            endpoint_description["EndpointStatus"],
            list_steps(process_server, arn)["Endpoint"]["Metadata"]["Endpoint"]["Arn"],
        ) == (
            "InService",
            endpoint_description["EndpointArn"],
        )
        configs.append(endpoint_description["EndpointConfigName"])
    assert len(set(configs)) == 2
    process_server.sagemaker.delete_endpoint(EndpointName="served")


def test_model_is_registered_in_a_new_group(process_server: LocalServer) -> None:
    container = make_model_request(process_server, "registered")["PrimaryContainer"]
    specification = {
        "Containers": [container],
        "SupportedContentTypes": ["text/csv"],
        "SupportedResponseMIMETypes": ["text/csv"],
    }
    arguments = {"ModelPackageGroupName": "new-group", "InferenceSpecification": specification}
    status, steps = run_pipeline(process_server, make_step("Register", "RegisterModel", arguments))
    assert status == "Succeeded", steps
    arn = steps["Register"]["Metadata"]["RegisterModel"]["Arn"]
    assert arn.endswith(":model-package/new-group/1")
    assert process_server.sagemaker.describe_model_package(ModelPackageName=arn)["ModelPackageStatus"] == "Completed"
