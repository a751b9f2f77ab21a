"""Requests against botocore's model, and AWS's words for what is wrong with them."""

from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.gateway import validation
from microjobs_orchestrator.local.gateway.validation import compile_pattern, validate
from microjobs_orchestrator.local.parity.table import SAGEMAKER
from microjobs_orchestrator.local.protocols.models import operation_model, service_model

MODEL = operation_model("sagemaker", "CreateModel")
TRAINING = operation_model("sagemaker", "CreateTrainingJob")
LIST = operation_model("sagemaker", "ListModels")


def wrong(operation: Any, **params: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        validate(operation, params)
    return caught.value.message


def not_read(operation: Any, **params: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        validate(operation, params)
    assert caught.value.code == "SerializationException"
    return caught.value.message


def one(rest: str) -> str:
    return f"1 validation error detected: {rest}"


def test_valid_request_is_taken() -> None:
    validate(MODEL, {"ModelName": "m", "Tags": [{"Key": "größe", "Value": ""}], "EnableNetworkIsolation": False})


def test_missing_member_must_not_be_null() -> None:
    assert wrong(MODEL) == one("Value null at 'modelName' failed to satisfy constraint: Member must not be null")


def test_pattern_covers_the_whole_value() -> None:
    message = wrong(MODEL, ModelName="a_b")
    assert message == one(
        "Value 'a_b' at 'modelName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?"
    )


def test_too_long_is_said_once() -> None:
    message = wrong(MODEL, ModelName="_" * 64)
    assert message.endswith("failed to satisfy constraint: Member must have length less than or equal to 63")
    assert message.startswith("1 ")


def test_enumeration_is_listed() -> None:
    message = wrong(LIST, SortOrder="Up")
    assert message.endswith(
        "Value 'Up' at 'sortOrder' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Ascending, Descending]"
    )


@pytest.mark.parametrize(("number", "bound"), [(0, "greater than or equal to 1"), (101, "less than or equal to 100")])
def test_numbers_are_bounded(number: int, bound: str) -> None:
    message = wrong(LIST, MaxResults=number)
    assert message == one(
        f"Value '{number}' at 'maxResults' failed to satisfy constraint: Member must have value {bound}"
    )


def test_items_are_counted_from_one() -> None:
    message = wrong(MODEL, ModelName="m", Tags=[{"Key": "a", "Value": "b"}, {"Key": "a"}])
    assert message == one("Value null at 'tags.2.member.value' failed to satisfy constraint: Member must not be null")


def test_maps_are_checked_by_key() -> None:
    message = wrong(MODEL, ModelName="m", PrimaryContainer={"Environment": {"1x": "y", "OK": "z" * 1025}})
    assert "Value '1x' at 'primaryContainer.environment' failed" in message
    assert "at 'primaryContainer.environment.OK' failed to satisfy constraint: Member must have length less" in message


def test_all_errors_are_counted_and_listed() -> None:
    message = wrong(MODEL, ModelName="_", ExecutionRoleArn="x")
    assert message.startswith("2 validation errors detected: Value '_' at 'modelName' failed")
    assert "; Value 'x' at 'executionRoleArn' failed" in message


def test_unknown_member_is_refused_with_nearest() -> None:
    message = wrong(MODEL, ModelName="m", PrimaryContainer={"ModelDataURL": "s3://b/k"})
    assert message == one(
        "Value 's3://b/k' at 'primaryContainer.modelDataURL' failed to satisfy constraint: "
        "Member ModelDataURL is not known (did you mean ModelDataUrl?)"
    )


def test_long_value_is_cut_in_the_message() -> None:
    assert len(wrong(MODEL, ModelName="x" * 10_000)) < 500


def test_union_has_exactly_one_member() -> None:
    operation = operation_model("sagemaker", "CreateAutoMLJobV2")
    kinds: dict[str, Any] = {"TabularJobConfig": {"TargetAttributeName": "y"}, "TextClassificationJobConfig": {}}
    assert "Member must have exactly one member set of: [" in wrong(operation, AutoMLProblemTypeConfig=kinds)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"HyperParameters": {"epochs": 3}},
            "NUMBER_VALUE can not be converted to a String at 'hyperParameters.epochs'",
        ),
        ({"HyperParameters": []}, "START_ARRAY can not be converted to a map at 'hyperParameters'"),
        (
            {"EnableNetworkIsolation": "true"},
            "STRING_VALUE can not be converted to a Boolean at 'enableNetworkIsolation'",
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": True}},
            "TRUE_VALUE can not be converted to an Integer at 'stoppingCondition.maxRuntimeInSeconds'",
        ),
        ({"Tags": [None]}, "NULL_VALUE can not be converted to a structure at 'tags.1.member'"),
    ],
)
def test_wrong_type_is_not_read(params: dict[str, Any], message: str) -> None:
    name = {
        "TrainingJobName": "j",
        "RoleArn": "arn:aws:iam::000000000000:role/x",
        "OutputDataConfig": {"S3OutputPath": "s3://b/"},
    }
    assert not_read(TRAINING, **name, **params) == message


@pytest.mark.parametrize("service", ["sagemaker", "sagemaker-runtime", "logs", "ecr", "sts", "iam"])
def test_every_pattern_compiles(service: str) -> None:
    shapes = (service_model(service).shape_for(name) for name in service_model(service).shape_names)
    patterns = {shape.metadata["pattern"] for shape in shapes if "pattern" in shape.metadata}
    assert all(compile_pattern(pattern) for pattern in patterns)


def test_characters_beyond_javas_are_matched() -> None:
    assert compile_pattern(r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*").fullmatch("a🙂")


def test_no_name_takes_long_to_refuse() -> None:
    for operation in SAGEMAKER:
        for name in ("-" * 2_000_000, "a-" * 1_000_000):
            with pytest.raises(ServiceError):
                validate(operation_model("sagemaker", operation), {"EndpointName": name, "Nonsense": name})


def test_pattern_that_takes_too_long_does_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MATCH_TIMEOUT", 0.05)
    assert not validation._matches(r"(a+)+b", "a" * 5000)
    assert validation._matches(r"(a+)+b", "aab")


@pytest.mark.parametrize("number", [1 << 31, -(1 << 31) - 1])
def test_number_beyond_its_bits_is_refused(number: int) -> None:
    with pytest.raises(ServiceError, match="is too large for an Integer"):
        validate(operation_model("sagemaker", "ListModels"), {"MaxResults": number})


@pytest.mark.parametrize("seconds", [253_402_300_800, -253_402_300_801])
def test_time_beyond_the_year_9999_is_refused(seconds: int) -> None:
    with pytest.raises(ServiceError, match="is too large for a Timestamp"):
        validate(operation_model("sagemaker", "ListModels"), {"CreationTimeAfter": seconds})
