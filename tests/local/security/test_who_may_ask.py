"""Requests that come from others than who has the folder's credentials, at a server as users have it."""

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

from microjobs_orchestrator.local.gateway.claims import CODES, Fault
from microjobs_orchestrator.local.protocols.protocol import ErrorStyle
from tests.local.clients import LocalServer
from tests.local.security.wire import Answer, Sender

BUCKET = "sagemaker-us-east-1-000000000000"
JSON = "application/x-amz-json-1.1"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Asked:
    """A request that is answered if it is signed."""

    service: str
    kind: ErrorStyle
    method: str = "POST"
    target: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


ASKED = [
    Asked("sagemaker", "json", headers={"X-Amz-Target": "SageMaker.ListModels", "Content-Type": JSON}, body=b"{}"),
    Asked("logs", "json", headers={"X-Amz-Target": "Logs.DescribeLogGroups", "Content-Type": JSON}, body=b"{}"),
    Asked("ecr", "json", headers={"X-Amz-Target": "E.GetAuthorizationToken", "Content-Type": JSON}, body=b"{}"),
    Asked("sts", "query", headers={"Content-Type": FORM}, body=b"Action=GetCallerIdentity&Version=2011-06-15"),
    Asked("iam", "query", headers={"Content-Type": FORM}, body=b"Action=GetRole&RoleName=role&Version=2010-05-08"),
    Asked("s3", "s3", "GET"),
    Asked("s3", "s3", "PUT", f"/{BUCKET}/key", body=b"content"),
    Asked("s3", "s3", "DELETE", f"/{BUCKET}/kept"),
    Asked("sagemaker", "json", target="/endpoints/e/invocations", headers={"Content-Type": "text/csv"}, body=b"1"),
]
EACH = pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked.service} {asked.method}")


def send(sender: Sender, asked: Asked, later: Mapping[str, str] | None = None, **how: Any) -> Answer:
    """Send it signed, with headers that came to it later."""
    headers = sender.sign(asked.service, asked.method, asked.target, asked.headers, asked.body, **how)
    return sender.raw(asked.method, asked.target, {**headers, **(later or {})}, asked.body)


def check_refused(answer: Answer, asked: Asked, fault: Fault) -> None:
    assert (answer.status, getattr(CODES[fault], asked.kind) in answer.body.decode()) == (403, True), answer


@pytest.fixture(autouse=True)
def kept(guarded: LocalServer) -> Path:
    path = guarded.bucket / "kept"
    path.write_text("kept")
    return path


@EACH
def test_signed_request_is_answered(sender: Sender, asked: Asked) -> None:
    answer = send(sender, asked)
    assert answer.status in (200, 204) or b"Endpoint e of account" in answer.body


@EACH
def test_unsigned_request_is_refused(guarded: LocalServer, sender: Sender, asked: Asked, kept: Path) -> None:
    (guarded.bucket / "key").unlink(missing_ok=True)
    check_refused(sender.raw(asked.method, asked.target, asked.headers, asked.body), asked, "missing")
    assert kept.exists() and not (guarded.bucket / "key").exists()  # noqa: PT018


@EACH
def test_request_signed_with_another_secret_is_refused(sender: Sender, asked: Asked, kept: Path) -> None:
    foreign = Credentials(sender.credentials.access_key, "another")
    check_refused(send(sender, asked, credentials=foreign), asked, "signature")
    assert kept.exists()


@EACH
def test_request_signed_by_another_is_refused(sender: Sender, asked: Asked, kept: Path) -> None:
    check_refused(send(sender, asked, credentials=Credentials("AKIAOTHER", "another")), asked, "key")
    assert kept.exists()


@EACH
@pytest.mark.parametrize("minutes", [-16, 16, -(60 * 24 * 365)])
def test_request_replayed_at_another_time_is_refused(sender: Sender, asked: Asked, minutes: int, kept: Path) -> None:
    check_refused(send(sender, asked, at=datetime.now(UTC) + timedelta(minutes=minutes)), asked, "time")
    assert kept.exists()


@EACH
def test_date_put_right_afterwards_is_refused(sender: Sender, asked: Asked) -> None:
    now = datetime.now(UTC)
    answer = send(sender, asked, {"X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}"}, at=now - timedelta(minutes=16))
    check_refused(answer, asked, "signature")


@EACH
@pytest.mark.parametrize(
    "later", [{"X-Amz-Added": "x"}, {"Host": "localhost"}, {"X-Amz-Target": "SageMaker.DeleteModel"}]
)
def test_header_that_came_to_it_later_is_refused(sender: Sender, asked: Asked, later: Mapping[str, str]) -> None:
    check_refused(send(sender, asked, later), asked, "signature")


@pytest.mark.parametrize("asked", [asked for asked in ASKED if asked.body], ids=lambda asked: asked.service)
def test_another_body_than_was_signed_is_refused(sender: Sender, asked: Asked, guarded: LocalServer) -> None:
    headers = sender.sign(asked.service, asked.method, asked.target, asked.headers, asked.body)
    answer = sender.raw(asked.method, asked.target, headers, asked.body + b" ")
    assert answer.status in (400, 403)
    assert any(word in answer.body for word in (b"InvalidSignature", b"DoesNotMatch", b"SHA256Mismatch"))
    assert not (guarded.bucket / "key").exists() or (guarded.bucket / "key").read_bytes() == b"content"


@EACH
def test_another_path_than_was_signed_is_refused(sender: Sender, asked: Asked) -> None:
    headers = sender.sign(asked.service, asked.method, asked.target, asked.headers, asked.body)
    answer = sender.raw(asked.method, asked.target.replace("key", "other") + "?x=y", headers, asked.body)
    check_refused(answer, asked, "signature")


@pytest.mark.parametrize(("seconds", "status"), [(-30, 200), (-90, 403), (20 * 60, 403)])
@pytest.mark.parametrize("signer", [SigV4QueryAuth, S3SigV4QueryAuth])
def test_presigned_address_is_good_for_its_time_only(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, signer: Any, seconds: int, status: int
) -> None:
    then = datetime.now(UTC) + timedelta(seconds=seconds)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: then)
    service, target = ("s3", f"/{BUCKET}/kept") if signer is S3SigV4QueryAuth else ("sts", "/?Action=GetCallerIdentity")
    request = AWSRequest("GET", f"http://{sender.host}{target}", {"Host": sender.host})
    signer(sender.credentials, service, "us-east-1", 60).add_auth(request)
    assert sender.raw("GET", str(request.url).removeprefix(f"http://{sender.host}"), {}).status == status


# --- names that lead here ---


@pytest.mark.parametrize(
    "host",
    [
        *("rebound.example", "localhost.example", "evil-localhost", "127.0.0.1.example", "0.0.0.0", "[::1]", "127.1"),
        *("user@localhost", "localhost@evil.example", "localhost/evil", "localhost#evil", "localhost?evil"),
        *("localhost:80:evil", "localhost:evil", "localhost,evil.example", "evil.example localhost", "localhost."),
        *("\uff4cocalhost".encode().decode("latin-1"), "2130706433", "0x7f.1", "", "évil.localhost"),
    ],
)
def test_foreign_host_is_refused_though_signed(sender: Sender, host: str) -> None:
    answer = sender.signed("s3", "GET", "/", {"Host": host})
    assert (answer.status, b"is not this server" in answer.body) == (403, True)


# --- pages in a browser ---

CROSS = {"Origin": "http://page.example", "Sec-Fetch-Site": "cross-site", "User-Agent": "Mozilla/5.0"}


def check_page_refused(answer: Answer) -> None:
    assert answer.status == 403, answer
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@EACH
def test_preflight_is_refused(sender: Sender, asked: Asked) -> None:
    wanted = {"Access-Control-Request-Method": asked.method, "Access-Control-Request-Private-Network": "true"}
    wanted["Access-Control-Request-Headers"] = "authorization,x-amz-date,x-amz-target"
    check_page_refused(sender.raw("OPTIONS", asked.target, {**CROSS, **wanted}))


@pytest.mark.parametrize("content_type", ["text/plain", FORM, "multipart/form-data; boundary=x", JSON])
@pytest.mark.parametrize("origin", ["http://page.example", "null", "http://127.0.0.1", "http://localhost:4577", None])
@EACH
def test_pages_form_is_refused(sender: Sender, asked: Asked, content_type: str, origin: str | None) -> None:
    headers = {**asked.headers, "Content-Type": content_type, "Sec-Fetch-Mode": "no-cors"}
    check_page_refused(sender.raw("POST", asked.target, headers | ({"Origin": origin} if origin else {}), asked.body))


@EACH
def test_page_may_not_ask_even_with_a_signature(sender: Sender, asked: Asked, kept: Path) -> None:
    check_page_refused(send(sender, asked, CROSS))
    assert kept.exists()


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
@pytest.mark.parametrize("path", ["/health", "/_microjobs/health"])
def test_page_may_not_load_what_needs_no_signature(sender: Sender, path: str, site: str) -> None:
    loaded = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    check_page_refused(sender.raw("GET", path, loaded))


def test_page_may_not_open_a_socket(sender: Sender) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "AA==", "Origin": "http://x"}
    check_page_refused(sender.raw("GET", "/health", upgrade))


def test_user_may_open_an_object_in_a_browser(guarded: LocalServer, sender: Sender) -> None:
    address = urlsplit(guarded.s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "kept"}))
    headers = {"Host": address.netloc, "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
    assert sender.raw("GET", f"{address.path}?{address.query}", headers).body == b"kept"
