"""Tests of all requests for AWS: botocore's model and the local server validate them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore import xform_name

from microjobs_orchestrator.aws import request_completer
from microjobs_orchestrator.aws.backend import make_request_context
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.dry_run import format_requests
from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.parity.table import refuse_unsupported_members
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.runs.backend import RequestContext
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext
from microjobs_orchestrator.workflows import housing, straight_line
from tests.aws.account import IMAGE_URIS
from tests.launcher.cloud import Cloud
from tests.launcher.conftest import StartRun

SAGEMAKER: Any = boto3.client("sagemaker", "us-east-1", aws_access_key_id="k", aws_secret_access_key="s")  # noqa: S106

PLANNERS: dict[str, Callable[[RunContext], list[PlannedRequest]]] = {
    "housing": lambda context: housing.plan_requests(context, housing.Options()),
    "housing in PyTorch": lambda context: housing.plan_requests(context, housing.Options("pytorch", tuning=False)),
    "own data": lambda context: housing.plan_requests(context, housing.Options(data="x.npz", instance_count=2)),
    "straight-line": lambda context: straight_line.plan_requests(context, straight_line.Options()),
}


def complete_requests(settings: Settings, workflow: str) -> dict[str, list[dict[str, Any]]]:
    """Return the completed requests of a workflow, by operation."""
    context = make_request_context(settings, IMAGE_URIS.__getitem__)
    requests: dict[str, list[dict[str, Any]]] = {}
    for item in PLANNERS[workflow](RunContext(context, "run")):
        requests.setdefault(item.operation, []).append(dict(context.complete_request("run", item.kind, item.members)))
    return requests


@pytest.mark.parametrize("workflow", PLANNERS)
@pytest.mark.parametrize("fixture_name", ["settings", "full_settings"])
def test_dry_run_prints_valid_requests(workflow: str, fixture_name: str, request: pytest.FixtureRequest) -> None:
    context = RunContext(make_request_context(request.getfixturevalue(fixture_name), IMAGE_URIS.__getitem__), "run")
    for command, line in format_requests(context, PLANNERS[workflow](context)):
        verb = command.removeprefix("aws sagemaker ").removesuffix(" --cli-input-json")
        operation = {xform_name(name, "-"): name for name in SAGEMAKER.meta.service_model.operation_names}[verb]
        members = json.loads(line)
        model = SAGEMAKER.meta.service_model.operation_model(operation)
        # botocore validates the request while it serializes it
        SAGEMAKER._serializer.serialize_to_request(members, model)
        validate(model, members)
        refuse_unsupported_members("sagemaker", operation, members)


@pytest.mark.parametrize("tuning", [True, False])
def test_plan_matches_sent_requests(cloud: Cloud, start_run: StartRun, tmp_path: Path, tuning: bool) -> None:
    run, options = start_run(), housing.Options(tuning=tuning)
    housing.run_housing(run, options, tmp_path)
    planned_requests = housing.plan_requests(RunContext(run.backend, run.id), options)
    assert [
        find_sent_request(cloud, item, number, planned_requests) for number, item in enumerate(planned_requests)
    ] == list_members(planned_requests)


def test_plan_with_user_data_matches_sent_requests(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=np.zeros((5, 2)), y=np.zeros(5))
    run, options = start_run(), housing.Options(data=str(tmp_path / "own.npz"), tuning=False)
    housing.WORKFLOW.execute(run, options, tmp_path)
    raw = housing.plan_requests(RunContext(run.backend, run.id), options)[0]
    assert cloud.find_requests("CreateProcessingJob")[0] == raw.members
    assert raw.members["ProcessingInputs"][0]["S3Input"]["S3Uri"] in cloud.objects


def test_plan_of_straight_line_matches_sent_requests(cloud: Cloud, start_run: StartRun, tmp_path: Path) -> None:
    run = start_run("straight-line")
    straight_line.run_straight_line(run, straight_line.Options(), tmp_path)
    planned_requests = straight_line.plan_requests(RunContext(run.backend, run.id), straight_line.Options())
    assert [
        find_sent_request(cloud, item, number, planned_requests) for number, item in enumerate(planned_requests)
    ] == list_members(planned_requests)


def list_members(planned_requests: list[PlannedRequest]) -> Any:
    """Return the members of the requests as JSON has them: with lists in place of tuples."""
    return json.loads(json.dumps([item.members for item in planned_requests]))


def find_sent_request(cloud: Cloud, item: PlannedRequest, number: int, planned_requests: list[PlannedRequest]) -> Any:
    """Return the sent request that belongs to a planned request.

    A plan cannot know the best trial, so it has the URI of the model of the training step. This URI replaces the URI of
    the best model in the sent request.
    """
    earlier_count = sum(request.operation == item.operation for request in planned_requests[:number])
    text = json.dumps(cloud.find_requests(item.operation)[earlier_count])
    return json.loads(text.replace("-tune-001-abcd1234/output", "-train/output"))


def test_all_resources_are_tagged_with_their_run(full_settings: Settings) -> None:
    for requests in complete_requests(full_settings, "housing").values():
        for request in requests:
            assert request["Tags"] == [
                {"Key": "team", "Value": "houses"},
                {"Key": request_completer.RUN_TAG, "Value": "run"},
            ]


def test_all_data_is_below_the_prefix(full_settings: Settings) -> None:
    text = json.dumps(complete_requests(full_settings, "own data"))
    assert text.count("s3://bucket/") == text.count("s3://bucket/team/houses/run/") > 10


def test_spot_training_has_additional_wait_time(full_settings: Settings) -> None:
    requests = complete_requests(full_settings, "housing")
    [training] = requests["CreateTrainingJob"]
    definition = requests["CreateHyperParameterTuningJob"][0]["TrainingJobDefinition"]
    for request in (training, definition):
        assert request["EnableManagedSpotTraining"] is True
        assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}


def test_jobs_and_models_are_in_the_vpc(full_settings: Settings) -> None:
    vpc = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    requests = complete_requests(full_settings, "housing")
    assert [request["NetworkConfig"]["VpcConfig"] for request in requests["CreateProcessingJob"]] == [vpc] * 3
    assert requests["CreateTrainingJob"][0]["VpcConfig"] == vpc
    assert requests["CreateHyperParameterTuningJob"][0]["TrainingJobDefinition"]["VpcConfig"] == vpc
    assert requests["CreateModel"][0]["VpcConfig"] == vpc


def test_outputs_and_volumes_are_encrypted(full_settings: Settings) -> None:
    requests = complete_requests(full_settings, "housing")
    for request in requests["CreateProcessingJob"]:
        assert request["ProcessingOutputConfig"]["KmsKeyId"] == full_settings.kms_key
        assert request["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] == full_settings.kms_key
    assert requests["CreateTrainingJob"][0]["OutputDataConfig"]["KmsKeyId"] == full_settings.kms_key
    assert requests["CreateEndpointConfig"][0]["KmsKeyId"] == full_settings.kms_key


def test_encrypted_local_disks_get_no_key(full_settings: Settings) -> None:
    assert "VolumeKmsKeyId" not in complete_requests(full_settings, "housing")["CreateTrainingJob"][0]["ResourceConfig"]


@pytest.mark.parametrize(
    ("instance_type", "has_local_disks"),
    [
        ("ml.m5.large", False),
        ("ml.c6i.large", False),
        ("ml.p3.2xlarge", False),
        ("ml.m5d.large", True),
        ("ml.g4dn.xlarge", True),
        ("ml.g5.xlarge", True),
        ("ml.p3dn.24xlarge", True),
        ("ml.p4d.24xlarge", True),
    ],
)
def test_types_with_local_disks_are_recognised(instance_type: str, has_local_disks: bool) -> None:
    assert (request_completer.LOCAL_DISK_TYPE_PATTERN.match(instance_type) is not None) == has_local_disks


def test_steps_can_have_different_instance_types(full_settings: Settings) -> None:
    requests = complete_requests(full_settings, "housing")
    assert requests["CreateTrainingJob"][0]["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"
    tuning = requests["CreateHyperParameterTuningJob"][0]["TrainingJobDefinition"]
    assert tuning["ResourceConfig"]["InstanceType"] == "ml.m5.large"
    [variant] = requests["CreateEndpointConfig"][0]["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.c5.large", 2)


def test_completing_does_not_change_the_request(full_settings: Settings) -> None:
    context: RequestContext = make_request_context(full_settings, IMAGE_URIS.__getitem__)
    planned_requests = housing.plan_requests(RunContext(context, "run"), housing.Options())
    original_json = json.dumps([item.members for item in planned_requests])
    for item in planned_requests:
        context.complete_request("run", item.kind, item.members)
    assert json.dumps([item.members for item in planned_requests]) == original_json


def test_requests_name_images_by_digest(settings: Settings) -> None:
    requests = complete_requests(settings, "straight-line")
    assert requests["CreateTrainingJob"][0]["AlgorithmSpecification"]["TrainingImage"] == IMAGE_URIS["train-pytorch"]
    assert requests["CreateModel"][0]["PrimaryContainer"]["Image"].endswith("@sha256:" + "0" * 64)


@pytest.mark.parametrize("kind", load_kinds(), ids=lambda kind: kind.arn_type)
def test_aws_members_of_kinds_match_the_api(kind: Kind) -> None:
    request = SAGEMAKER.meta.service_model.operation_model(kind.operations["Create"]).input_shape
    definition = find_shape(request, kind.aws.definition)
    keys = {"VolumeKmsKeyId", "EnableManagedSpotTraining"} & {
        name for shape in list_structures(definition) for name in shape.members
    }
    assert bool(kind.aws.volume_kms_key) == ("VolumeKmsKeyId" in keys or kind.noun == "EndpointConfig")
    assert kind.aws.has_spot == ("EnableManagedSpotTraining" in keys)
    for path in (kind.aws.instances, kind.aws.network, kind.aws.output_kms_key, kind.aws.volume_kms_key):
        assert find_shape(definition, path)
    assert find_shape(request, kind.aws.job_limits)


def find_shape(shape: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        shape = shape.members[name]
    return shape


def list_structures(shape: Any) -> list[Any]:
    """Return a structure, and the structures that it contains down to two levels."""
    members = [member for member in shape.members.values() if member.type_name == "structure"]
    inner_structures = [item for member in members for item in member.members.values() if item.type_name == "structure"]
    return [shape, *members, *inner_structures]
