"""Signatures that were made by botocore, and what somebody did to the requests afterwards."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, get_args

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from werkzeug import Request
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from microjobs_orchestrator.local.gateway import claims, signatures
from microjobs_orchestrator.local.gateway.claims import CODES, AuthError, Fault
from tests.local.gateway.conftest import CREDENTIALS

BODY = b'{"a": 1}'
OWNER = Credentials(CREDENTIALS.access_key_id, CREDENTIALS.secret_access_key)


def signed(service: str = "sagemaker", **headers: str) -> dict[str, Any]:
    """A request as botocore sends it: what `received` takes."""
    own = {"Host": "localhost:1", "X-Amz-Target": "SageMaker.ListModels", **headers}
    request = AWSRequest("POST", "http://localhost:1/a%2Fb?x=1", own, BODY)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(OWNER, service, "us-east-1").add_auth(request)
    return {"path": "/a%2Fb?x=1", "headers": dict(request.headers.items()), "body": BODY}


def received(path: str, headers: dict[str, str], body: bytes) -> Request:
    return Request(EnvironBuilder(path, method="POST", headers=Headers(headers), data=body).get_environ())


def verify(request: Request, now: datetime | None = None) -> None:
    signatures.verify(
        request, claims.read_claim(request), CREDENTIALS, lambda: sha256(request.get_data()).hexdigest(), now
    )


def fault(request: Request, now: datetime | None = None) -> Fault:
    with pytest.raises(AuthError) as caught:
        verify(request, now)
    return caught.value.fault


@pytest.mark.parametrize("service", ["sagemaker", "s3", "sts"])
def test_what_botocore_signs_is_taken(service: str) -> None:
    verify(received(**signed(service)))


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("body", BODY + b" "),
        ("path", "/a/b?x=1"),
        ("path", "/a%2Fb?x=2"),
        ("path", "/a%2Fb"),
    ],
)
def test_changed_request_is_refused(part: str, changed: object) -> None:
    assert fault(received(**signed() | {part: changed})) == "signature"


@pytest.mark.parametrize(("name", "value"), [("X-Amz-Target", "SageMaker.DeleteModel"), ("Host", "other:1")])
def test_changed_header_is_refused(name: str, value: str) -> None:
    sent = signed()
    sent["headers"][name] = value
    assert fault(received(**sent)) == "signature"


@pytest.mark.parametrize("name", ["X-Amz-Meta-Added", "x-amz-copy-source"])
def test_added_amazon_header_is_refused(name: str) -> None:
    sent = signed("s3")
    sent["headers"][name] = "value"
    assert fault(received(**sent)) == "signature"


def test_added_foreign_header_is_taken() -> None:
    sent = signed()
    sent["headers"]["X-Forwarded-For"] = "proxy"
    verify(received(**sent))


def test_body_that_is_not_its_header_is_refused() -> None:
    sent = signed(**{"X-Amz-Content-SHA256": "0" * 64})
    assert fault(received(**sent)) == "payload"


def test_s3_body_is_left_to_s3() -> None:
    request = received(**signed("s3") | {"body": b"other"})
    verify(request)
    assert request.stream.read() == b"other"


@pytest.mark.parametrize(("minutes", "taken"), [(-16, False), (-14, True), (14, True), (16, False)])
def test_clocks_may_differ_by_fifteen_minutes(minutes: int, taken: bool) -> None:
    request, now = received(**signed()), datetime.now(UTC) + timedelta(minutes=minutes)
    if taken:
        verify(request, now)
    else:
        assert fault(request, now) == "time"


def presigned(expires: int) -> Request:
    request = AWSRequest("POST", "http://localhost:1/?Action=GetCallerIdentity", {"Host": "localhost:1"})
    SigV4QueryAuth(OWNER, "sts", "us-east-1", expires).add_auth(request)
    return received(str(request.url).removeprefix("http://localhost:1"), {"Host": "localhost:1"}, b"")


@pytest.mark.parametrize(("seconds", "taken"), [(50, True), (70, False), (-1200, False)])
def test_presigned_address_is_good_for_its_time(seconds: int, taken: bool) -> None:
    request, now = presigned(60), datetime.now(UTC) + timedelta(seconds=seconds)
    if taken:
        verify(request, now)
    else:
        assert fault(request, now) == "expired"


def test_presigned_address_is_good_for_a_week_at_most() -> None:
    assert fault(presigned(604_801)) == "malformed"


@pytest.mark.parametrize(
    "header",
    ["Basic dTpw", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0", "AWS4-HMAC-SHA256", "AWS a:b"],
)
def test_other_authorization_is_malformed(header: str) -> None:
    assert fault(received("/", {"Authorization": header}, b"")) == "malformed"


@pytest.mark.parametrize("date", ["", "yesterday", "20261399T999999Z"])
def test_date_that_is_none_is_malformed(date: str) -> None:
    sent = signed()
    sent["headers"]["X-Amz-Date"] = date
    assert fault(received(**sent)) == "malformed"


def test_each_fault_has_a_code_for_each_protocol() -> None:
    assert AuthError("key", "m").to_service_error("s3").code == "InvalidAccessKeyId"
    assert CODES.keys() == set(get_args(Fault))


@pytest.mark.parametrize("query", ["X-Amz-Signature=a", "Signature=a", "X-Amz-Date=a&x-amz-date=b"])
def test_second_signature_or_repeated_parameter_is_malformed(query: str) -> None:
    request = signed()
    assert fault(received(f"/?{query}", request["headers"], request["body"])) == "malformed"


def test_trace_id_of_a_proxy_needs_no_signature() -> None:
    request = signed()
    verify(received(request["path"], {**request["headers"], "X-Amzn-Trace-Id": "Root=1"}, request["body"]))
