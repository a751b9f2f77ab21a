"""The table of parity rows: compared with botocore's models, and applied to requests."""

from collections.abc import Iterator
from itertools import chain
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.model import ListShape, Shape, StructureShape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.parity.page import render
from microjobs_orchestrator.local.parity.rows import Honoured, Members, Rows
from microjobs_orchestrator.local.parity.table import TABLE, refuse_unsupported_members
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.s3 import service as s3
from microjobs_orchestrator.local.server import create_services
from tests.conftest import REPOSITORY


def get_input_shape(service: str, operation: str) -> StructureShape:
    return load_operation_model(service, operation).input_shape or StructureShape("Empty", {"members": {}})


def find_structure(shape: Shape) -> StructureShape | None:
    """Return the structure of a member, or of a list's items."""
    inner = shape.member if isinstance(shape, ListShape) else shape
    return inner if isinstance(inner, StructureShape) else None


def list_differences(rows: Rows, shape: StructureShape, path: str) -> Iterator[str]:
    yield from (f"{path}.{name} has no row" for name in shape.members.keys() - rows.keys())
    yield from (f"{path}.{name} is not in the model" for name in rows.keys() - shape.members.keys())
    for name in rows.keys() & shape.members.keys():
        row, inner = rows[name], find_structure(shape.members[name])
        if isinstance(row, Members) and inner:
            yield from list_differences(row.rows, inner, f"{path}.{name}")
        elif isinstance(row, Members):
            yield f"{path}.{name} is no structure, but has rows for members"
        # A structure that contains structures of its own type would need an infinite number of rows, so one row stands
        # for the inner structures.
        elif isinstance(row, Honoured) and inner and inner.name != shape.name:
            yield f"{path}.{name} is honoured, so each of its members needs a row"


@pytest.mark.parametrize("service", TABLE)
def test_each_member_of_the_model_has_a_row(service: str) -> None:
    differences = (
        list_differences(rows, get_input_shape(service, operation), operation)
        for operation, rows in TABLE[service].items()
    )
    assert [*chain.from_iterable(differences)] == []


def test_services_have_the_operations_of_the_table() -> None:
    context = Mock()
    context.settings.region = "us-east-1"
    supported = {service: set(handlers) for service, handlers in create_services(context, Mock()).items()}
    supported["s3"] = set(s3.OPERATIONS)
    assert supported == {service: set(operations) for service, operations in TABLE.items()}


def test_member_without_a_row_is_refused() -> None:
    with pytest.raises(ServiceError, match=r'^Not supported here: fresh "x" \(unknown to this version\)$'):
        refuse_unsupported_members("logs", "GetLogEvents", {"logGroupName": "g", "logStreamName": "s", "fresh": "x"})


def list_honoured_values(rows: Rows, shape: StructureShape, path: str) -> Iterator[tuple[str, object, Shape]]:
    for name, row in rows.items():
        member = shape.members[name]
        if isinstance(row, Members) and (inner := find_structure(member)):
            yield from list_honoured_values(row.rows, inner, f"{path}.{name}")
        elif isinstance(row, Honoured):
            yield from ((f"{path}.{name}", value, member) for value in row.values)


@pytest.mark.parametrize("service", TABLE)
def test_honoured_values_are_valid_in_the_model(service: str) -> None:
    values = chain.from_iterable(
        list_honoured_values(rows, get_input_shape(service, operation), operation)
        for operation, rows in TABLE[service].items()
    )
    assert [path for path, value, member in values if value not in member.metadata.get("enum", [value])] == []


def test_parity_page_is_up_to_date() -> None:
    assert (REPOSITORY / "docs" / "maintaining" / "parity.md").read_text() == render(TABLE), "run: make parity"


# --- requests ---


def make_training_request(**changes: Any) -> dict[str, Any]:
    """Return a CreateTrainingJob request of the SageMaker SDK."""
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


def make_profiler_rule(rule: str) -> dict[str, Any]:
    """Return a rule of the SageMaker SDK 2.90."""
    return {
        "RuleConfigurationName": f"{rule}-1653307017",
        "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest",
        "RuleParameters": {"rule_to_invoke": rule},
    }


def get_refusal(operation: str, members: dict[str, Any]) -> str:
    with pytest.raises(ServiceError) as caught:
        refuse_unsupported_members("sagemaker", operation, members)
    return caught.value.message


def test_default_members_of_the_sdk_are_accepted() -> None:
    refuse_unsupported_members("sagemaker", "CreateTrainingJob", make_training_request())
    refuse_unsupported_members(
        "sagemaker",
        "CreateTrainingJob",
        make_training_request(ProfilerRuleConfigurations=[make_profiler_rule("ProfilerReport")]),
    )


def test_added_profiler_rule_is_refused() -> None:
    rules = [make_profiler_rule("ProfilerReport"), make_profiler_rule("LowGPUUtilization")]
    message = get_refusal("CreateTrainingJob", make_training_request(ProfilerRuleConfigurations=rules))
    assert 'ProfilerRuleConfigurations[1].RuleParameters {"rule_to_invoke": "LowGPUUtilization"}' in message
    assert "ProfilerRuleConfigurations[0]" not in message


def test_refusal_names_member_value_and_remedy() -> None:
    message = get_refusal("CreateTrainingJob", make_training_request(RemoteDebugConfig={"EnableRemoteDebug": True}))
    assert message == (
        'Not supported here: RemoteDebugConfig {"EnableRemoteDebug": true} '
        "(use the engine: docker exec into the job's container)"
    )


def test_refusal_names_items_of_lists_by_index() -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/a"}}
    channels = [
        {"ChannelName": "a", "DataSource": source},
        {"ChannelName": "b", "DataSource": {"FileSystemDataSource": {"FileSystemId": "fs-1"}}},
    ]
    message = get_refusal("CreateTrainingJob", make_training_request(InputDataConfig=channels))
    assert "InputDataConfig[1].DataSource.FileSystemDataSource {" in message
    assert "InputDataConfig[0]" not in message


def test_refusal_names_all_unsupported_members() -> None:
    message = get_refusal(
        "CreateTrainingJob", make_training_request(DebugRuleConfigurations=[{"a": "b"}], ServerlessJobConfig={"a": "b"})
    )
    assert "DebugRuleConfigurations [" in message
    assert "ServerlessJobConfig {" in message


def test_missing_required_member_is_refused() -> None:
    message = get_refusal("CreateTrainingJob", make_training_request(AlgorithmSpecification={"AlgorithmName": "arn"}))
    assert "AlgorithmSpecification.TrainingImage is missing: set it" in message
    assert "AlgorithmSpecification.AlgorithmName" in message


def test_refusal_of_a_missing_member_names_only_the_member() -> None:
    resources = {"InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
    message = get_refusal("CreateTrainingJob", make_training_request(ResourceConfig=resources))
    assert message == "Not supported here: ResourceConfig.InstanceCount is missing: set it"
