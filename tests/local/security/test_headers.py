"""Requests with ambiguous headers: names that WSGI does not distinguish, repeated headers, and malformed lines."""

import json
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from tests.local.clients import LocalServer
from tests.local.security.wire import Sender

BUCKET = "sagemaker-us-east-1-000000000000"
TARGET_HEADER = "X-Amz-Target"
JSON = "application/x-amz-json-1.1"
Fields = Sequence[tuple[str, str]]


def make_signed_fields(sender: Sender, target: str = "SageMaker.ListModels") -> list[tuple[str, str]]:
    """Return the header fields of a signed request to SageMaker with the body `{}`."""
    headers = {TARGET_HEADER: target, "Content-Type": JSON}
    fields = sender.sign("sagemaker", "POST", "/", headers, b"{}")
    return [*fields.items(), ("Content-Length", "2")]


def send(
    sender: Sender, fields: Fields, request_line: str = "POST / HTTP/1.1", body: bytes = b"{}"
) -> tuple[int, bytes]:
    """Send only these fields. Return the status and the body of the response. Check that the connection closes."""
    text = "".join(f"{line}\r\n" for line in (request_line, *(f"{name}: {value}" for name, value in fields), ""))
    return send_bytes(sender, text.encode("latin-1") + body)


def send_bytes(sender: Sender, request: bytes) -> tuple[int, bytes]:
    name, _, port = sender.host.partition(":")
    with closing(socket.create_connection((name, int(port)), timeout=20)) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while block := connection.recv(1 << 16):
            answer += block
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


@pytest.mark.parametrize("name", ["X_Amz_Target", "X-Amz_Target", "x_amz-target", "X_AMZ_TARGET"])
@pytest.mark.parametrize("is_first", [True, False])
def test_header_with_underscores_does_not_replace_a_signed_header(
    process_server: LocalServer, sender: Sender, name: str, is_first: bool
) -> None:
    process_server.sagemaker.create_model(ModelName="kept", PrimaryContainer={"Image": "i"})
    try:
        fields = sender.sign(
            "sagemaker", "POST", "/", {TARGET_HEADER: "SageMaker.DescribeModel"}, b'{"ModelName": "kept"}'
        )
        added_field, signed_fields = (name, "SageMaker.DeleteModel"), [*fields.items(), ("Content-Length", "21")]
        status, body = send(
            sender,
            [added_field, *signed_fields] if is_first else [*signed_fields, added_field],
            body=b'{"ModelName": "kept"}',
        )
        assert (status, json.loads(body)["ModelName"]) == (200, "kept")
    finally:
        process_server.sagemaker.delete_model(ModelName="kept")  # this call fails if the model does not exist


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content_Length", "1"),
        ("Content_Type", "application/x-www-form-urlencoded"),
        ("Host_", "evil.example"),
        ("X_Amz_Date", "19990101T000000Z"),
        ("X_Amz_Security_Token", "token"),
        ("X_Amz_Content_Sha256", "0" * 64),
        ("Transfer_Encoding", "chunked"),
        ("Authorization_", "none"),
        ("Sec_Fetch_Site", "cross-site"),
    ],
)
def test_headers_with_underscores_are_ignored(sender: Sender, name: str, value: str) -> None:
    status, body = send(sender, [*make_signed_fields(sender), (name, value)])
    assert (status, json.loads(body)) == (200, {"Models": []})


def test_metadata_may_have_underscores(process_server: LocalServer) -> None:
    process_server.s3.put_object(Bucket=BUCKET, Key="described", Metadata={"a_b": "1", "a-b": "2"})
    assert process_server.s3.head_object(Bucket=BUCKET, Key="described")["Metadata"] == {"a_b": "1", "a-b": "2"}


SINGLE_VALUE_HEADERS = [
    *("Host", "Authorization", "X-Amz-Target", "X-Amz-Date", "Content-Length", "Content-Type", "X-Amz-Security-Token"),
    *("X-Amz-Content-Sha256", "Transfer-Encoding", "Date", "Range", "If-Modified-Since", "Content-MD5", "Expect"),
    *("X-Amz-Copy-Source", "X-Amzn-SageMaker-Target-Variant", "X-Amz-Decoded-Content-Length", "Content-Encoding"),
    *("Origin", "Sec-Fetch-Site", "User-Agent", "X-Amz-Checksum-Crc32", "X-Amz-Trailer"),
]


@pytest.mark.parametrize("name", SINGLE_VALUE_HEADERS)
@pytest.mark.parametrize("change_case", [str.lower, str.upper, str.title])
def test_repeated_header_with_a_single_value_is_refused(
    sender: Sender, name: str, change_case: Callable[[str], str]
) -> None:
    signed_values = {field.lower(): value for field, value in make_signed_fields(sender)}
    fields = [*make_signed_fields(sender), *([] if name.lower() in signed_values else [(name, "x")])]
    status, body = send(sender, [*fields, (change_case(name), signed_values.get(name.lower(), "x"))])
    assert (status, b"is repeated; send it once" in body) == (400, True), body


def test_list_headers_may_be_repeated(process_server: LocalServer, sender: Sender) -> None:
    (process_server.bucket / "listed").write_text("content")
    joined_header = {"X-Amz-Object-Attributes": "ETag,ObjectSize"}  # the client signs the joined value
    fields = dict(sender.sign("s3", "GET", f"/{BUCKET}/listed?attributes", joined_header))
    del fields["X-Amz-Object-Attributes"]
    repeated_fields = [("X-Amz-Object-Attributes", "ETag"), ("Accept", "a"), ("x-amz-object-attributes", "ObjectSize")]
    request_line = f"GET /{BUCKET}/listed?attributes HTTP/1.1"
    status, body = send(sender, [*fields.items(), *repeated_fields, ("Accept", "b")], request_line, b"")
    assert (status, b"<ObjectSize>7</ObjectSize>" in body) == (200, True)


@pytest.mark.parametrize(
    "line",
    [
        b"X-Folded: a\r\n b",
        b"X-Folded: a\r\n\tb",
        b" X-Led: a",
        b"X-Spaced : a",
        b"X-Tabbed\t: a",
        b"X Amz-Target: SageMaker.DeleteModel",
        b": no name",
        b"no colon",
        "X-\xc4mz: a".encode(),
        b"X-Amz\x00-Target: a",
        b"X-Nul: a\x00b",
        b"X-Return: a\rX-Amz-Target: b",
        b"X-Feed: a\nX-Amz-Target: b",
        b"X-Escape: \x1b[2J",
        b"(comment): a",
    ],
)
def test_malformed_header_line_is_refused(sender: Sender, line: bytes) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in make_signed_fields(sender)).encode()
    for lines in (head + line + b"\r\n", line + b"\r\n" + head):
        status, body = send_bytes(sender, b"POST / HTTP/1.1\r\n" + lines + b"\r\n{}")
        assert (status, b"<Code>BadRequest</Code>" in body) == (400, True), body


@pytest.mark.parametrize(
    ("request_line", "fields"),
    [
        ("POST / HTTP/1.1", [("Content-Length", "+2")]),
        ("POST / HTTP/1.1", [("Content-Length", "-2")]),
        ("POST / HTTP/1.1", [("Content-Length", "0x2")]),
        ("POST / HTTP/1.1", [("Content-Length", "1_0")]),
        ("POST / HTTP/1.1", [("Content-Length", "2, 2")]),
        ("POST / HTTP/1.1", [("Content-Length", "")]),
        ("POST / HTTP/1.1", [("Content-Length", "\xb2")]),
        ("POST / HTTP/1.1", [("Content-Length", "9" * 5000)]),
        ("POST / HTTP/1.1", [("Content-Length", "2"), ("Transfer-Encoding", "chunked")]),
        ("POST / HTTP/1.0", [("Transfer-Encoding", "chunked")]),
        ("POST / HTTP/1.+1", [("Content-Length", "2")]),
        ("POST /\t HTTP/1.1", [("Content-Length", "2")]),
    ],
)
def test_ambiguous_request_is_refused(sender: Sender, request_line: str, fields: Fields) -> None:
    status, _ = send(sender, [("Host", "localhost"), *fields], request_line)
    assert status == 400


def test_request_without_a_host_is_refused(sender: Sender) -> None:
    assert send(sender, [("Content-Length", "2")])[0] == 400


@pytest.mark.parametrize(
    "name", ["X-Amz-Added", "x-amz-meta-a_b", "X-Amzn-SageMaker-Target-Variant", "X-Amzn-SageMaker-Custom-Attributes"]
)
def test_headers_of_amazon_must_be_signed(sender: Sender, name: str) -> None:
    status, body = send(sender, [*make_signed_fields(sender), (name, "x")])
    assert (status, b"these headers must be signed" in body) == (403, True)


def test_trace_header_of_a_proxy_needs_no_signature(sender: Sender) -> None:
    assert send(sender, [*make_signed_fields(sender), ("X-Amzn-Trace-Id", "Root=1")])[0] == 200


@pytest.mark.parametrize(
    "parameter",
    ["X-Amz-Signature=0", "X-Amz-Date=19990101T000000Z", "X-Amz-Expires=1", "X-Amz-Credential=x", "x-id=a&x-id=b"],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_repeated_parameter_of_a_presigned_address_is_refused(sender: Sender, parameter: str, is_first: bool) -> None:
    request = AWSRequest("GET", f"http://{sender.host}/{BUCKET}/key", {"Host": sender.host})
    S3SigV4QueryAuth(sender.credentials, "s3", "us-east-1", expires=60).add_auth(request)
    query = urlsplit(str(request.url)).query
    parameters = f"{parameter}&{query}" if is_first else f"{query}&{parameter}"
    status, _ = send(sender, [("Host", sender.host)], f"GET /{BUCKET}/key?{parameters} HTTP/1.1", b"")
    assert status in (400, 403)


def test_request_with_two_signatures_is_refused(sender: Sender) -> None:
    target = f"/{BUCKET}?X-Amz-Signature=0"
    fields = sender.sign("s3", "GET", target)
    status, body = send(sender, list(fields.items()), f"GET {target} HTTP/1.1", b"")
    assert (status, b"send only one" in body) == (403, True)


def test_repeated_parameter_is_refused(sender: Sender) -> None:
    target = f"/{BUCKET}?list-type=2&prefix=a&prefix=b"
    fields = sender.sign("s3", "GET", target)
    status, body = send(sender, list(fields.items()), f"GET {target} HTTP/1.1", b"")
    assert (status, b"is repeated" in body) == (400, True)
    form = b"Action=GetRole&RoleName=a&RoleName=b&Version=2010-05-08"
    fields = sender.sign("iam", "POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, form)
    status, body = send(sender, [*fields.items(), ("Content-Length", str(len(form)))], body=form)
    assert (status, b"is repeated" in body) == (400, True)
