"""Regression tests for invalid requests that the fuzz test has found."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.clients import LocalServer
from tests.local.security.wire import Sender

JSON = "application/x-amz-json-1.1"
BUCKET = "sagemaker-us-east-1-000000000000"
DOCUMENT_WITH_ENTITY = "<!DOCTYPE a [<!ENTITY k 'key'>]><Delete><Object><Key>&k;</Key></Object></Delete>"
TRAINING_LOGS = "/aws/sagemaker/TrainingJobs"


@pytest.fixture(autouse=True)
def no_traceback(process_server: LocalServer) -> Iterator[None]:
    """Write a log stream of a job. After the test, check that the server's own log has no traceback."""
    stream = process_server.home.logs / "aws" / "sagemaker" / "TrainingJobs" / "job" / "algo-1"
    stream.parent.mkdir(parents=True, exist_ok=True)
    stream.write_text("1700000000000 first\n1700000000001 second\n")
    yield
    assert "Traceback" not in process_server.home.server_log.read_text()


def get_error_code(
    sender: Sender, operation: str, body: bytes, target_prefix: str = "SageMaker", service: str = "sagemaker"
) -> str:
    answer = sender.send_signed(
        service, "POST", "/", {"Content-Type": JSON, "X-Amz-Target": f"{target_prefix}.{operation}"}, body
    )
    assert answer.status == 400, answer
    return str(json.loads(answer.body)["__type"])


@pytest.mark.parametrize(
    "body",
    [
        b'{"NameContains": "\\ud800"}',
        b'{"CreationTimeAfter": 1e999}',
        b'{"CreationTimeAfter": 1000000000000000}',
        b'{"CreationTimeAfter": ' + b"9" * 400 + b"}",
        b'{"MaxResults": 4294967296}',
        b'{"Unknown": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"Unknown": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b"\xff\xfe{\0}\0",
    ],
)
def test_invalid_json_and_impossible_values_are_refused(sender: Sender, body: bytes) -> None:
    assert get_error_code(sender, "ListModels", body) == "SerializationException"


def test_infinite_number_is_refused(sender: Sender) -> None:
    variant = b'{"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialVariantWeight": 1e999}'
    body = b'{"EndpointConfigName": "c", "ProductionVariants": [' + variant + b"]}"
    assert get_error_code(sender, "CreateEndpointConfig", body) == "SerializationException"


def encode_token(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize("value", [1, None, [], [1], [[], "a"], [1, 2], [{}, "a"], [float("inf"), "a"], [None, "a"]])
def test_forged_page_token_of_a_list_is_refused(sender: Sender, value: Any) -> None:
    assert (
        get_error_code(sender, "ListModels", json.dumps({"NextToken": encode_token(value)}).encode())
        == "ValidationException"
    )


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("DescribeLogGroups", {"nextToken": "x"}),
        ("DescribeLogStreams", {"logGroupName": TRAINING_LOGS, "nextToken": "\xb2"}),
        ("GetLogEvents", {"logGroupName": TRAINING_LOGS, "logStreamName": "job/algo-1", "nextToken": "f/1"}),
        ("GetLogEvents", {"logGroupName": TRAINING_LOGS, "logStreamName": "job/algo-1", "nextToken": "b/" + "9" * 18}),
        ("FilterLogEvents", {"logGroupName": TRAINING_LOGS, "nextToken": encode_token({"job/algo-1": 3})}),
        ("FilterLogEvents", {"logGroupName": TRAINING_LOGS, "nextToken": encode_token({"job/algo-1": None})}),
    ],
)
def test_forged_page_token_of_a_log_is_refused(sender: Sender, operation: str, members: Any) -> None:
    body = json.dumps(members).encode()
    assert get_error_code(sender, operation, body, "Logs_20140328", "logs") == "InvalidParameterException"


@pytest.mark.parametrize(
    "name", ["{file}", "job/../../../../../{file}", "job//{file}", "./job/algo-1", "job/" + "x" * 300]
)
def test_log_stream_name_cannot_reach_other_files(process_server: LocalServer, sender: Sender, name: str) -> None:
    file = process_server.home.root.parent / "secret"
    file.write_text("1 secret\n")
    members = {"logGroupName": TRAINING_LOGS, "logStreamName": name.format(file=file), "startFromHead": True}
    assert get_error_code(sender, "GetLogEvents", json.dumps(members).encode(), "Logs_20140328", "logs") == (
        "ResourceNotFoundException"
    )


@pytest.mark.parametrize("prefix", ["//", "/etc/", "../", "job/../../", "/" * 200, "job//"])
def test_log_stream_prefix_cannot_reach_other_folders(process_server: LocalServer, prefix: str) -> None:
    description = process_server.logs.describe_log_streams(logGroupName=TRAINING_LOGS, logStreamNamePrefix=prefix)
    assert description["logStreams"] == []


@pytest.mark.parametrize("group", ["/", "//", "..", "/aws/../..", "/aws//sagemaker"])
def test_log_group_name_cannot_reach_other_folders(process_server: LocalServer, group: str) -> None:
    with pytest.raises(ClientError, match=r"does not exist|failed to satisfy"):
        process_server.logs.describe_log_streams(logGroupName=group)


def test_deep_form_is_refused(sender: Sender) -> None:
    body = b"Action=GetRole&" + b".".join([b"a"] * 3000) + b"=x"
    answer = sender.send_signed("iam", "POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, body)
    assert (answer.status, b"MalformedInput" in answer.body) == (400, True)


@pytest.mark.parametrize("name", ["\uff41dmin", "r\xf4le", "role\u200b", "\u0661"])
def test_name_with_non_ascii_characters_is_refused(process_server: LocalServer, name: str) -> None:
    with pytest.raises(ClientError, match="regular expression pattern"):
        process_server.client("iam").get_role(RoleName=name)


@pytest.mark.parametrize("date", ["Mon, 01 Jan 0999 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_date_out_of_range_is_refused(sender: Sender, date: str) -> None:
    headers = sender.sign("s3", "GET", "/")
    del headers["X-Amz-Date"]
    answer = sender.send_raw("GET", "/", {**headers, "Date": date})
    assert (answer.status, b"<Error><Code>" in answer.body) == (403, True)


@pytest.mark.parametrize(
    ("method", "target", "headers", "body"),
    [
        ("GET", "key?response-content-type=a%0d%0aX-Injected:%20b", {}, b""),
        ("GET", "key?response-content-disposition=%E6%BC%A2", {}, b""),
        ("GET", "?max-keys=1_0", {}, b""),
        ("GET", "?max-keys=99999999999999999999", {}, b""),
        ("GET", "key?uploadId=x&part-number-marker=9999999999999999999", {}, b""),
        ("GET", "key", {"If-Modified-Since": "Mon, 01 Jan 99999 00:00:00 GMT"}, b""),
        ("PUT", "key", {"Content-MD5": "\xe9"}, b"x"),
        ("POST", "?delete", {}, DOCUMENT_WITH_ENTITY.encode()),
        ("POST", "?delete", {}, DOCUMENT_WITH_ENTITY.encode("utf-16")),
    ],
)
def test_invalid_s3_request_is_refused(
    process_server: LocalServer, sender: Sender, method: str, target: str, headers: dict[str, str], body: bytes
) -> None:
    (process_server.bucket / "key").write_text("content")
    answer = sender.send_signed("s3", method, f"/{BUCKET}/{target}", headers, body)
    assert (answer.status, b"<Error><Code>" in answer.body, "x-injected" in answer.headers) == (400, True, False)


def test_prefix_that_is_too_long_for_a_folder_name_lists_nothing(process_server: LocalServer) -> None:
    assert process_server.s3.list_objects_v2(Bucket=BUCKET, Prefix="a" * 300 + "/")["KeyCount"] == 0


@pytest.mark.parametrize(
    ("invalid_head", "code"),
    [
        (b"GET //[ HTTP/1.1", "BadRequest"),
        (b"GET http://[/ HTTP/1.1", "BadRequest"),
        (b"GET http://other.example/ HTTP/1.1", "BadRequest"),
        (b"get / HTTP/1.1", "BadRequest"),
        (b"GET /", "BadRequest"),
        (b"GET / HTTP/9.9", "HttpVersionNotSupported"),
        (b"CONNECT other.example:443 HTTP/1.1", "MethodNotAllowed"),
        (b"GET /\xff\xfe HTTP/1.1", "BadRequest"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1", "Request-UriTooLong"),
        (b"GET / HTTP/1.1\r\nno header", "BadRequest"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000, "RequestEntityTooLarge"),
        (b"PUT / HTTP/1.1\r\nContent-Length: much", "BadRequest"),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip", "Unimplemented"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "BadRequest"),
    ],
)
def test_invalid_http_gets_an_error_response(sender: Sender, invalid_head: bytes, code: str) -> None:
    name, _, port = sender.host.partition(":")
    with closing(socket.create_connection((name, int(port)), timeout=10)) as connection:
        connection.sendall(invalid_head + b"\r\nHost: localhost\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while block := connection.recv(1 << 16):
            answer += block
    assert f"<Code>{code}</Code>".encode() in answer
