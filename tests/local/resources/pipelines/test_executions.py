"""Executions of pipelines on a real server, as clients see them."""

import json
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.clients import LocalServer
from tests.local.resources.pipelines.steps import (
    OUTPUT,
    create_pipeline,
    describe_execution,
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

EQUAL_CONDITION = {"Type": "Equals", "LeftValue": 1, "RightValue": 1}


def make_condition_step(name: str, condition: Any, if_steps: list[Any], else_steps: list[Any]) -> dict[str, Any]:
    return make_step(name, "Condition", {"Conditions": [condition], "IfSteps": if_steps, "ElseSteps": else_steps})


def test_steps_run_in_order_of_their_dependencies(process_server: LocalServer) -> None:
    first = make_processing_step(process_server, "First", "sleep 0.2")
    second = make_processing_step(process_server, "Second", "true", "First")
    third = make_processing_step(
        process_server, "Third", {"Std:Join": {"On": "", "Values": [": ", make_get("Steps.Second.ProcessingJobName")]}}
    )
    status, steps = run_pipeline(process_server, third, second, first)
    assert (status, list(steps)) == ("Succeeded", ["First", "Second", "Third"])
    assert steps["First"]["EndTime"] <= steps["Second"]["StartTime"]
    assert set(list_statuses(steps).values()) == {"Succeeded"}
    assert [step["AttemptCount"] for step in steps.values()] == [1, 1, 1]


def test_step_creates_a_training_job(process_server: LocalServer) -> None:
    arn = start_execution(
        process_server,
        create_pipeline(process_server, make_training_step(process_server, "Train_It", "echo x > $SM_MODEL_DIR/w")),
    )
    assert wait_for_end(process_server, arn)["PipelineExecutionStatus"] == "Succeeded"
    job_arn = list_steps(process_server, arn)["Train_It"]["Metadata"]["TrainingJob"]["Arn"]
    name = job_arn.rpartition("/")[2]
    assert name.startswith(f"pipelines-{arn.rpartition('/')[2]}-Train-It-")
    assert process_server.describe_training(name)["TrainingJobStatus"] == "Completed"


def test_expressions_become_values_of_the_member_types(process_server: LocalServer) -> None:
    """A parameter, a property, a value of a property file and a variable reach the request of a later step."""
    metrics = json.dumps({"scores": [{"value": 0.75}], "ok": True, "name": "é"})
    measure = make_processing_step(
        process_server, "Measure", f"echo '{metrics}' > {OUTPUT}/metrics.json", files=["metrics"]
    )
    json_get = {
        "Std:JsonGet": {"PropertyFile": make_get("Steps.Measure.PropertyFiles.metrics"), "Path": "scores[0].value"}
    }
    train = make_training_step(
        process_server,
        "Train",
        HyperParameters={
            "epochs": {"Std:Join": {"On": "", "Values": [make_get("Parameters.Epochs")]}},
            "score": json_get,
            "text": {
                "Std:Join": {
                    "On": "/",
                    "Values": [make_get("Execution.PipelineName"), json_get, make_get("Parameters.Flag")],
                }
            },
            "data": make_get("Steps.Measure.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"),
        },
        ResourceConfig={
            "InstanceType": make_get("Parameters.Type"),
            "InstanceCount": make_get("Parameters.Count"),
            "VolumeSizeInGB": 1,
        },
    )
    parameters = [
        {"Name": "Epochs", "Type": "Integer", "DefaultValue": 3},
        {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
        {"Name": "Type", "Type": "String"},
        {"Name": "Flag", "Type": "Boolean", "DefaultValue": False},
    ]
    pipeline = create_pipeline(process_server, measure, train, Parameters=parameters)
    arn = start_execution(process_server, pipeline, {"Type": "ml.m5.xlarge", "Epochs": "7", "Flag": "true"})
    description = wait_for_end(process_server, arn)
    assert description["PipelineExecutionStatus"] == "Succeeded", description
    name = list_steps(process_server, arn)["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    job = process_server.describe_training(name)
    uri = measure["Arguments"]["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
    assert job["HyperParameters"] == {"epochs": "7", "score": "0.75", "text": f"{pipeline}/0.75/true", "data": uri}
    assert (job["ResourceConfig"]["InstanceType"], job["ResourceConfig"]["InstanceCount"]) == ("ml.m5.xlarge", 1)
    summaries = process_server.sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)[
        "PipelineParameters"
    ]
    assert {item["Name"]: item["Value"] for item in summaries} == {
        "Epochs": "7",
        "Count": "1",
        "Type": "ml.m5.xlarge",
        "Flag": "true",
    }


def test_step_reads_the_name_of_its_own_job(process_server: LocalServer) -> None:
    train = make_training_step(process_server, "Train", HyperParameters={"name": make_get("Execution.TrainingJobName")})
    train["Arguments"]["TrainingJobName"] = "mine"
    status, steps = run_pipeline(process_server, train)
    assert status == "Succeeded"
    name = steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    assert process_server.describe_training(name)["HyperParameters"] == {"name": name}
    assert name.startswith("mine-")


def test_condition_chooses_a_branch(process_server: LocalServer) -> None:
    inner = make_condition_step(
        "Inner",
        {"Type": "Not", "Condition": EQUAL_CONDITION},
        [make_step("Unreached", "Fail", {"ErrorMessage": "x"})],
        [make_processing_step(process_server, "Chosen")],
    )
    outer = make_condition_step("Outer", EQUAL_CONDITION, [inner], [make_step("Other", "Fail", {"ErrorMessage": "x"})])
    after = make_processing_step(process_server, "After", "true", "Unreached")
    status, steps = run_pipeline(process_server, outer, after)
    assert (status, list(steps)) == ("Succeeded", ["Outer", "Inner", "Chosen"])
    outcomes = [steps[name]["Metadata"]["Condition"]["Outcome"] for name in ("Outer", "Inner")]
    assert outcomes == ["True", "False"]


def test_failure_ends_the_execution(process_server: LocalServer) -> None:
    """Running steps finish, dependent steps do not start, and the reasons reach the step and the execution."""
    failing = make_processing_step(process_server, "Failing", "exit 3")
    slow = make_processing_step(process_server, "Slow", "sleep 1")
    never = make_processing_step(process_server, "Never", "true", "Slow")
    arn = start_execution(process_server, create_pipeline(process_server, failing, slow, never))
    description = wait_for_end(process_server, arn)
    steps = list_steps(process_server, arn)
    assert list_statuses(steps) == {"Failing": "Failed", "Slow": "Succeeded"}
    assert "exit code: 3" in steps["Failing"]["FailureReason"]
    assert description["PipelineExecutionStatus"] == "Failed"
    assert description["FailureReason"].startswith(
        "Step failure: One or multiple steps failed. Failing: AlgorithmError"
    )


def test_fail_step_has_its_message(process_server: LocalServer) -> None:
    message = {"Std:Join": {"On": " ", "Values": ["too", "bad:", make_get("Parameters.P")]}}
    parameters = [{"Name": "P", "Type": "Float", "DefaultValue": 0.5}]
    status, steps = run_pipeline(
        process_server, make_step("Stop", "Fail", {"ErrorMessage": message}), Parameters=parameters
    )
    assert (status, steps["Stop"]["FailureReason"]) == ("Failed", "too bad: 0.5")
    assert steps["Stop"]["Metadata"]["Fail"]["ErrorMessage"] == "too bad: 0.5"


def test_value_that_does_not_exist_fails_the_step(process_server: LocalServer) -> None:
    json_get = {"Std:JsonGet": {"PropertyFile": make_get("Steps.Measure.PropertyFiles.metrics"), "Path": "scre"}}
    measure = make_processing_step(
        process_server, "Measure", f"echo '{{\"score\": 1}}' > {OUTPUT}/metrics.json", files=["metrics"]
    )
    condition = make_condition_step("Check", {"Type": "GreaterThan", "LeftValue": json_get, "RightValue": 1}, [], [])
    status, steps = run_pipeline(process_server, measure, condition)
    assert (status, list_statuses(steps)) == ("Failed", {"Measure": "Succeeded", "Check": "Failed"})
    assert "did you mean score?" in steps["Check"]["FailureReason"]


def test_refused_request_fails_the_step(process_server: LocalServer) -> None:
    step = make_training_step(
        process_server,
        "Train",
        InputDataConfig=[
            {"ChannelName": "c", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://absent/x"}}}
        ],
    )
    status, steps = run_pipeline(process_server, step)
    assert status == "Failed"
    assert steps["Train"]["FailureReason"].startswith("ClientError: ")
    assert "absent" in steps["Train"]["FailureReason"]


def test_stop_stops_running_jobs(process_server: LocalServer) -> None:
    steps = [make_processing_step(process_server, name, "sleep 100") for name in ("One", "Two")]
    arn = start_execution(
        process_server,
        create_pipeline(process_server, *steps, make_processing_step(process_server, "Three", "true", "One")),
    )
    wait_until(
        lambda: list_steps(process_server, arn),
        lambda steps_by_name: list(list_statuses(steps_by_name).values()) == ["Executing"] * 2,
    )
    assert process_server.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionArn"] == arn
    assert wait_for_end(process_server, arn)["PipelineExecutionStatus"] == "Stopped"
    steps_by_name = list_steps(process_server, arn)
    assert list_statuses(steps_by_name) == {"One": "Stopped", "Two": "Stopped"}
    job = steps_by_name["One"]["Metadata"]["ProcessingJob"]["Arn"].rpartition("/")[2]
    assert process_server.sagemaker.describe_processing_job(ProcessingJobName=job)["ProcessingJobStatus"] == "Stopped"
    with pytest.raises(ClientError, match="is Stopped: only a running execution can be stopped"):
        process_server.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)


def test_parallelism_is_limited_and_can_be_changed(process_server: LocalServer) -> None:
    steps = [make_processing_step(process_server, f"S{number}", "sleep 100") for number in range(3)]
    pipeline = create_pipeline(process_server, *steps)
    arn = start_execution(process_server, pipeline, ParallelismConfiguration={"MaxParallelExecutionSteps": 1})
    wait_until(
        lambda: list_steps(process_server, arn),
        lambda steps_by_name: list(list_statuses(steps_by_name).values()) == ["Executing"],
    )
    process_server.sagemaker.update_pipeline_execution(
        PipelineExecutionArn=arn,
        PipelineExecutionDescription="changed",
        ParallelismConfiguration={"MaxParallelExecutionSteps": 2},
    )
    wait_until(
        lambda: list_steps(process_server, arn),
        lambda steps_by_name: list(list_statuses(steps_by_name).values()) == ["Executing"] * 2,
    )
    process_server.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    description = wait_for_end(process_server, arn)
    assert description["PipelineExecutionDescription"] == "changed"
    assert description["ParallelismConfiguration"] == {"MaxParallelExecutionSteps": 2}
    assert len(list_steps(process_server, arn)) == 2


def test_token_makes_the_start_idempotent(process_server: LocalServer) -> None:
    pipeline, token = (
        create_pipeline(process_server, make_condition_step("C", EQUAL_CONDITION, [], [])),
        uuid.uuid4().hex,
    )
    first, second = (start_execution(process_server, pipeline, ClientRequestToken=token) for _ in range(2))
    assert first == second != start_execution(process_server, pipeline, ClientRequestToken=uuid.uuid4().hex)
    with pytest.raises(ClientError, match=r"ConflictException.*other members"):
        start_execution(process_server, pipeline, ClientRequestToken=token, PipelineExecutionDisplayName="other")
    wait_for_end(process_server, first)


def test_executions_are_described_and_listed(process_server: LocalServer) -> None:
    pipeline = create_pipeline(process_server, make_condition_step("C", EQUAL_CONDITION, [], []))
    arns = [
        start_execution(process_server, pipeline, PipelineExecutionDisplayName=f"run-{number}") for number in range(3)
    ]
    for arn in arns:
        wait_for_end(process_server, arn)
    client = process_server.sagemaker
    pages = client.get_paginator("list_pipeline_executions").paginate(
        PipelineName=pipeline, PaginationConfig={"PageSize": 2}
    )
    summaries = list(pages.search("PipelineExecutionSummaries[]"))
    assert [item["PipelineExecutionArn"] for item in summaries] == arns[::-1]
    assert [item["PipelineExecutionDisplayName"] for item in summaries] == ["run-2", "run-1", "run-0"]
    sort = {"SortBy": "PipelineExecutionArn", "SortOrder": "Ascending"}
    summaries_by_arn = client.list_pipeline_executions(PipelineName=pipeline, **sort)["PipelineExecutionSummaries"]
    assert [item["PipelineExecutionArn"] for item in summaries_by_arn] == sorted(arns)
    assert client.list_pipeline_executions(PipelineName=pipeline, CreatedBefore=1)["PipelineExecutionSummaries"] == []
    description = describe_execution(process_server, arns[0])
    assert description["PipelineArn"] == arns[0].partition("/execution/")[0]
    assert description["PipelineVersionId"] == 1
    definition = client.describe_pipeline_definition_for_execution(PipelineExecutionArn=arns[0])["PipelineDefinition"]
    assert [step["Name"] for step in json.loads(definition)["Steps"]] == ["C"]


def test_steps_are_listed_newest_first_in_pages(process_server: LocalServer) -> None:
    names = ["A", "B", "C"]
    steps = [make_condition_step(name, EQUAL_CONDITION, [], []) for name in names]
    arn = start_execution(process_server, create_pipeline(process_server, *steps))
    wait_for_end(process_server, arn)
    pages = process_server.sagemaker.get_paginator("list_pipeline_execution_steps").paginate(
        PipelineExecutionArn=arn, PaginationConfig={"PageSize": 2}
    )
    assert list(pages.search("PipelineExecutionSteps[].StepName")) == names[::-1]


def test_invalid_parameters_are_refused(process_server: LocalServer) -> None:
    parameters = [
        {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
        {"Name": "Colour", "Type": "String", "DefaultValue": "red", "EnumValues": ["red", "blue"]},
    ]
    pipeline = create_pipeline(process_server, make_condition_step("C", EQUAL_CONDITION, [], []), Parameters=parameters)
    for values, reason in (
        ({"Cuont": "1"}, "did you mean Count"),
        ({"Count": "x"}, "type Integer"),
        ({"Colour": "green"}, "EnumValues"),
    ):
        with pytest.raises(ClientError, match=f"ValidationException.*{reason}"):
            start_execution(process_server, pipeline, values)
    assert process_server.sagemaker.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"] == []


@pytest.mark.parametrize("operation", ["describe", "stop", "update", "retry"])
def test_missing_execution_is_refused(process_server: LocalServer, operation: str) -> None:
    arn = "arn:aws:sagemaker:us-east-1:000000000000:pipeline/p/execution/absent"
    with pytest.raises(ClientError, match="ResourceNotFound"):
        getattr(process_server.sagemaker, f"{operation}_pipeline_execution")(PipelineExecutionArn=arn)


def test_retry_continues_with_the_failed_step(process_server: LocalServer) -> None:
    key = f"{uuid.uuid4().hex}/flag"
    before = make_processing_step(process_server, "Before")
    flaky = make_processing_step(process_server, "Flaky", f"test -e {process_server.bucket / key}", "Before")
    after = make_processing_step(process_server, "After", "true", "Flaky")
    arn = start_execution(process_server, create_pipeline(process_server, before, flaky, after))
    assert wait_for_end(process_server, arn)["PipelineExecutionStatus"] == "Failed"
    first_steps = list_steps(process_server, arn)
    process_server.put({key: ""})
    token = uuid.uuid4().hex
    for _ in range(2):
        process_server.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=token)
    description = wait_for_end(process_server, arn)
    steps = list_steps(process_server, arn)
    assert (description["PipelineExecutionStatus"], description.get("FailureReason")) == ("Succeeded", None)
    assert list_statuses(steps) == dict.fromkeys(("Before", "Flaky", "After"), "Succeeded")
    assert steps["Before"] == first_steps["Before"]
    with pytest.raises(ClientError, match=r"ConflictException.*is Succeeded"):
        process_server.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn)


# --- caching ---


def find_job_arn(step: dict[str, Any]) -> str:
    arn: str = step["Metadata"]["ProcessingJob"]["Arn"]
    return arn


def test_cached_step_reuses_the_job_of_an_earlier_execution(process_server: LocalServer) -> None:
    """The cache key contains only the arguments that AWS documents: a changed StoppingCondition is a hit, a changed
    Environment is a miss."""
    cache: dict[str, Any] = {"CacheConfig": {"Enabled": True, "ExpireAfter": "PT1H"}}
    cached_step = make_processing_step(process_server, "Cached", f"echo 1 > {OUTPUT}/a.json", files=["a"], **cache)
    cached_step["Arguments"]["Environment"] = {"A": make_get("Parameters.A")}
    cached_step["Arguments"]["StoppingCondition"] = {"MaxRuntimeInSeconds": make_get("Parameters.Limit")}
    json_get = {"Std:JsonGet": {"PropertyFile": make_get("Steps.Cached.PropertyFiles.a"), "Path": ""}}
    check = make_condition_step("Check", {"Type": "Equals", "LeftValue": json_get, "RightValue": 1}, [], [])
    parameters = [
        {"Name": "A", "Type": "String", "DefaultValue": "x"},
        {"Name": "Limit", "Type": "Integer", "DefaultValue": 10},
    ]
    pipeline = create_pipeline(process_server, cached_step, check, Parameters=parameters)
    arns = [start_execution(process_server, pipeline)]
    wait_for_end(process_server, arns[0])
    for values in ({"Limit": "20"}, {"A": "y"}):
        arns.append(start_execution(process_server, pipeline, values))
        assert wait_for_end(process_server, arns[-1])["PipelineExecutionStatus"] == "Succeeded"
    first, hit, miss = (list_steps(process_server, arn) for arn in arns)
    assert hit["Cached"]["CacheHitResult"] == {"SourcePipelineExecutionArn": arns[0]}
    assert find_job_arn(first["Cached"]) == find_job_arn(hit["Cached"]) != find_job_arn(miss["Cached"])
    assert hit["Check"]["Metadata"]["Condition"]["Outcome"] == "True"
    assert "CacheHitResult" not in miss["Cached"]


def test_expired_result_is_not_reused(process_server: LocalServer) -> None:
    cache: dict[str, Any] = {"CacheConfig": {"Enabled": True, "ExpireAfter": "PT1S"}}
    pipeline = create_pipeline(process_server, make_processing_step(process_server, "Cached", **cache))
    for _ in range(2):
        arn = start_execution(process_server, pipeline)
        wait_for_end(process_server, arn)
        assert "CacheHitResult" not in list_steps(process_server, arn)["Cached"]
        time.sleep(1.1)


# --- selective execution ---


def test_selected_steps_use_the_results_of_an_earlier_execution(process_server: LocalServer) -> None:
    first = make_processing_step(process_server, "First", f"echo 1 > {OUTPUT}/a.json", files=["a"])
    json_get = {"Std:JsonGet": {"PropertyFile": make_get("Steps.First.PropertyFiles.a"), "Path": ""}}
    second = make_training_step(
        process_server, "Second", HyperParameters={"a": json_get, "p": make_get("Parameters.P")}
    )
    third = make_processing_step(process_server, "Third", "true", "Second")
    other = make_processing_step(process_server, "Other")
    parameters = [{"Name": "P", "Type": "String", "DefaultValue": "default"}]
    pipeline = create_pipeline(process_server, first, second, third, other, Parameters=parameters)
    source = start_execution(process_server, pipeline, {"P": "earlier"})
    wait_for_end(process_server, source)
    selection = {"SourcePipelineExecutionArn": source, "SelectedSteps": [{"StepName": "Second"}]}
    arn = start_execution(process_server, pipeline, SelectiveExecutionConfig=selection)
    description = wait_for_end(process_server, arn)
    assert (description["PipelineExecutionStatus"], description["SelectiveExecutionConfig"]) == ("Succeeded", selection)
    steps = list_steps(process_server, arn)
    assert list(steps) == ["First", "Second"]
    assert steps["First"]["SelectiveExecutionResult"] == {"SourcePipelineExecutionArn": source}
    assert find_job_arn(steps["First"]) == find_job_arn(list_steps(process_server, source)["First"])
    job = process_server.describe_training(steps["Second"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2])
    assert job["HyperParameters"] == {"a": "1", "p": "earlier"}
    selection_without_source = {"SelectedSteps": [{"StepName": "Second"}]}
    with pytest.raises(ClientError, match="The result of step First is needed, but is not available"):
        start_execution(process_server, pipeline, SelectiveExecutionConfig=selection_without_source)
    with pytest.raises(ClientError, match=r"step Secnd, which does not exist .did you mean Second"):
        start_execution(process_server, pipeline, SelectiveExecutionConfig={"SelectedSteps": [{"StepName": "Secnd"}]})


# --- triggers ---


def test_step_that_follows_a_failure_completes_the_execution_with_failures(process_server: LocalServer) -> None:
    failing = make_processing_step(process_server, "Failing", "exit 1")
    unrelated = make_processing_step(process_server, "Unrelated", "sleep 0.5")
    after = make_processing_step(process_server, "After", "true", "Unrelated")
    handler = make_processing_step(process_server, "Handler", "true", {"Step": "Failing", "Trigger": "Failed"})
    never = make_processing_step(process_server, "Never", "true", {"Step": "Unrelated", "Trigger": "Failed"})
    always = make_processing_step(process_server, "Always", "true", {"Step": "Unrelated", "Trigger": "Any"})
    status, steps = run_pipeline(process_server, failing, unrelated, after, handler, never, always)
    statuses = dict.fromkeys(("Unrelated", "After", "Handler", "Always"), "Succeeded")
    assert (status, list_statuses(steps)) == ("CompletedWithFailures", {**statuses, "Failing": "Failed"})


def test_repeated_parameter_is_refused(process_server: LocalServer) -> None:
    name = create_pipeline(
        process_server, make_processing_step(process_server, "A"), Parameters=[{"Name": "P", "Type": "String"}]
    )
    values = [{"Name": "P", "Value": value} for value in ("one", "two")]
    with pytest.raises(ClientError, match="names of PipelineParameters must be unique; repeated: 'P'"):
        process_server.sagemaker.start_pipeline_execution(PipelineName=name, PipelineParameters=values)
