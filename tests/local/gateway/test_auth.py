"""Verification of botocore's signatures, for unchanged and for changed requests."""

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
from microjobs_orchestrator.local.gateway.claims import FAULT_CODES, AuthError, Fault
from tests.local.gateway.conftest import CREDENTIALS

BODY = b'{"a": 1}'
BOTOCORE_CREDENTIALS = Credentials(CREDENTIALS.access_key_id, CREDENTIALS.secret_access_key)


def sign(service: str = "sagemaker", **headers: str) -> dict[str, Any]:
    """Sign a request with botocore. Return the arguments of `make_request`."""
    all_headers = {"Host": "localhost:1", "X-Amz-Target": "SageMaker.ListModels", **headers}
    request = AWSRequest("POST", "http://localhost:1/a%2Fb?x=1", all_headers, BODY)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(BOTOCORE_CREDENTIALS, service, "us-east-1").add_auth(request)
    return {"path": "/a%2Fb?x=1", "headers": dict(request.headers.items()), "body": BODY}


def make_request(path: str, headers: dict[str, str], body: bytes) -> Request:
    return Request(EnvironBuilder(path, method="POST", headers=Headers(headers), data=body).get_environ())


def verify(request: Request, now: datetime | None = None) -> None:
    signatures.verify(
        request, claims.read_claim(request), CREDENTIALS, lambda: sha256(request.get_data()).hexdigest(), now
    )


def get_fault(request: Request, now: datetime | None = None) -> Fault:
    with pytest.raises(AuthError) as caught:
        verify(request, now)
    return caught.value.fault


@pytest.mark.parametrize("service", ["sagemaker", "s3", "sts"])
def test_signature_of_botocore_is_accepted(service: str) -> None:
    verify(make_request(**sign(service)))


@pytest.mark.parametrize(
    ("part", "changed_value"),
    [
        ("body", BODY + b" "),
        ("path", "/a/b?x=1"),
        ("path", "/a%2Fb?x=2"),
        ("path", "/a%2Fb"),
    ],
)
def test_changed_request_is_refused(part: str, changed_value: object) -> None:
    assert get_fault(make_request(**sign() | {part: changed_value})) == "signature"


@pytest.mark.parametrize(("name", "value"), [("X-Amz-Target", "SageMaker.DeleteModel"), ("Host", "other:1")])
def test_changed_header_is_refused(name: str, value: str) -> None:
    signed_request = sign()
    signed_request["headers"][name] = value
    assert get_fault(make_request(**signed_request)) == "signature"


@pytest.mark.parametrize("name", ["X-Amz-Meta-Added", "x-amz-copy-source"])
def test_added_amazon_header_is_refused(name: str) -> None:
    signed_request = sign("s3")
    signed_request["headers"][name] = "value"
    assert get_fault(make_request(**signed_request)) == "signature"


def test_added_header_of_a_proxy_is_accepted() -> None:
    signed_request = sign()
    signed_request["headers"]["X-Forwarded-For"] = "proxy"
    verify(make_request(**signed_request))


def test_body_with_another_sha256_is_refused() -> None:
    signed_request = sign(**{"X-Amz-Content-SHA256": "0" * 64})
    assert get_fault(make_request(**signed_request)) == "payload"


def test_verification_does_not_read_the_body_of_s3() -> None:
    request = make_request(**sign("s3") | {"body": b"other"})
    verify(request)
    assert request.stream.read() == b"other"


@pytest.mark.parametrize(("minutes", "is_accepted"), [(-16, False), (-14, True), (14, True), (16, False)])
def test_clocks_may_differ_by_fifteen_minutes(minutes: int, is_accepted: bool) -> None:
    request, now = make_request(**sign()), datetime.now(UTC) + timedelta(minutes=minutes)
    if is_accepted:
        verify(request, now)
    else:
        assert get_fault(request, now) == "time"


def presign(expires: int) -> Request:
    request = AWSRequest("POST", "http://localhost:1/?Action=GetCallerIdentity", {"Host": "localhost:1"})
    SigV4QueryAuth(BOTOCORE_CREDENTIALS, "sts", "us-east-1", expires).add_auth(request)
    return make_request(str(request.url).removeprefix("http://localhost:1"), {"Host": "localhost:1"}, b"")


@pytest.mark.parametrize(("seconds", "is_accepted"), [(50, True), (70, False), (-1200, False)])
def test_presigned_address_expires(seconds: int, is_accepted: bool) -> None:
    request, now = presign(expires=60), datetime.now(UTC) + timedelta(seconds=seconds)
    if is_accepted:
        verify(request, now)
    else:
        assert get_fault(request, now) == "expired"


def test_date_and_credential_without_the_amazon_prefix_are_plain_parameters() -> None:
    request = AWSRequest("POST", "http://localhost:1/?Date=1999&Credential=a/20260101/b/c/aws4_request", {"Host": "a"})
    SigV4QueryAuth(BOTOCORE_CREDENTIALS, "sts", "us-east-1", expires=60).add_auth(request)
    target = str(request.url).removeprefix("http://localhost:1")
    verify(make_request(target, {"Host": "a"}, b""), datetime.now(UTC))


def test_presigned_address_is_valid_for_at_most_a_week() -> None:
    assert get_fault(presign(expires=604_801)) == "malformed"


@pytest.mark.parametrize(
    "header",
    ["Basic dTpw", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0", "AWS4-HMAC-SHA256", "AWS a:b"],
)
def test_authorization_of_another_scheme_or_without_fields_is_malformed(header: str) -> None:
    assert get_fault(make_request("/", {"Authorization": header}, b"")) == "malformed"


@pytest.mark.parametrize("date", ["", "yesterday", "20261399T999999Z"])
def test_invalid_date_is_malformed(date: str) -> None:
    signed_request = sign()
    signed_request["headers"]["X-Amz-Date"] = date
    assert get_fault(make_request(**signed_request)) == "malformed"


def test_each_fault_has_codes() -> None:
    assert AuthError("key", "m").to_service_error("s3").code == "InvalidAccessKeyId"
    assert FAULT_CODES.keys() == set(get_args(Fault))


@pytest.mark.parametrize("query", ["X-Amz-Signature=a", "Signature=a", "X-Amz-Date=a&x-amz-date=b"])
def test_second_signature_or_repeated_parameter_is_malformed(query: str) -> None:
    signed_request = sign()
    assert get_fault(make_request(f"/?{query}", signed_request["headers"], signed_request["body"])) == "malformed"


def test_trace_id_of_a_proxy_needs_no_signature() -> None:
    signed_request = sign()
    verify(
        make_request(
            signed_request["path"], {**signed_request["headers"], "X-Amzn-Trace-Id": "Root=1"}, signed_request["body"]
        )
    )
