"""Numbers that Python refuses, that overflow, or that Python parses too leniently, in requests and in settings."""

import base64
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from microjobs_orchestrator.local import config
from microjobs_orchestrator.local.config import ConfigError
from tests.local.clients import LocalServer
from tests.local.security.wire import Response, Sender

BUCKET = "sagemaker-us-east-1-000000000000"
JSON_TYPE = "application/x-amz-json-1.1"
MODEL_ARN = "arn:aws:sagemaker:us-east-1:000000000000:model/m"
LONG_NUMBER = "9" * 5000
"""A number with more digits than Python converts to an integer."""

NUMBERS = [
    *("", "-", "+5", "-5", " 5", "5 ", "1_0", "0x5", "1e5", "1.5", "nan", "inf", "1e999", "\u0665", "\uff15", "\xb2"),
    *(
        "9" * 18,
        "9" * 19,
        "9" * 20,
        "-" + "9" * 20,
        "9" * 400,
        LONG_NUMBER,
        "-" + LONG_NUMBER,
        "0" * 5000 + "5",
        "five",
        "5,5",
        "5;6",
    ),
]
DATES = [
    *(
        "",
        "x",
        "-1",
        LONG_NUMBER,
        "9999-99-99",
        f"Mon, 01 Jan {LONG_NUMBER} 00:00:00 GMT",
        f"Mon, {LONG_NUMBER} Jan 2020 00:00:00 GMT",
    ),
    *("Mon, 01 Jan 2020 00:00:00 +9999", f"Mon, 01 Jan 2020 00:00:00 +{LONG_NUMBER}", "Mon, 01 Jan 0000 00:00:00 GMT"),
    *(
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "20200101T000000Z",
        "Mon, 01 Jan 2020 99:00:00 GMT",
        ",",
    ),
]


@pytest.fixture(autouse=True)
def no_traceback(process_server: LocalServer) -> Iterator[None]:
    """Write an object. After the test, check that the server's log has no new traceback."""
    (process_server.bucket / "object").write_bytes(bytes(10))
    old_size = process_server.home.server_log.stat().st_size
    yield
    assert b"Traceback" not in process_server.home.server_log.read_bytes()[old_size:]


def make_s3_sender(method: str, target: str, header: str = "", **options: Any) -> Callable[[Sender, str], Response]:
    """Return a function that sends a number to S3, in the place `{}` of the target or in a header."""

    def send(sender: Sender, number: str) -> Response:
        quoted = "".join(f"%{byte:02X}" for byte in number.encode())
        headers = {header: number} if header else {}
        return sender.send_signed("s3", method, f"/{BUCKET}{target.format(quoted)}", headers, b"", **options)

    return send


def send_decoded_length(sender: Sender, number: str) -> Response:
    payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    headers = {"X-Amz-Decoded-Content-Length": number, "Content-Encoding": "aws-chunked"}
    return sender.send_signed("s3", "PUT", f"/{BUCKET}/number", headers, b"5\r\nhello\r\n0\r\n\r\n", payload=payload)


def send_chunk_size(sender: Sender, number: str) -> Response:
    payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    headers = {"X-Amz-Decoded-Content-Length": "5"}
    body = number.encode() + b"\r\nhello\r\n0\r\n\r\n"
    return sender.send_signed("s3", "PUT", f"/{BUCKET}/number", headers, body, payload=payload)


def make_presigned_sender(name: str) -> Callable[[Sender, str], Response]:
    """Return a function that sends a presigned request with a number in a parameter of signature version 4 or 2."""

    def send(sender: Sender, number: str) -> Response:
        quoted = "".join(f"%{byte:02X}" for byte in number.encode())
        if name == "Expires":
            query = f"AWSAccessKeyId={sender.credentials.access_key}&Signature=x&Expires={quoted}"
        else:
            request = AWSRequest("GET", f"http://{sender.host}/", {"Host": sender.host})
            S3SigV4QueryAuth(sender.credentials, "s3", "us-east-1", expires=60).add_auth(request)
            parts = str(request.url).partition("?")[2].split("&")
            query = "&".join(f"{name}={quoted}" if part.startswith(f"{name}=") else part for part in parts)
        return sender.send_raw("GET", f"/{BUCKET}/object?{query}", {})

    return send


def make_member_sender(service: str, target: str, name: str, **other_members: Any) -> Callable[[Sender, str], Response]:
    """Return a function that sends two requests, with the number as a JSON number and as a JSON string.

    The function returns the response with the higher status.
    """

    def send(sender: Sender, number: str) -> Response:
        answers = []
        for text in (number or "null", json.dumps(number)):
            members_text = "".join(f"{json.dumps(key)}: {json.dumps(value)}, " for key, value in other_members.items())
            body = f"{{{members_text}{json.dumps(name)}: {text}}}".encode()
            headers = {"X-Amz-Target": target, "Content-Type": JSON_TYPE}
            answers.append(sender.send_signed(service, "POST", "/", headers, body))
        return max(answers, key=lambda answer: answer.status)

    return send


def send_form(sender: Sender, number: str) -> Response:
    quoted = "".join(f"%{byte:02X}" for byte in number.encode())
    body = f"Action=ListRoles&Version=2010-05-08&MaxItems={quoted}".encode()
    return sender.send_signed("iam", "POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, body)


def send_item_number(sender: Sender, number: str) -> Response:
    quoted = "".join(f"%{byte:02X}" for byte in number.encode())
    body = f"Action=AssumeRole&Version=2011-06-15&RoleArn=x&PolicyArns.member.{quoted}.arn=x".encode()
    return sender.send_signed("sts", "POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, body)


def send_part_number(sender: Sender, number: str) -> Response:
    part = f"<Part><PartNumber>{number}</PartNumber><ETag>x</ETag></Part>"
    document = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>"
    return sender.send_signed("s3", "POST", f"/{BUCKET}/object?uploadId=x", {}, document.encode())


def make_invocation_sender(header: str) -> Callable[[Sender, str], Response]:
    def send(sender: Sender, number: str) -> Response:
        headers = {header: number.encode().decode("latin-1"), "X-Amzn-SageMaker-InputLocation": f"s3://{BUCKET}/object"}
        return sender.send_signed("sagemaker", "POST", "/endpoints/e/async-invocations", headers, b"")

    return send


def make_token_sender(
    service: str, target: str, name: str, text_format: str, **other_members: Any
) -> Callable[[Sender, str], Response]:
    """Return a function that sends page tokens with a number in them, and returns the response with the highest
    status."""

    def send(sender: Sender, number: str) -> Response:
        text = text_format.format(number)
        tokens = [text, base64.urlsafe_b64encode(text.encode()).decode()]
        answers = [make_member_sender(service, target, name, **other_members)(sender, token) for token in tokens]
        return max(answers, key=lambda answer: answer.status)

    return send


NUMBER_SENDERS: Mapping[str, Callable[[Sender, str], Response]] = {
    "Range": make_s3_sender("GET", "/object", "Range"),
    "max-keys": make_s3_sender("GET", "?list-type=2&max-keys={}"),
    "max-uploads": make_s3_sender("GET", "?uploads&max-uploads={}"),
    "max-parts": make_s3_sender("GET", "/object?uploadId=x&max-parts={}"),
    "part-number-marker": make_s3_sender("GET", "/object?uploadId=x&part-number-marker={}"),
    "partNumber of GetObject": make_s3_sender("GET", "/object?partNumber={}"),
    "partNumber of UploadPart": make_s3_sender("PUT", "/object?uploadId=x&partNumber={}"),
    "PartNumber of CompleteMultipartUpload": send_part_number,
    "x-amz-mp-object-size": make_s3_sender("POST", "/object?uploadId=x", "X-Amz-Mp-Object-Size"),
    "x-amz-decoded-content-length": send_decoded_length,
    "size of a chunk": send_chunk_size,
    "Expires of signature version 2": make_presigned_sender("Expires"),
    "X-Amz-Expires": make_presigned_sender("X-Amz-Expires"),
    "X-Amz-Date": make_presigned_sender("X-Amz-Date"),
    "continuation-token": make_s3_sender("GET", "?list-type=2&continuation-token={}"),
    "MaxResults": make_member_sender("sagemaker", "SageMaker.ListModels", "MaxResults"),
    "CreationTimeAfter": make_member_sender("sagemaker", "SageMaker.ListModels", "CreationTimeAfter"),
    "NextToken": make_token_sender("sagemaker", "SageMaker.ListModels", "NextToken", '[{}, "a"]'),
    "NextToken of tags": make_token_sender(
        "sagemaker",
        "SageMaker.ListTags",
        "NextToken",
        '[{}, "a"]',
        ResourceArn=MODEL_ARN,
    ),
    "limit of log groups": make_member_sender("logs", "Logs_20140328.DescribeLogGroups", "limit"),
    "startTime": make_member_sender(
        "logs", "Logs_20140328.FilterLogEvents", "startTime", logGroupName="/aws/sagemaker/TrainingJobs"
    ),
    "nextToken of log groups": make_token_sender("logs", "Logs_20140328.DescribeLogGroups", "nextToken", "{}"),
    "nextToken of log events": make_token_sender(
        "logs",
        "Logs_20140328.GetLogEvents",
        "nextToken",
        "f/{}",
        logGroupName="/aws/sagemaker/TrainingJobs",
        logStreamName="a",
    ),
    "maxResults of repositories": make_member_sender(
        "ecr", "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories", "maxResults"
    ),
    "MaxItems of ListRoles": send_form,
    "number of a list item": send_item_number,
    "InvocationTimeoutSeconds": make_invocation_sender("X-Amzn-SageMaker-InvocationTimeoutSeconds"),
    "RequestTTLSeconds": make_invocation_sender("X-Amzn-SageMaker-RequestTTLSeconds"),
}
"""Functions that send a number, by the place of the number in the request."""


@pytest.mark.parametrize("place", NUMBER_SENDERS)
def test_unusual_number_causes_no_internal_error(sender: Sender, place: str) -> None:
    for number in NUMBERS:
        is_header = "x-amz" in place or "Range" in place
        sent_text = number.encode().decode("latin-1") if is_header else number  # http.client encodes headers as Latin-1
        answer = NUMBER_SENDERS[place](sender, sent_text)
        assert answer.status in (200, 204, 206) or 400 <= answer.status < 500 or answer.status == 501, number[:40]


@pytest.mark.parametrize("header", ["If-Modified-Since", "If-Unmodified-Since", "Date", "X-Amz-Date"])
def test_unusual_date_causes_no_internal_error(sender: Sender, header: str) -> None:
    generator = random.Random(1)  # noqa: S311  the same dates in every run
    random_dates = [
        "".join(generator.choices("MonJan 0123456789,:+-()TZ", k=generator.randrange(40))) for _ in range(100)
    ]
    for date in [*DATES, *random_dates]:
        signed_headers = sender.sign("s3", "GET", f"/{BUCKET}/object", {} if "Date" in header else {header: date})
        answer = sender.send_raw("GET", f"/{BUCKET}/object", {**signed_headers, header: date})
        assert answer.status < 500, (date[:60], answer)


@pytest.mark.parametrize(
    ("range_header", "status", "content_range"),
    [
        (f"bytes=-{LONG_NUMBER}", 206, "bytes 0-9/10"),
        (f"bytes=0-{LONG_NUMBER}", 206, "bytes 0-9/10"),
        (f"bytes=3-{LONG_NUMBER}", 206, "bytes 3-9/10"),
        ("bytes=-" + "0" * 5000 + "4", 206, "bytes 6-9/10"),
        (f"bytes={LONG_NUMBER}-", 416, None),
        (f"bytes={LONG_NUMBER}-{LONG_NUMBER}", 416, None),
        ("bytes=-" + "0" * 5000, 416, None),
        (f"bytes={LONG_NUMBER}-5", 200, None),
        (f"bytes={'9' * 20}-{'8' * 20}", 200, None),
        ("bytes=\u0663-".encode().decode("latin-1"), 200, None),
        ("bytes=5", 200, None),
        ("bytes=-", 200, None),
    ],
)
def test_unusual_range_is_honoured_unsatisfiable_or_ignored(
    sender: Sender, range_header: str, status: int, content_range: str | None
) -> None:
    answer = sender.send_signed("s3", "GET", f"/{BUCKET}/object", {"Range": range_header})
    assert (answer.status, answer.headers.get("content-range")) == (status, content_range)


@pytest.mark.parametrize(
    "range_header", [f"bytes=0-{LONG_NUMBER}", f"bytes={LONG_NUMBER}-{LONG_NUMBER}", f"bytes=-{LONG_NUMBER}"]
)
def test_copy_range_with_huge_numbers_causes_no_internal_error(
    process_server: LocalServer, sender: Sender, range_header: str
) -> None:
    upload = process_server.s3.create_multipart_upload(Bucket=BUCKET, Key="copied")["UploadId"]
    headers = {"X-Amz-Copy-Source": f"{BUCKET}/object", "X-Amz-Copy-Source-Range": range_header}
    answer = sender.send_signed("s3", "PUT", f"/{BUCKET}/copied?partNumber=1&uploadId={upload}", headers)
    assert answer.status < 500


@pytest.mark.parametrize("index", [LONG_NUMBER, f"0:{LONG_NUMBER}", f"-{LONG_NUMBER}:"])
@pytest.mark.parametrize("member", ["InputFilter", "OutputFilter"])
def test_huge_index_of_a_filter_is_refused(sender: Sender, index: str, member: str) -> None:
    job = {
        "TransformJobName": "job",
        "ModelName": "model",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/object"}}
        },
        "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "DataProcessing": {member: f"$[{index}]"},
    }
    headers = {"X-Amz-Target": "SageMaker.CreateTransformJob", "Content-Type": JSON_TYPE}
    assert sender.send_signed("sagemaker", "POST", "/", headers, json.dumps(job).encode()).status == 400


@pytest.mark.parametrize(
    "text",
    [
        f"[local]\nport = {LONG_NUMBER}\n",
        "[local]\nport = 65536\n",
        "[local]\nport = -1\n",
        "[local]\nport = 1e999\n",
        "local = 5\n",
        "[local.images]\nuri = 5\n",
        "[local]\nregion = " + "[" * 5000 + "]" * 5000,
        "\xff",
    ],
)
def test_invalid_settings_are_reported(tmp_path: Path, text: str) -> None:
    path = tmp_path / "microjobs.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=str(path)):
        config.load(path)
