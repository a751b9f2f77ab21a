"""The table of what becomes of each member, against botocore's model and against requests."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.model import ListShape, Shape, StructureShape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.parity.page import render
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Rows
from microjobs_orchestrator.local.parity.table import TABLE, refuse
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.s3 import service as s3
from microjobs_orchestrator.local.server import create_services
from tests.conftest import REPOSITORY

OPERATIONS = [(service, operation) for service, operations in TABLE.items() for operation in operations]


def request_of(service: str, operation: str) -> StructureShape:
    return operation_model(service, operation).input_shape or StructureShape("Empty", {"members": {}})


def structure_of(shape: Shape) -> StructureShape | None:
    """The structure that a member is, or that a list's items are."""
    inner = shape.member if isinstance(shape, ListShape) else shape
    return inner if isinstance(inner, StructureShape) else None


def differences(rows: Rows, shape: StructureShape, path: str) -> Iterator[str]:
    yield from (f"{path}.{name} has no row" for name in shape.members.keys() - rows.keys())
    yield from (f"{path}.{name} is not in the model" for name in rows.keys() - shape.members.keys())
    for name in rows.keys() & shape.members.keys():
        row, inner = rows[name], structure_of(shape.members[name])
        if isinstance(row, Members) and inner:
            yield from differences(row.rows, inner, f"{path}.{name}")
        elif isinstance(row, Members) or (isinstance(row, Honoured) and inner):
            yield f"{path}.{name} is honoured, so each of its members needs a row"


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_every_member_of_the_model_has_a_row(service: str, operation: str) -> None:
    assert list(differences(TABLE[service][operation], request_of(service, operation), operation)) == []


def test_server_has_the_operations_of_the_table() -> None:
    context = Mock()
    context.settings.region = "us-east-1"
    supported = {service: set(handlers) for service, handlers in create_services(context, Mock()).items()}
    supported["s3"] = set(s3.OPERATIONS)
    assert supported == {service: set(operations) for service, operations in TABLE.items()}


def test_member_that_is_newer_than_the_table_is_refused() -> None:
    with pytest.raises(ServiceError, match=r'^Not supported here: fresh "x" \(unknown to this version\)$'):
        refuse("logs", "GetLogEvents", {"logGroupName": "g", "logStreamName": "s", "fresh": "x"})


def honoured_values(rows: Rows, shape: StructureShape, path: str) -> Iterator[tuple[str, object, Shape]]:
    for name, row in rows.items():
        member = shape.members[name]
        if isinstance(row, Members) and (inner := structure_of(member)):
            yield from honoured_values(row.rows, inner, f"{path}.{name}")
        elif isinstance(row, Honoured):
            yield from ((f"{path}.{name}", value, member) for value in row.values)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_honoured_values_are_the_models(service: str, operation: str) -> None:
    values = honoured_values(TABLE[service][operation], request_of(service, operation), operation)
    assert [path for path, value, member in values if value not in member.metadata.get("enum", [value])] == []


def test_page_is_up_to_date() -> None:
    assert (REPOSITORY / "docs" / "maintaining" / "parity.md").read_text() == render(TABLE), "run: make parity"


# --- requests ---


def training(**changes: Any) -> dict[str, Any]:
    """A CreateTrainingJob request as the SageMaker SDK makes it."""
    return {
        "TrainingJobName": "job",
        "RoleArn": "arn:aws:iam::000000000000:role/microjobs",
        "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": "image"},
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "DebugHookConfig": {"S3OutputPath": "s3://bucket/debug", "CollectionConfigurations": []},
        "ProfilerConfig": {"DisableProfiler": False},
        "EnableManagedSpotTraining": False,
        "RemoteDebugConfig": {"EnableRemoteDebug": False},
        "Tags": [],
        "DebugRuleConfigurations": [],
        **changes,
    }


def profiler_rule(rule: str) -> dict[str, Any]:
    """A rule as the SageMaker SDK 2.90 sends one."""
    return {
        "RuleConfigurationName": f"{rule}-1653307017",
        "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest",
        "RuleParameters": {"rule_to_invoke": rule},
    }


def refusal(operation: str, params: dict[str, Any]) -> str:
    with pytest.raises(ServiceError) as caught:
        refuse("sagemaker", operation, params)
    return caught.value.message


def test_what_sdks_send_unasked_is_taken() -> None:
    refuse("sagemaker", "CreateTrainingJob", training())
    refuse("sagemaker", "CreateTrainingJob", training(ProfilerRuleConfigurations=[profiler_rule("ProfilerReport")]))


def test_profiler_rule_that_somebody_chose_is_refused() -> None:
    rules = [profiler_rule("ProfilerReport"), profiler_rule("LowGPUUtilization")]
    message = refusal("CreateTrainingJob", training(ProfilerRuleConfigurations=rules))
    assert 'ProfilerRuleConfigurations[1].RuleParameters {"rule_to_invoke": "LowGPUUtilization"}' in message
    assert "ProfilerRuleConfigurations[0]" not in message


def test_refusal_names_member_value_and_remedy() -> None:
    message = refusal("CreateTrainingJob", training(MlflowConfig={"MlflowResourceArn": "arn"}))
    assert message == (
        'Not supported here: MlflowConfig {"MlflowResourceArn": "arn"} '
        "(MLflow servers are not supported: set MLFLOW_TRACKING_URI in Environment)"
    )


def test_refusal_names_items_of_lists_by_index() -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/a"}}
    channels = [
        {"ChannelName": "a", "DataSource": source},
        {"ChannelName": "b", "DataSource": {"FileSystemDataSource": {"FileSystemId": "fs-1"}}},
    ]
    message = refusal("CreateTrainingJob", training(InputDataConfig=channels))
    assert "InputDataConfig[1].DataSource.FileSystemDataSource {" in message
    assert "InputDataConfig[0]" not in message


def test_everything_refused_is_named_at_once() -> None:
    message = refusal("CreateTrainingJob", training(DebugRuleConfigurations=[{"a": "b"}], MlflowConfig={"a": "b"}))
    assert "DebugRuleConfigurations [" in message
    assert "MlflowConfig {" in message


def test_member_without_which_nothing_runs_is_asked_for() -> None:
    message = refusal("CreateTrainingJob", training(AlgorithmSpecification={"AlgorithmName": "arn"}))
    assert "AlgorithmSpecification.TrainingImage is missing, and is required" in message
    assert "AlgorithmSpecification.AlgorithmName" in message


def test_second_container_of_a_model_is_refused() -> None:
    refuse("sagemaker", "CreateModel", {"ModelName": "m", "Containers": [{"Image": "a"}]})
    message = refusal("CreateModel", {"ModelName": "m", "Containers": [{"Image": "a"}, {"Image": "b"}]})
    assert message.startswith("Not supported here: Containers with 2 items, more than 1")


@pytest.mark.parametrize(
    ("capture", "taken"), [({"EnableCapture": False}, True), ({"EnableCapture": True}, False), ({}, False)]
)
def test_data_capture_must_be_off_and_say_so(capture: dict[str, bool], taken: bool) -> None:
    variants = [{"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large"}]
    config = {"EndpointConfigName": "c", "ProductionVariants": variants, "DataCaptureConfig": capture}
    if taken:
        refuse("sagemaker", "CreateEndpointConfig", config)
    else:
        assert "DataCaptureConfig.EnableCapture" in refusal("CreateEndpointConfig", config)
