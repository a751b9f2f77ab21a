"""Requests without valid credentials, to a server with its default settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from microjobs_orchestrator.local.gateway.claims import FAULT_CODES, Fault
from microjobs_orchestrator.local.protocols.protocol import ErrorStyle
from tests.local.clients import LocalServer
from tests.local.security.wire import Response, Sender

BUCKET = "sagemaker-us-east-1-000000000000"
JSON_TYPE = "application/x-amz-json-1.1"
FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class ValidRequest:
    """A request that the server accepts if it is signed. If the request is an invocation, its endpoint does not exist:
    the error about the endpoint shows that the signature was accepted."""

    service: str
    error_style: ErrorStyle
    method: str = "POST"
    target: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


REQUESTS = [
    ValidRequest(
        "sagemaker", "json", headers={"X-Amz-Target": "SageMaker.ListModels", "Content-Type": JSON_TYPE}, body=b"{}"
    ),
    ValidRequest(
        "logs",
        "json",
        headers={"X-Amz-Target": "Logs_20140328.DescribeLogGroups", "Content-Type": JSON_TYPE},
        body=b"{}",
    ),
    ValidRequest(
        "ecr",
        "json",
        headers={
            "X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            "Content-Type": JSON_TYPE,
        },
        body=b"{}",
    ),
    ValidRequest(
        "sts", "query", headers={"Content-Type": FORM_TYPE}, body=b"Action=GetCallerIdentity&Version=2011-06-15"
    ),
    ValidRequest(
        "iam", "query", headers={"Content-Type": FORM_TYPE}, body=b"Action=GetRole&RoleName=role&Version=2010-05-08"
    ),
    ValidRequest("s3", "s3", "GET"),
    ValidRequest("s3", "s3", "PUT", f"/{BUCKET}/key", body=b"content"),
    ValidRequest("s3", "s3", "DELETE", f"/{BUCKET}/stored"),
    ValidRequest(
        "sagemaker", "json", target="/endpoints/e/invocations", headers={"Content-Type": "text/csv"}, body=b"1"
    ),
]
with_each_request = pytest.mark.parametrize(
    "valid_request", REQUESTS, ids=lambda valid_request: f"{valid_request.service} {valid_request.method}"
)


def send(
    sender: Sender, valid_request: ValidRequest, added_headers: Mapping[str, str] | None = None, **signing: Any
) -> Response:
    """Sign a request, then add or replace headers, which the signature does not cover, and send the request."""
    headers = sender.sign(
        valid_request.service,
        valid_request.method,
        valid_request.target,
        valid_request.headers,
        valid_request.body,
        **signing,
    )
    return sender.send_raw(
        valid_request.method, valid_request.target, {**headers, **(added_headers or {})}, valid_request.body
    )


def check_refused(answer: Response, valid_request: ValidRequest, fault: Fault) -> None:
    assert (answer.status, getattr(FAULT_CODES[fault], valid_request.error_style) in answer.body.decode()) == (
        403,
        True,
    ), answer


@pytest.fixture(autouse=True)
def stored_object(process_server: LocalServer) -> Path:
    path = process_server.bucket / "stored"
    path.write_text("stored")
    return path


@with_each_request
def test_signed_request_is_answered(sender: Sender, valid_request: ValidRequest) -> None:
    response = send(sender, valid_request)
    assert response.status in (200, 204) or b"Endpoint e of account" in response.body


@with_each_request
def test_unsigned_request_is_refused(
    process_server: LocalServer, sender: Sender, valid_request: ValidRequest, stored_object: Path
) -> None:
    (process_server.bucket / "key").unlink(missing_ok=True)
    check_refused(
        sender.send_raw(valid_request.method, valid_request.target, valid_request.headers, valid_request.body),
        valid_request,
        "missing",
    )
    assert stored_object.exists() and not (process_server.bucket / "key").exists()  # noqa: PT018


@with_each_request
def test_request_signed_with_another_secret_is_refused(
    sender: Sender, valid_request: ValidRequest, stored_object: Path
) -> None:
    credentials = Credentials(sender.credentials.access_key, "another")
    check_refused(send(sender, valid_request, credentials=credentials), valid_request, "signature")
    assert stored_object.exists()


@with_each_request
def test_request_signed_with_another_key_is_refused(
    sender: Sender, valid_request: ValidRequest, stored_object: Path
) -> None:
    check_refused(send(sender, valid_request, credentials=Credentials("AKIAOTHER", "another")), valid_request, "key")
    assert stored_object.exists()


@with_each_request
@pytest.mark.parametrize("minutes", [-16, 16, -(60 * 24 * 365)])
def test_request_with_an_old_or_future_date_is_refused(
    sender: Sender, valid_request: ValidRequest, minutes: int, stored_object: Path
) -> None:
    signing_time = datetime.now(UTC) + timedelta(minutes=minutes)
    check_refused(send(sender, valid_request, signing_time=signing_time), valid_request, "time")
    assert stored_object.exists()


@with_each_request
def test_date_changed_after_signing_is_refused(sender: Sender, valid_request: ValidRequest) -> None:
    now = datetime.now(UTC)
    signing_time = now - timedelta(minutes=16)
    response = send(sender, valid_request, {"X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}"}, signing_time=signing_time)
    check_refused(response, valid_request, "signature")


@with_each_request
@pytest.mark.parametrize(
    "added_headers", [{"X-Amz-Added": "x"}, {"Host": "localhost"}, {"X-Amz-Target": "SageMaker.DeleteModel"}]
)
def test_header_added_or_replaced_after_signing_is_refused(
    sender: Sender, valid_request: ValidRequest, added_headers: Mapping[str, str]
) -> None:
    check_refused(send(sender, valid_request, added_headers), valid_request, "signature")


@pytest.mark.parametrize(
    "valid_request",
    [valid_request for valid_request in REQUESTS if valid_request.body],
    ids=lambda valid_request: valid_request.service,
)
def test_body_changed_after_signing_is_refused(
    sender: Sender, valid_request: ValidRequest, process_server: LocalServer
) -> None:
    headers = sender.sign(
        valid_request.service,
        valid_request.method,
        valid_request.target,
        valid_request.headers,
        valid_request.body,
    )
    answer = sender.send_raw(valid_request.method, valid_request.target, headers, valid_request.body + b" ")
    assert answer.status in (400, 403)
    assert any(word in answer.body for word in (b"InvalidSignature", b"DoesNotMatch", b"SHA256Mismatch"))
    assert not (process_server.bucket / "key").exists() or (process_server.bucket / "key").read_bytes() == b"content"


@with_each_request
def test_path_changed_after_signing_is_refused(sender: Sender, valid_request: ValidRequest) -> None:
    headers = sender.sign(
        valid_request.service,
        valid_request.method,
        valid_request.target,
        valid_request.headers,
        valid_request.body,
    )
    answer = sender.send_raw(
        valid_request.method, valid_request.target.replace("key", "other") + "?x=y", headers, valid_request.body
    )
    check_refused(answer, valid_request, "signature")


@pytest.mark.parametrize(("seconds_from_now", "status"), [(-30, 200), (-90, 403), (20 * 60, 403)])
@pytest.mark.parametrize("signer", [SigV4QueryAuth, S3SigV4QueryAuth])
def test_presigned_address_is_valid_only_during_its_lifetime(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, signer: Any, seconds_from_now: int, status: int
) -> None:
    signing_time = datetime.now(UTC) + timedelta(seconds=seconds_from_now)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: signing_time)
    service, target = (
        ("s3", f"/{BUCKET}/stored") if signer is S3SigV4QueryAuth else ("sts", "/?Action=GetCallerIdentity")
    )
    request = AWSRequest("GET", f"http://{sender.host}{target}", {"Host": sender.host})
    signer(sender.credentials, service, "us-east-1", expires=60).add_auth(request)
    assert sender.send_raw("GET", str(request.url).removeprefix(f"http://{sender.host}"), {}).status == status


# --- host names ---


@pytest.mark.parametrize(
    "host",
    [
        *("rebound.example", "localhost.example", "evil-localhost", "127.0.0.1.example", "0.0.0.0", "[::1]", "127.1"),
        *("user@localhost", "localhost@evil.example", "localhost/evil", "localhost#evil", "localhost?evil"),
        *("localhost:80:evil", "localhost:evil", "localhost,evil.example", "evil.example localhost", "localhost."),
        *("\uff4cocalhost".encode().decode("latin-1"), "2130706433", "0x7f.1", "", "évil.localhost"),
    ],
)
def test_signed_request_for_an_unknown_host_is_refused(sender: Sender, host: str) -> None:
    answer = sender.send_signed("s3", "GET", "/", {"Host": host})
    assert (answer.status, b"is not this server" in answer.body) == (403, True)


# --- web pages ---

CROSS_SITE_HEADERS = {"Origin": "http://page.example", "Sec-Fetch-Site": "cross-site", "User-Agent": "Mozilla/5.0"}


def check_page_refused(answer: Response) -> None:
    assert answer.status == 403, answer
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@with_each_request
def test_preflight_is_refused(sender: Sender, valid_request: ValidRequest) -> None:
    preflight_headers = {
        "Access-Control-Request-Method": valid_request.method,
        "Access-Control-Request-Private-Network": "true",
    }
    preflight_headers["Access-Control-Request-Headers"] = "authorization,x-amz-date,x-amz-target"
    check_page_refused(sender.send_raw("OPTIONS", valid_request.target, {**CROSS_SITE_HEADERS, **preflight_headers}))


@pytest.mark.parametrize("content_type", ["text/plain", FORM_TYPE, "multipart/form-data; boundary=x", JSON_TYPE])
@pytest.mark.parametrize("origin", ["http://page.example", "null", "http://127.0.0.1", "http://localhost:4577", None])
@with_each_request
def test_form_of_a_web_page_is_refused(
    sender: Sender, valid_request: ValidRequest, content_type: str, origin: str | None
) -> None:
    headers = {**valid_request.headers, "Content-Type": content_type, "Sec-Fetch-Mode": "no-cors"}
    check_page_refused(
        sender.send_raw(
            "POST", valid_request.target, headers | ({"Origin": origin} if origin else {}), valid_request.body
        )
    )


@with_each_request
def test_signed_request_of_a_web_page_is_refused(
    sender: Sender, valid_request: ValidRequest, stored_object: Path
) -> None:
    check_page_refused(send(sender, valid_request, CROSS_SITE_HEADERS))
    assert stored_object.exists()


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
@pytest.mark.parametrize("path", ["/health", "/_microjobs/health"])
def test_health_check_embedded_in_a_web_page_is_refused(sender: Sender, path: str, site: str) -> None:
    image_headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    check_page_refused(sender.send_raw("GET", path, image_headers))


def test_websocket_of_a_web_page_is_refused(sender: Sender) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "AA==", "Origin": "http://x"}
    check_page_refused(sender.send_raw("GET", "/health", headers))


def test_presigned_address_can_be_opened_in_a_browser(process_server: LocalServer, sender: Sender) -> None:
    address = urlsplit(process_server.s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "stored"}))
    headers = {"Host": address.netloc, "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
    assert sender.send_raw("GET", f"{address.path}?{address.query}", headers).body == b"stored"
