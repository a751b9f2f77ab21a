"""Requests of the project's own command line. They are signed like all other requests, but belong to no AWS service."""

from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from werkzeug.test import Client as WsgiClient

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.chain import Gateway
from tests.local.gateway.conftest import CREDENTIALS, make_mlflow_gateway
from tests.local.gateways import make_interceptors

URL = "http://localhost/_microjobs/x"
Response = tuple[int, Any]


class RecordingGateway:
    """A gateway without AWS services. Its only operation records the values that it receives."""

    def __init__(self) -> None:
        self.received_contents: list[Any] = []
        own_operations = {"/_microjobs/x": self._receive}
        interceptors = make_interceptors(CREDENTIALS, {}, make_mlflow_gateway(), own_operations)
        self._client = WsgiClient(Gateway(interceptors))

    def _receive(self, content: Any) -> None:
        self.received_contents.append(content)
        if content == "refused":
            raise ServiceError("Refused", "it is refused")

    def post(self, body: str, secret: str = CREDENTIALS.secret_access_key, sent_body: str | None = None) -> Response:
        """Send a request whose signature covers `body`. Send `sent_body` in place of `body` if it is given."""
        request = AWSRequest("POST", URL, {"Content-Type": "application/json"}, body)
        SigV4Auth(BotocoreCredentials(CREDENTIALS.access_key_id, secret), "sagemaker", "us-east-1").add_auth(request)
        response = self._client.post(
            "/_microjobs/x", data=body if sent_body is None else sent_body, headers=[*request.headers.items()]
        )
        return response.status_code, response.get_json(force=True)

    def post_unsigned(self) -> Response:
        response = self._client.post("/_microjobs/x", data="{}", content_type="application/json")
        return response.status_code, response.get_json(force=True)


@pytest.fixture
def gateway() -> RecordingGateway:
    return RecordingGateway()


def test_signed_request_reaches_the_operation(gateway: RecordingGateway) -> None:
    assert gateway.post('{"a": 1}') == (200, {})
    assert gateway.received_contents == [{"a": 1}]


def test_request_without_a_valid_signature_is_refused(gateway: RecordingGateway) -> None:
    assert gateway.post_unsigned()[0] == 403
    assert gateway.post("{}", secret="another")[0] == 403  # noqa: S106
    assert gateway.post("{}", sent_body='{"a": 1}')[0] == 403
    assert gateway.received_contents == []


def test_error_of_an_operation_is_returned(gateway: RecordingGateway) -> None:
    status, answer = gateway.post('"refused"')
    assert (status, answer["message"]) == (400, "it is refused")


@pytest.mark.parametrize("body", ["", "{", "[" * 50_000])
def test_body_that_is_not_json_is_refused(gateway: RecordingGateway, body: str) -> None:
    status, answer = gateway.post(body)
    assert status == 400
    assert answer["message"].startswith("The body is not JSON: ")
    assert gateway.received_contents == []
