"""Requests of the project's own command line: signed like all others, and answered before any service."""

from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from werkzeug.test import Client as WsgiClient

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.chain import Gateway, list_interceptors
from microjobs_orchestrator.local.gateway.forward import Forwarder
from tests.local.gateway.conftest import CREDENTIALS

URL = "http://localhost/_microjobs/x"
Response = tuple[int, Any]


class Own:
    """A gateway without services, whose own operation keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        own = {"/_microjobs/x": self._receive}
        self._client = WsgiClient(
            Gateway(list_interceptors(CREDENTIALS, {}, ["localhost"], lambda *_: "", Forwarder({}), own))
        )

    def _receive(self, content: Any) -> None:
        self.received.append(content)
        if content == "refused":
            raise ServiceError("Refused", "it is refused")

    def post(self, body: str, secret: str = CREDENTIALS.secret_access_key, sent: str | None = None) -> Response:
        """Send a request that is signed for a body; `sent` replaces the body."""
        request = AWSRequest("POST", URL, {"Content-Type": "application/json"}, body)
        SigV4Auth(BotocoreCredentials(CREDENTIALS.access_key_id, secret), "sagemaker", "us-east-1").add_auth(request)
        response = self._client.post(
            "/_microjobs/x", data=body if sent is None else sent, headers=[*request.headers.items()]
        )
        return response.status_code, response.get_json(force=True)

    def post_unsigned(self) -> Response:
        response = self._client.post("/_microjobs/x", data="{}", content_type="application/json")
        return response.status_code, response.get_json(force=True)


@pytest.fixture
def own() -> Own:
    return Own()


def test_signed_request_reaches_its_operation(own: Own) -> None:
    assert own.post('{"a": 1}') == (200, {})
    assert own.received == [{"a": 1}]


def test_request_that_is_not_signed_is_refused(own: Own) -> None:
    assert own.post_unsigned()[0] == 403
    assert own.post("{}", secret="another")[0] == 403  # noqa: S106
    assert own.post("{}", sent='{"a": 1}')[0] == 403
    assert own.received == []


def test_refusal_is_returned(own: Own) -> None:
    status, answer = own.post('"refused"')
    assert (status, answer["message"]) == (400, "it is refused")


@pytest.mark.parametrize("body", ["", "{", "[" * 50_000])
def test_body_that_is_not_json_is_refused(own: Own, body: str) -> None:
    status, answer = own.post(body)
    assert status == 400
    assert answer["message"].startswith("The body is not JSON: ")
    assert own.received == []
