"""REST protocols: the server parses requests that botocore serializes, and botocore parses the server's results."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest, HeadersDict, prepare_request_dict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from werkzeug import Request
from werkzeug.test import Client, EnvironBuilder

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import rest_json, rest_xml
from microjobs_orchestrator.local.protocols.http import REQUEST_ID
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.protocol import get_service_protocol
from microjobs_orchestrator.local.protocols.responses import HttpResponse
from microjobs_orchestrator.local.protocols.results import OperationResult

TIME = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


def make_request(service: str, operation: str, members: Mapping[str, Any]) -> Request:
    """Return the request that botocore sends."""
    model = load_operation_model(service, operation)
    protocol = model.service_model.metadata["protocol"]
    serialized = create_serializer(protocol).serialize_to_request(dict(members), model)
    prepare_request_dict(serialized, "http://localhost:1")
    request = AWSRequest(serialized["method"], serialized["url"], serialized["headers"], serialized["body"]).prepare()
    target, body = request.url.removeprefix("http://localhost:1"), request.body or b""
    assert isinstance(body, bytes | str)
    builder = EnvironBuilder(target, method=request.method, data=body, headers=list(request.headers.items()))
    environ = builder.get_environ()
    return Request({**environ, "REQUEST_URI": target, REQUEST_ID: "an-id"})


def parse_response(service: str, operation: str, formatted_response: HttpResponse) -> dict[str, Any]:
    """Return the result that botocore's clients read."""
    model = load_operation_model(service, operation)
    parser = create_parser(model.service_model.metadata["protocol"])
    response = Client(formatted_response).get("/")
    response_parts = {
        "status_code": response.status_code,
        "headers": HeadersDict(response.headers),
        "body": response.get_data(),
    }
    assert model.output_shape is not None
    parsed: dict[str, Any] = parser.parse(response_parts, model.output_shape)
    return parsed


def make_id(value: object) -> str:
    """Return a part of the id of a test: the service or the operation, but not its members."""
    return value if isinstance(value, str) else ""


RECORD_SET = {"Name": "n", "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "1.2.3.4"}, {"Value": "5.6.7.8"}]}

REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("sagemaker-runtime", "InvokeEndpoint", {"EndpointName": "e", "Body": b"\x00\xff", "ContentType": "text/csv"}),
    ("lambda", "Invoke", {"FunctionName": "f/g h", "Payload": b"{}", "InvocationType": "Event", "Qualifier": "1"}),
    ("lambda", "TagResource", {"Resource": "arn:a", "Tags": {"a": "b"}}),
    ("lambda", "ListFunctions", {"MaxItems": 5, "FunctionVersion": "ALL"}),
    ("pinpoint", "GetApp", {"ApplicationId": "a-b"}),
    ("pinpoint", "CreateApp", {"CreateApplicationRequest": {"Name": "n", "tags": {"a": "b"}}}),
    ("route53", "ChangeResourceRecordSets", {
        "HostedZoneId": "z",
        "ChangeBatch": {"Comment": "c & d", "Changes": [{"Action": "CREATE", "ResourceRecordSet": RECORD_SET}]},
    }),
    ("cloudfront", "CreateInvalidation", {
        "DistributionId": "d",
        "InvalidationBatch": {"Paths": {"Quantity": 1, "Items": ["/*"]}, "CallerReference": "r"},
    }),
    ("s3", "PutObjectTagging", {"Bucket": "b", "Key": "a/ü", "Tagging": {"TagSet": [{"Key": "k", "Value": ""}]}}),
    ("s3", "GetObjectAttributes", {"Bucket": "b", "Key": "k", "ObjectAttributes": ["ETag", "ObjectSize"]}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "operation", "members"), REQUESTS, ids=make_id)
def test_request_of_botocore_is_parsed(service: str, operation: str, members: dict[str, Any]) -> None:
    request, protocol = make_request(service, operation, members), get_service_protocol(service)
    assert protocol.find_operation(service, request) == operation
    assert protocol.parse(load_operation_model(service, operation), request) == members


def test_times_are_seconds_and_metadata_has_its_prefix_removed() -> None:
    members = {"Bucket": "b", "Key": "k", "Metadata": {"a": "1"}, "ObjectLockRetainUntilDate": TIME}
    parsed = rest_xml.parse(
        load_operation_model("s3", "PutObject"), make_request("s3", "PutObject", {**members, "Body": b""})
    )
    assert parsed == members | {"ObjectLockRetainUntilDate": TIME.timestamp()}


RESULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("lambda", "Invoke", {"StatusCode": 200, "FunctionError": "Unhandled", "ExecutedVersion": "1", "Payload": "p"}),
    ("lambda", "GetAccountSettings", {"AccountUsage": {"FunctionCount": 3}}),
    ("pinpoint", "GetApp", {"ApplicationResponse": {"Arn": "a", "Id": "i", "Name": "n"}}),
    ("mediaconvert", "GetQueue", {"Queue": {"Name": "n", "CreatedAt": TIME.timestamp(), "Status": "ACTIVE"}}),
    ("route53", "ListHostedZones", {
        "HostedZones": [{"Id": "z", "Name": "n", "CallerReference": "c", "Config": {"PrivateZone": True}}],
        "IsTruncated": False,
        "MaxItems": "100",
    }),
    ("cloudfront", "GetInvalidation", {"Invalidation": {"Id": "i", "Status": "s", "CreateTime": TIME}}),
    ("s3", "HeadObject", {"LastModified": TIME, "ContentLength": 5, "Metadata": {"a": "b"}, "DeleteMarker": True}),
    ("s3", "ListParts", {"Bucket": "b", "Parts": [{"PartNumber": 1, "Size": 3}, {"PartNumber": 2, "Size": 4}]}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "operation", "members"), RESULTS, ids=make_id)
def test_result_is_parsed_by_botocore(service: str, operation: str, members: dict[str, Any]) -> None:
    request = Request({**EnvironBuilder("/").get_environ(), REQUEST_ID: "an-id"})
    response = get_service_protocol(service).format_result(
        load_operation_model(service, operation), OperationResult(members), request
    )
    result = parse_response(service, operation, response)
    del result["ResponseMetadata"]
    assert _convert_times(result) == _convert_times(members)


def _convert_times(value: Any) -> Any:
    """Convert all times in a value to seconds."""
    if isinstance(value, dict):
        return {name: _convert_times(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_convert_times(item) for item in value]
    return value.timestamp() if isinstance(value, datetime) else value


@pytest.mark.parametrize("module", [rest_json, rest_xml])
def test_error_is_parsed_by_botocore(module: ModuleType) -> None:
    request = Request({**EnvironBuilder("/a b").get_environ(), REQUEST_ID: "an-id"})
    response = module.format_error(ServiceError("NoSuchThing", "no <thing>", 404), request)
    service, operation = ("s3", "GetObject") if module is rest_xml else ("lambda", "Invoke")
    error = parse_response(service, operation, response)["Error"]
    assert (error["Code"], error["Message"], response.status_code) == ("NoSuchThing", "no <thing>", 404)


def test_json_error_with_members_has_only_these_members() -> None:
    error = ServiceError("ModelError", "m", 424, {"Message": "m", "OriginalStatusCode": 500})
    response = rest_json.format_error(error, Request(EnvironBuilder("/").get_environ()))
    assert json.loads(response.data) == {"Message": "m", "OriginalStatusCode": 500}
    assert response.headers["x-amzn-ErrorType"] == "ModelError"
