"""Validation of requests by botocore's models, and AWS's error messages."""

from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.parity.table import SAGEMAKER as SAGEMAKER_OPERATIONS
from microjobs_orchestrator.local.protocols import validation
from microjobs_orchestrator.local.protocols.models import load_operation_model, load_service_model
from microjobs_orchestrator.local.protocols.validation import compile_pattern, validate

CREATE_MODEL = load_operation_model("sagemaker", "CreateModel")
CREATE_TRAINING_JOB = load_operation_model("sagemaker", "CreateTrainingJob")
LIST_MODELS = load_operation_model("sagemaker", "ListModels")


def get_error(operation: Any, **members: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        validate(operation, members)
    return caught.value.message


def get_serialization_error(operation: Any, **members: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        validate(operation, members)
    assert caught.value.code == "SerializationException"
    return caught.value.message


def format_error(violation: str) -> str:
    return f"1 validation error detected: {violation}"


def test_valid_request_is_accepted() -> None:
    validate(CREATE_MODEL, {"ModelName": "m", "Tags": [{"Key": "größe", "Value": ""}], "EnableNetworkIsolation": False})


def test_missing_member_must_not_be_null() -> None:
    assert get_error(CREATE_MODEL) == format_error(
        "Value null at 'modelName' failed to satisfy constraint: Member must not be null"
    )


def test_pattern_covers_the_whole_value() -> None:
    message = get_error(CREATE_MODEL, ModelName="a_b")
    assert message == format_error(
        "Value 'a_b' at 'modelName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?"
    )


def test_value_above_maximum_length_gives_one_error() -> None:
    message = get_error(CREATE_MODEL, ModelName="_" * 64)
    assert message.endswith("failed to satisfy constraint: Member must have length less than or equal to 63")
    assert message.startswith("1 ")


def test_error_lists_values_of_the_enumeration() -> None:
    message = get_error(LIST_MODELS, SortOrder="Up")
    assert message.endswith(
        "Value 'Up' at 'sortOrder' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Ascending, Descending]"
    )


@pytest.mark.parametrize(("number", "bound"), [(0, "greater than or equal to 1"), (101, "less than or equal to 100")])
def test_numbers_have_limits(number: int, bound: str) -> None:
    message = get_error(LIST_MODELS, MaxResults=number)
    assert message == format_error(
        f"Value '{number}' at 'maxResults' failed to satisfy constraint: Member must have value {bound}"
    )


def test_path_of_an_item_counts_from_one() -> None:
    message = get_error(CREATE_MODEL, ModelName="m", Tags=[{"Key": "a", "Value": "b"}, {"Key": "a"}])
    assert message == format_error(
        "Value null at 'tags.2.member.value' failed to satisfy constraint: Member must not be null"
    )


def test_keys_and_values_of_maps_are_checked() -> None:
    message = get_error(CREATE_MODEL, ModelName="m", PrimaryContainer={"Environment": {"1x": "y", "OK": "z" * 1025}})
    assert "Value '1x' at 'primaryContainer.environment' failed" in message
    assert "at 'primaryContainer.environment.OK' failed to satisfy constraint: Member must have length less" in message


def test_all_errors_are_counted_and_listed() -> None:
    message = get_error(CREATE_MODEL, ModelName="_", ExecutionRoleArn="x")
    assert message.startswith("2 validation errors detected: Value '_' at 'modelName' failed")
    assert "; Value 'x' at 'executionRoleArn' failed" in message


def test_unknown_member_error_names_the_nearest_member() -> None:
    message = get_error(CREATE_MODEL, ModelName="m", PrimaryContainer={"ModelDataURL": "s3://b/k"})
    assert message == format_error(
        "Value 's3://b/k' at 'primaryContainer.modelDataURL' failed to satisfy constraint: "
        "Member ModelDataURL is unknown (did you mean ModelDataUrl?)"
    )


def test_error_shortens_long_values() -> None:
    assert len(get_error(CREATE_MODEL, ModelName="x" * 10_000)) < 500


def test_union_has_exactly_one_member() -> None:
    operation = load_operation_model("sagemaker", "CreateAutoMLJobV2")
    union: dict[str, Any] = {"TabularJobConfig": {"TargetAttributeName": "y"}, "TextClassificationJobConfig": {}}
    assert "Member must have exactly one member set of: [" in get_error(operation, AutoMLProblemTypeConfig=union)


@pytest.mark.parametrize(
    ("members", "message"),
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
def test_wrong_type_raises_serialization_error(members: dict[str, Any], message: str) -> None:
    required = {
        "TrainingJobName": "j",
        "RoleArn": "arn:aws:iam::000000000000:role/x",
        "OutputDataConfig": {"S3OutputPath": "s3://b/"},
    }
    assert get_serialization_error(CREATE_TRAINING_JOB, **required, **members) == message


@pytest.mark.parametrize("service", ["sagemaker", "sagemaker-runtime", "logs", "ecr", "sts", "iam"])
def test_each_pattern_of_the_models_compiles(service: str) -> None:
    shapes = (load_service_model(service).shape_for(name) for name in load_service_model(service).shape_names)
    patterns = {shape.metadata["pattern"] for shape in shapes if "pattern" in shape.metadata}
    assert all(compile_pattern(pattern) for pattern in patterns)


def test_pattern_matches_characters_above_16_bits() -> None:
    assert compile_pattern(r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*").fullmatch("a🙂")


def test_long_invalid_names_are_refused_quickly() -> None:
    """The test exceeds its time limit if the validation of a name takes quadratic time."""
    for operation in SAGEMAKER_OPERATIONS:
        for name in ("-" * 2_000_000, "a-" * 1_000_000):
            with pytest.raises(ServiceError):
                validate(load_operation_model("sagemaker", operation), {"EndpointName": name, "Nonsense": name})


def test_pattern_timeout_counts_as_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MATCH_TIMEOUT_SECONDS", 0.05)
    assert not validation._matches(r"(a+)+b", "a" * 5000)
    assert validation._matches(r"(a+)+b", "aab")


@pytest.mark.parametrize("number", [1 << 31, -(1 << 31) - 1])
def test_integer_overflow_is_refused(number: int) -> None:
    with pytest.raises(ServiceError, match="is too large for an Integer"):
        validate(load_operation_model("sagemaker", "ListModels"), {"MaxResults": number})


@pytest.mark.parametrize("seconds", [253_402_300_800, -253_402_300_800])
def test_time_outside_the_limits_is_refused(seconds: int) -> None:
    with pytest.raises(ServiceError, match="is too large for a Timestamp"):
        validate(load_operation_model("sagemaker", "ListModels"), {"CreationTimeAfter": seconds})
