"""Tests of the EventBridge events of a real server about jobs, models, model packages and pipelines."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer, make_unique_name, run_server
from tests.local.event_listener import EventListener
from tests.local.resources.examples import pipelines
from tests.local.resources.examples.models import put_linear_model
from tests.polling import wait_until

TIMEOUT_SECONDS = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="module")
def listener() -> Iterator[EventListener]:
    with EventListener() as listener:
        yield listener


@pytest.fixture(scope="module")
def server(folder: Path, listener: EventListener) -> Iterator[LocalServer]:
    approved_pattern = {"detail": {"ModelApprovalStatus": ["Approved"]}}
    script = f"cat >> {folder}/commands.jsonl; echo >> {folder}/commands.jsonl"
    targets = [
        {"file": str(folder / "events.jsonl")},
        {"webhook": listener.url, "pattern": approved_pattern},
        {"command": ["/bin/sh", "-c", script], "pattern": {"detail-type": [{"prefix": "SageMaker Endpoint Config"}]}},
        {"command": ["/bin/sleep", "100"], "timeout": 0.2},
    ]
    with run_server(folder / "home", runtime="process", events=targets) as server:
        yield server


def list_events(path: Path, arns: list[str]) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["resources"] == arns]


def wait_for_events(path: Path, arn: str, count: int) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = wait_until(
        lambda: list_events(path, [arn]), lambda events: len(events) >= count, TIMEOUT_SECONDS
    )
    return events


def test_training_job_has_an_event_per_status(server: LocalServer, folder: Path) -> None:
    job = server.train("exit 3", Tags=[{"Key": "team", "Value": "blue"}])
    events = wait_for_events(folder / "events.jsonl", job["TrainingJobArn"], 2)
    while events[-1]["detail"]["TrainingJobStatus"] != "Failed":
        events = wait_for_events(folder / "events.jsonl", job["TrainingJobArn"], len(events) + 1)
    first_event, last_event = events[0], events[-1]
    assert {event["detail-type"] for event in events} == {"SageMaker Training Job State Change"}
    statuses = [event["detail"]["SecondaryStatus"] for event in events]
    assert statuses == [change["Status"] for change in job["SecondaryStatusTransitions"]]
    assert (
        first_event.keys()
        == last_event.keys()
        == {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
    )
    assert (first_event["version"], first_event["source"], first_event["region"]) == ("0", "aws.sagemaker", "us-east-1")
    assert first_event["account"] == "000000000000"
    assert len({event["id"] for event in events}) == len(events)
    assert first_event["detail"]["Tags"] == {"team": "blue"}
    assert last_event["detail"]["FailureReason"] == job["FailureReason"]
    assert last_event["detail"]["CreationTime"] == round(job["CreationTime"].timestamp() * 1000)
    transition = last_event["detail"]["SecondaryStatusTransitions"][0]
    assert transition["StartTime"] == round(job["SecondaryStatusTransitions"][0]["StartTime"].timestamp() * 1000)


def test_model_and_configuration_have_events_when_created_and_deleted(server: LocalServer, folder: Path) -> None:
    name = make_unique_name("model")
    put_linear_model(server, f"{name}/model.tar.gz", 1.0)
    container = {"Image": "microjobs/serve:dev", "ModelDataUrl": server.uri(f"{name}/model.tar.gz")}
    request = {"PrimaryContainer": container, "ExecutionRoleArn": server.address.role_arn}
    model = server.sagemaker.create_model(ModelName=name, **request)["ModelArn"]
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    config = server.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    server.sagemaker.delete_endpoint_config(EndpointConfigName=name)
    server.sagemaker.delete_model(ModelName=name)
    creation_event, deletion_event = wait_for_events(folder / "events.jsonl", model, 2)
    assert creation_event["detail-type"] == deletion_event["detail-type"] == "SageMaker Model State Change"
    assert creation_event["detail"] == deletion_event["detail"]
    assert creation_event["detail"]["PrimaryContainer"]["Image"] == "microjobs/serve:dev"
    events = wait_for_events(folder / "commands.jsonl", config["EndpointConfigArn"], 2)
    assert [event["detail"]["EndpointConfigName"] for event in events] == [name, name]
    assert events[0]["detail-type"] == "SageMaker Endpoint Config State Change"


def test_approval_of_a_package_is_posted(server: LocalServer, folder: Path, listener: EventListener) -> None:
    group = make_unique_name("group")
    put_linear_model(server, f"{group}/model.tar.gz", 1.0)
    container = {"Image": "microjobs/serve:dev", "ModelDataUrl": server.uri(f"{group}/model.tar.gz")}
    specification = {
        "Containers": [container],
        "SupportedContentTypes": ["text/csv"],
        "SupportedResponseMIMETypes": ["text/csv"],
    }
    server.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    arn = server.sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification=specification,
        ModelApprovalStatus="PendingManualApproval",
    )["ModelPackageArn"]
    server.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    wait_until(lambda: listener.events, bool, TIMEOUT_SECONDS)
    (event,) = listener.events
    assert (event["detail-type"], event["resources"]) == ("SageMaker Model Package State Change", [arn])
    detail = event["detail"]
    assert (detail["ModelPackageGroupName"], detail["ModelPackageVersion"]) == (group, 1)
    assert (detail["ModelApprovalStatus"], detail["ModelPackageStatus"]) == ("Approved", "Completed")
    assert "ModelApprovalStatus" in detail["UpdatedModelPackageFields"]
    creation_event, _ = wait_for_events(folder / "events.jsonl", arn, 2)
    assert creation_event["detail"]["ModelApprovalStatus"] == "PendingManualApproval"


def test_execution_and_its_steps_have_events(server: LocalServer, folder: Path) -> None:
    name = make_unique_name("pipeline")
    pipeline = server.sagemaker.create_pipeline(
        PipelineName=name, ClientRequestToken=pipelines.make_token(name), **pipelines.make_request(server, name)
    )["PipelineArn"]
    execution = server.sagemaker.start_pipeline_execution(
        PipelineName=name,
        ClientRequestToken=pipelines.make_token(name),
        PipelineExecutionDescription="first",
        PipelineExecutionDisplayName="one",
    )["PipelineExecutionArn"]
    arns = [pipeline, execution]
    events = wait_until(
        lambda: list_events(folder / "events.jsonl", arns),
        lambda events: any(event["detail"].get("currentPipelineExecutionStatus") == "Succeeded" for event in events),
        TIMEOUT_SECONDS,
    )
    execution_events = [event for event in events if event["detail-type"].endswith("Pipeline Execution Status Change")]
    details = [event["detail"] for event in execution_events]
    assert [item.get("previousPipelineExecutionStatus") for item in details] == [None, "Executing"]
    assert [item["currentPipelineExecutionStatus"] for item in details] == ["Executing", "Succeeded"]
    assert (details[0]["pipelineExecutionDisplayName"], details[0]["pipelineExecutionDescription"]) == ("one", "first")
    assert details[1]["executionEndTime"] >= details[1]["executionStartTime"]
    assert (details[1]["pipelineArn"], details[1]["pipelineExecutionArn"]) == (pipeline, execution)
    steps = [event["detail"] for event in events if event["detail-type"].endswith("Execution Step Status Change")]
    finished_steps = {step["stepName"]: step for step in steps if step["currentStepStatus"] == "Succeeded"}
    assert {step: detail["stepType"] for step, detail in finished_steps.items()} == {
        "process": "Processing",
        "check": "Condition",
        "create": "Model",
    }
    assert finished_steps["process"]["previousStepStatus"] == "Executing"
    assert "/" in finished_steps["process"]["metadata"]["processingJob"]["arn"]
    assert finished_steps["process"]["stepEndTime"] >= finished_steps["process"]["stepStartTime"]


def test_undelivered_events_are_delivered_by_a_later_server(tmp_path: Path) -> None:
    """The webhook is down until the third server starts. The first server is killed and the second server stops before
    the webhook is up, so they deliver no event."""
    with EventListener() as listener:
        port = listener.port
    settings: dict[str, Any] = {"runtime": "process", "events": [{"webhook": listener.url}]}
    with run_server(tmp_path / "home", **settings) as server:
        name = server.start_training("sleep 60")
        wait_until(lambda: server.describe_training(name)["SecondaryStatus"], lambda status: status == "Training")
        os.kill(server.address.pid, signal.SIGKILL)
        wait_until(lambda: control.find_server(server.home), lambda address: address is None)
    with run_server(tmp_path / "home", **settings):
        pass
    with EventListener(port) as listener, run_server(tmp_path / "home", **settings) as server:
        job = server.wait_for_end(name)
        wait_until(
            lambda: listener.events, lambda events: events[-1:] and announces_failure(events[-1]), TIMEOUT_SECONDS
        )
        statuses = [event["detail"]["SecondaryStatus"] for event in listener.events]
    assert statuses == [change["Status"] for change in job["SecondaryStatusTransitions"]]


def announces_failure(event: dict[str, Any]) -> bool:
    return bool(event["detail"]["TrainingJobStatus"] == "Failed")


def test_hanging_webhook_does_not_delay_a_job(tmp_path: Path) -> None:
    with EventListener() as listener:
        listener.is_slow = True
        targets = [{"webhook": listener.url, "timeout": 30}]
        with run_server(tmp_path / "home", runtime="process", events=targets) as server:
            job = server.train("true")
            assert job["TrainingJobStatus"] == "Completed"
            assert len(listener.events) == 1  # the first request still waits
            listener.is_slow = False
