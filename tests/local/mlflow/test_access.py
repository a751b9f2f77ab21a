"""Tests of the access to MLflow servers through the gateway: with a signature, a token, or a browser's session."""

import http.client
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from microjobs_orchestrator.local import ui_sessions
from microjobs_orchestrator.local.resources.mlflow.registration import MODEL_VERSIONS_PATH, make_group_name
from tests.local.mlflow.conftest import CREDENTIALS, TOKEN, FakeMlflow

SERVER_ARN = "arn:aws:sagemaker:us-east-1:000000000000:mlflow-tracking-server/one"
APP_ARN = "arn:aws:sagemaker:us-east-1:000000000000:mlflow-app/app"
SERVER_HEADER = {"x-mlflow-sm-tracking-server-arn": SERVER_ARN}
APP_HEADER = {"x-sm-mlflow-app-arn": APP_ARN}
PATH = "/api/2.0/mlflow/runs/get?run_id=a%20b"
SERVER_PATH = "/_microjobs/mlflow/mlflow-tracking-server/one"
TOKEN_HEADER = {"Authorization": f"Bearer {TOKEN}"}


class Response:
    """A response of the gateway."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def forwarded_request(self) -> Any:
        """The request that the fake process received."""
        assert self.status == 200, self.text
        return json.loads(self.text)


def send(
    port: int,
    path: str = PATH,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes | None = None,
) -> Response:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        return Response(connection.getresponse())
    finally:
        connection.close()


def sign(
    port: int,
    headers: Mapping[str, str],
    service: str = "sagemaker-mlflow",
    secret: str = CREDENTIALS.secret_access_key,
    method: str = "GET",
    body: bytes | None = None,
) -> dict[str, str]:
    request = AWSRequest(method, f"http://127.0.0.1:{port}{PATH}", dict(headers), body)
    SigV4Auth(Credentials(CREDENTIALS.access_key_id, secret), service, "us-east-1").add_auth(request)
    return dict(request.headers)


# --- signatures ---


@pytest.mark.parametrize(
    ("headers", "service"),
    [(SERVER_HEADER, "sagemaker-mlflow"), (SERVER_HEADER, "sagemaker"), (APP_HEADER, "sagemaker")],
)
def test_signed_request_is_forwarded(port: int, headers: dict[str, str], service: str) -> None:
    request = send(port, headers=sign(port, headers, service)).forwarded_request
    assert (request["method"], request["path"]) == ("GET", PATH)


def test_body_is_forwarded_and_its_signature_is_checked(port: int) -> None:
    headers = sign(port, SERVER_HEADER, method="POST", body=b'{"a": 1}')
    assert send(port, headers=headers, method="POST", body=b'{"a": 1}').forwarded_request["body"] == '{"a": 1}'
    response = send(port, headers=headers, method="POST", body=b'{"a": 2}')
    assert (response.status, "does not match" in response.text) == (403, True)


def test_credentials_are_not_forwarded(port: int) -> None:
    headers = sign(port, {**SERVER_HEADER, "Cookie": "a=b", "X-MLflow-Workspace": "w"})
    forwarded_headers = send(port, headers=headers).forwarded_request["headers"]
    names = {name.lower() for name in forwarded_headers}
    assert not names & {"authorization", "cookie", "x-mlflow-sm-tracking-server-arn", "x-amz-date"}
    assert (forwarded_headers["X-Mlflow-Workspace"], forwarded_headers["Host"]) == ("w", "localhost")


def test_cookies_of_the_process_are_dropped(port: int) -> None:
    assert "Set-Cookie" not in send(port, headers=sign(port, SERVER_HEADER)).headers


def test_unsigned_request_is_refused(port: int) -> None:
    response = send(port, headers=SERVER_HEADER)
    assert response.status == 403
    assert "is not signed" in response.text


def test_wrong_signature_is_refused(port: int) -> None:
    response = send(port, headers=sign(port, SERVER_HEADER, secret="x" * 40))
    assert response.status == 403
    assert "does not match" in response.text


def test_signature_for_one_server_does_not_reach_another(port: int) -> None:
    response = send(port, headers={**sign(port, SERVER_HEADER), "x-mlflow-sm-tracking-server-arn": APP_ARN})
    assert "does not match" in response.text


def test_header_without_a_signature_is_refused(port: int) -> None:
    response = send(port, headers={**sign(port, {}, "sagemaker"), **APP_HEADER})
    assert "must be signed" in response.text
    response = send(port, headers={**sign(port, SERVER_HEADER), **APP_HEADER})
    assert "must be signed" in response.text


def test_other_host_and_origin_are_refused(port: int) -> None:
    headers = sign(port, {**SERVER_HEADER, "Host": "evil.example"})
    assert send(port, headers=headers).status == 403
    assert send(port, headers=sign(port, {**SERVER_HEADER, "Origin": "http://evil.example"})).status == 403


def test_stopped_and_absent_servers_are_reported(port: int, fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.call("StopMlflowTrackingServer", TrackingServerName="one")
    fake_mlflow.wait_for_final_status()
    response = send(port, headers=sign(port, SERVER_HEADER))
    assert (response.status, "its status is Stopped" in response.text) == (503, True)
    response = send(port, headers=sign(port, {"x-sm-mlflow-app-arn": APP_ARN + "x"}))
    assert (response.status, "Could not find the MLflow server" in response.text) == (404, True)


# --- tokens ---


def test_token_reaches_the_server_in_the_path(port: int) -> None:
    request = send(port, f"{SERVER_PATH}{PATH}", TOKEN_HEADER, "POST", b"body").forwarded_request
    assert (request["method"], request["path"], request["body"]) == ("POST", PATH, "body")
    assert "Authorization" not in request["headers"]
    assert send(port, f"/_microjobs/mlflow/mlflow-app/app{PATH}", TOKEN_HEADER).forwarded_request["path"] == PATH
    assert send(port, SERVER_PATH, TOKEN_HEADER).forwarded_request["path"] == "/"


def test_large_body_is_forwarded(port: int) -> None:
    body = b"x" * (30 << 20)
    assert len(send(port, f"{SERVER_PATH}/upload", TOKEN_HEADER, "PUT", body).forwarded_request["body"]) == len(body)


@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}])
def test_missing_or_wrong_token_is_refused(port: int, headers: dict[str, str]) -> None:
    response = send(port, f"{SERVER_PATH}{PATH}", headers)
    assert (response.status, "microjobs local env --mlflow" in response.text) == (401, True)


@pytest.mark.parametrize("path", ["/_microjobs/mlflow", "/_microjobs/mlflow/model/a/", "/_microjobs/mlflow/../one"])
def test_path_that_names_no_server_is_refused(port: int, path: str) -> None:
    assert send(port, path, TOKEN_HEADER).status == 404


def test_page_of_another_origin_is_refused_although_it_has_the_token(port: int) -> None:
    assert send(port, f"{SERVER_PATH}{PATH}", {**TOKEN_HEADER, "Origin": "http://evil.example"}).status == 403


# --- sessions ---


class Browser:
    """A browser that has the address of a session."""

    def __init__(self, fake_mlflow: FakeMlflow, port: int, **members: Any) -> None:
        arguments = {"TrackingServerName": "one", **members}
        address = urlsplit(fake_mlflow.call("CreatePresignedMlflowTrackingServerUrl", **arguments)["AuthorizedUrl"])
        self.port = port
        self.host = f"{address.hostname}:{port}"
        self.link = f"{address.path}?{address.query}"
        self.cookie = ""

    def open(self) -> Response:
        response = self.get(self.link)
        if response.status == 303:
            self.cookie = response.headers["Set-Cookie"].partition(";")[0]
        return response

    def get(self, path: str = "/", **headers: str) -> Response:
        return send(self.port, path, {"Host": self.host, "Cookie": self.cookie, **headers})


def test_address_opens_a_session_on_a_host_of_its_own(fake_mlflow: FakeMlflow, port: int) -> None:
    browser = Browser(fake_mlflow, port, SessionExpirationDurationInSeconds=1800)
    assert re.fullmatch(rf"[0-9a-f]{{32}}\.mlflow\.localhost:{port}", browser.host)
    response = browser.open()
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Max-Age=1800" in cookie
    assert "Domain" not in cookie
    page = browser.get("/x?y=1")
    assert page.forwarded_request["path"] == "/x?y=1"
    assert "Cookie" not in page.forwarded_request["headers"]
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_address_opens_one_session(fake_mlflow: FakeMlflow, port: int) -> None:
    browser = Browser(fake_mlflow, port)
    assert browser.open().status == 303
    assert browser.get().status == 200
    assert browser.open().status == 401
    assert browser.get().status == 200


def test_address_whose_response_was_lost_opens_a_session_again(fake_mlflow: FakeMlflow, port: int) -> None:
    browser = Browser(fake_mlflow, port)
    browser.open()
    lost_cookie = browser.cookie
    assert browser.open().status == 303
    assert browser.get(Cookie=lost_cookie).status == 401
    assert browser.get().status == 200


def test_address_cannot_be_opened_again_after_the_time_for_repetitions(
    fake_mlflow: FakeMlflow, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui_sessions, "REPEAT_SECONDS", 0.0)
    browser = Browser(fake_mlflow, port)
    assert [browser.open().status for _ in range(2)] == [303, 401]


def test_address_expires(fake_mlflow: FakeMlflow, port: int) -> None:
    assert Browser(fake_mlflow, port, ExpiresInSeconds=0).open().status == 401


def test_session_expires(fake_mlflow: FakeMlflow, port: int) -> None:
    browser = Browser(fake_mlflow, port, SessionExpirationDurationInSeconds=0)
    assert browser.open().status == 303
    assert browser.get().status == 401


def test_cookie_is_not_valid_for_another_session_or_without_its_host(fake_mlflow: FakeMlflow, port: int) -> None:
    browser, other_browser = Browser(fake_mlflow, port), Browser(fake_mlflow, port)
    browser.open()
    other_browser.open()
    assert browser.get().status == 200
    assert browser.get(Cookie=other_browser.cookie).status == 401
    assert browser.get(Cookie="").status == 401
    assert browser.get(Host=f"{'0' * 32}.mlflow.localhost:{port}").status == 401
    assert browser.get(Host=f"127.0.0.1:{port}").status == 403
    assert browser.get(Host=f"{browser.host}.evil.example").status == 403


def test_token_of_an_address_cannot_be_used_as_a_cookie(fake_mlflow: FakeMlflow, port: int) -> None:
    browser = Browser(fake_mlflow, port)
    token = browser.link.partition("authToken=")[2]
    assert browser.get(Cookie=f"microjobs-mlflow={token}").status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_pages_of_other_origins_are_refused(fake_mlflow: FakeMlflow, port: int, headers: dict[str, str]) -> None:
    browser = Browser(fake_mlflow, port)
    browser.open()
    assert browser.get(**headers).status == 403


def test_own_page_and_link_of_another_page_are_accepted(fake_mlflow: FakeMlflow, port: int) -> None:
    browser = Browser(fake_mlflow, port)
    browser.open()
    origin = {"Origin": f"http://{browser.host}", "Sec-Fetch-Site": "same-origin"}
    assert browser.get(**origin).status == 200
    assert browser.get(**{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status == 200


def test_session_gives_no_access_to_operations(fake_mlflow: FakeMlflow, port: int) -> None:
    browser = Browser(fake_mlflow, port)
    browser.open()
    headers = {"Host": browser.host, "Cookie": browser.cookie, "X-Amz-Target": "SageMaker.ListModels"}
    response = send(port, "/", headers, "POST", b"{}")
    assert response.forwarded_request["path"] == "/"  # the MLflow server answers, not the operation


def test_session_ends_with_its_server(fake_mlflow: FakeMlflow, port: int) -> None:
    browser = Browser(fake_mlflow, port)
    browser.open()
    fake_mlflow.call("StopMlflowTrackingServer", TrackingServerName="one")
    fake_mlflow.wait_for_final_status()
    assert browser.get().status == 503


# --- automatic registration ---


@pytest.mark.parametrize(
    ("model", "group"), [("prices", "prices"), ("a b/c", "a-b-c"), ("-é-", "model"), ("x" * 80, "x" * 63)]
)
def test_group_has_a_valid_name(model: str, group: str) -> None:
    assert make_group_name(model) == group


def test_response_that_is_no_version_of_a_model_is_returned_and_reported(
    fake_mlflow: FakeMlflow, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    fake_mlflow.call("UpdateMlflowTrackingServer", TrackingServerName="one", AutomaticModelRegistration=True)
    fake_mlflow.wait_for_final_status()
    path = f"/api/2.0{MODEL_VERSIONS_PATH}"
    assert send(port, f"{SERVER_PATH}{path}", TOKEN_HEADER, "POST", b"{}").forwarded_request["path"] == path
    assert "could not be registered" in caplog.text


def test_versions_are_not_registered_by_default(
    fake_mlflow: FakeMlflow, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert send(port, f"{SERVER_PATH}/api/2.0{MODEL_VERSIONS_PATH}", TOKEN_HEADER, "POST", b"{}").status == 200
    assert "could not be registered" not in caplog.text
    assert fake_mlflow.call("ListModelPackageGroups")["ModelPackageGroupSummaryList"] == []
