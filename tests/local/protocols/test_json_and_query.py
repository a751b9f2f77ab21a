"""Requests and responses in the json and query protocols."""

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from werkzeug import Request
from werkzeug.test import EnvironBuilder

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import aws_json, query
from microjobs_orchestrator.local.protocols.http import REQUEST_ID
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.results import OperationResult, ResultError

LIST_MODELS = load_operation_model("sagemaker", "ListModels")


def make_request(body: bytes) -> Request:
    return Request({**EnvironBuilder("/", method="POST", data=body).get_environ(), REQUEST_ID: "id"})


def get_error_code(operation: Any, body: bytes) -> str:
    protocol = query if operation.service_model.metadata["protocol"] == "query" else aws_json
    with pytest.raises(ServiceError) as caught:
        protocol.parse(operation, make_request(body))
    return caught.value.code


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"1"])
def test_body_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    assert get_error_code(LIST_MODELS, body) == "SerializationException"


def test_null_members_are_dropped() -> None:
    assert aws_json.parse(LIST_MODELS, make_request(b'{"NameContains": null, "MaxResults": 1}')) == {"MaxResults": 1}


def test_empty_body_has_no_members() -> None:
    assert aws_json.parse(LIST_MODELS, make_request(b"")) == {}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_response_has_the_json_version_of_the_request(version: str) -> None:
    content_type = f"application/x-amz-json-{version}"
    builder = EnvironBuilder("/", method="POST", data=b"{}", content_type=content_type)
    request = Request({**builder.get_environ(), REQUEST_ID: "id"})
    result = aws_json.format_result(LIST_MODELS, OperationResult({"Models": []}), request)
    error = aws_json.format_error(ServiceError("ValidationException", "wrong"), request)
    assert (result.content_type, error.content_type) == (content_type, content_type)


def test_result_drops_none_at_each_level() -> None:
    summary = {"ModelName": "m", "ModelArn": None, "CreationTime": 1.5}
    result = aws_json.format_result(
        LIST_MODELS, OperationResult({"Models": [summary], "NextToken": None}), make_request(b"")
    )
    assert json.loads(result.data) == {"Models": [{"ModelName": "m", "CreationTime": 1.5}]}


@pytest.mark.parametrize("result", [{"Model": []}, {"Models": [{"Name": "m"}]}])
def test_result_with_an_unknown_member_raises(result: dict[str, Any]) -> None:
    with pytest.raises(ResultError, match=r"has no (Model|Name)$"):
        aws_json.format_result(LIST_MODELS, OperationResult(result), make_request(b""))


def test_query_form_becomes_typed_members() -> None:
    operation = load_operation_model("sts", "AssumeRole")
    body = (
        b"Action=AssumeRole&Version=2011-06-15&RoleArn=a%2Fb&DurationSeconds=900"
        b"&Tags.member.2.Key=k2&Tags.member.1.Key=k1&Tags.member.1.Value=v+1&Unknown=x"
    )
    assert query.find_operation("sts", make_request(body)) == "AssumeRole"
    assert query.parse(operation, make_request(body)) == {
        "RoleArn": "a/b",
        "DurationSeconds": 900,
        "Tags": [{"Key": "k1", "Value": "v 1"}, {"Key": "k2"}],
        "Unknown": "x",
    }


@pytest.mark.parametrize(
    "form", [b"DurationSeconds=soon", b"Tags=x", b"Tags.member=x", b"Tags.member.x.Key=k", b"A=1&A.b=2"]
)
def test_query_form_with_wrong_types_is_malformed(form: bytes) -> None:
    assert get_error_code(load_operation_model("sts", "AssumeRole"), form) == "MalformedInput"


def test_query_result_contains_lists_times_and_booleans() -> None:
    operation = load_operation_model("iam", "ListRoles")
    role = {"RoleName": "r", "CreateDate": 60}
    response = query.format_result(
        operation, OperationResult({"Roles": [role], "IsTruncated": False}), make_request(b"")
    )
    tree = ElementTree.fromstring(response.data)  # noqa: S314
    texts = [element.text for element in tree.iter() if element.text]
    assert texts == ["r", "1970-01-01T00:01:00Z", "false", "id"]


def test_query_error_escapes_its_message() -> None:
    response = query.format_error(ServiceError("Code", "a < b \x00", 418), make_request(b""))
    assert response.status_code == 418
    assert "a < b \ufffd" in ElementTree.fromstring(response.data).itertext()  # noqa: S314


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_result_drops_items_with_numbers_that_json_lacks(value: float) -> None:
    operation = load_operation_model("sagemaker", "DescribeTrainingJob")
    metrics = [{"MetricName": "loss", "Value": value}, {"MetricName": "accuracy", "Value": 0.5}]
    response = aws_json.format_result(
        operation, OperationResult({"TrainingJobName": "j", "FinalMetricDataList": metrics}), make_request(b"")
    )
    assert response.get_json(force=True)["FinalMetricDataList"] == metrics[1:]


@pytest.mark.parametrize("body", [rb'{"a": "\ud800"}', b'{"a":' * 101 + b"1" + b"}" * 101])
def test_lone_surrogates_and_deep_nesting_are_refused(body: bytes) -> None:
    assert get_error_code(LIST_MODELS, body) == "SerializationException"


@pytest.mark.parametrize(
    ("form", "code"),
    [(b"RoleArn=a&RoleArn=b", "MalformedQueryString"), (b"a." * 101 + b"a=1", "MalformedInput")],
)
def test_form_that_is_ambiguous_or_too_deep_is_refused(form: bytes, code: str) -> None:
    assert get_error_code(load_operation_model("sts", "AssumeRole"), form) == code
