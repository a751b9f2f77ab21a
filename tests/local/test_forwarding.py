"""Tests of requests that the server forwards to other emulators: a real moto server, and emulators that misbehave."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from werkzeug import Request

from microjobs_orchestrator.local.config import Config, ConfigError, load
from microjobs_orchestrator.local.control import ServerError
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway import forward
from microjobs_orchestrator.local.gateway.claims import Claim
from microjobs_orchestrator.local.gateway.forward import Forwarder
from microjobs_orchestrator.local.gateway.request_state import RequestState
from microjobs_orchestrator.local.protocols.protocol import get_protocol
from tests.local.clients import LocalServer, run_server


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def forwarding_server(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that forwards several services to moto, and the service `stepfunctions` to a closed port."""
    names = ("kms", "secretsmanager", "ssm", "sns", "events", "lambda", "dynamodb")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed_port_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    services = {**dict.fromkeys(names, moto), "stepfunctions": closed_port_url}
    with run_server(tmp_path_factory.mktemp("forwarding"), runtime="process", services=services) as server:
        yield server


def get_error(call: Callable[..., Any], **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error_info:
        call(**members)
    error = error_info.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.slow
def test_requests_are_forwarded_in_each_protocol(forwarding_server: LocalServer) -> None:
    """Use a service of each protocol: JSON, query and REST."""
    secrets = forwarding_server.client("secretsmanager")
    secrets.create_secret(Name="name", SecretString="größe")
    assert secrets.get_secret_value(SecretId="name")["SecretString"] == "größe"
    forwarding_server.client("dynamodb").create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    assert forwarding_server.client("dynamodb").list_tables()["TableNames"] == ["table"]
    topic = forwarding_server.client("sns").create_topic(Name="topic")["TopicArn"]
    assert [item["TopicArn"] for item in forwarding_server.client("sns").list_topics()["Topics"]] == [topic]
    key = forwarding_server.client("kms").create_key()["KeyMetadata"]["KeyId"]
    ciphertext = forwarding_server.client("kms").encrypt(KeyId=key, Plaintext=b"\x00\xff")["CiphertextBlob"]
    assert forwarding_server.client("kms").decrypt(CiphertextBlob=ciphertext)["Plaintext"] == b"\x00\xff"
    assert forwarding_server.client("lambda").list_functions()["Functions"] == []
    assert forwarding_server.client("events").list_rules()["Rules"] == []
    forwarding_server.client("ssm").put_parameter(Name="/a/b", Value="x", Type="String")
    (parameter,) = forwarding_server.client("ssm").get_parameters_by_path(Path="/", Recursive=True)["Parameters"]
    assert parameter["Value"] == "x"


def test_errors_of_the_emulator_reach_the_client(forwarding_server: LocalServer) -> None:
    code, _ = get_error(forwarding_server.client("secretsmanager").get_secret_value, SecretId="absent")
    assert code == "ResourceNotFoundException"
    code, _ = get_error(forwarding_server.client("sns").get_topic_attributes, TopicArn="arn:aws:sns:us-east-1:1:x")
    assert code == "NotFound"


def test_error_names_an_emulator_that_does_not_answer(forwarding_server: LocalServer) -> None:
    code, message = get_error(forwarding_server.client("stepfunctions").list_state_machines)
    assert code == "ServiceUnavailable"
    assert re.match(
        r"http://127\.0\.0\.1:\d+, the emulator for stepfunctions in \[local\.services\], does not respond: ", message
    )


def test_own_services_are_not_forwarded(forwarding_server: LocalServer) -> None:
    assert forwarding_server.client("sts").get_caller_identity()["Arn"].endswith(":user/microjobs")
    assert forwarding_server.client("s3").list_buckets()["Buckets"][0]["Name"] == forwarding_server.address.bucket


def test_service_without_an_address_names_the_setting(forwarding_server: LocalServer) -> None:
    code, message = get_error(forwarding_server.client("rds").describe_db_instances)
    assert code == "UnknownService"
    assert "[local.services] in microjobs.toml" in message


@pytest.mark.parametrize("key", ["right", "wrong"])
def test_only_signed_requests_are_forwarded(forwarding_server: LocalServer, key: str) -> None:
    secret = forwarding_server.address.secret_access_key if key == "right" else "wrong"
    client = boto3.client(
        "kms",
        endpoint_url=forwarding_server.address.url,
        region_name="us-east-1",
        aws_access_key_id=forwarding_server.address.access_key_id,
        aws_secret_access_key=secret,
        config=ClientConfig(retries={"total_max_attempts": 1}),
    )
    if key == "right":
        client.list_keys()
    else:
        assert get_error(client.list_keys)[0] == "InvalidSignatureException"


# --- forwarded requests and responses ---


class Emulator(BaseHTTPRequestHandler):
    """An emulator that records each request, and then calls the function `answer`, which sends the response."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, dict[str, str], bytes]]
    answer: Callable[["Emulator"], None]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        type(self).answer(self)

    def log_message(self, *_: object) -> None:
        """Do not log."""

    def reply(self, content: bytes, **headers: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def run_emulator(answer: Callable[[Emulator], None]) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """Run an emulator; yield its address, and the list to which it adds the path, headers and body of each request."""
    handler: type[Emulator] = type("Handler", (Emulator,), {"requests": [], "answer": staticmethod(answer)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/base", handler.requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_emulator_receives_no_credentials_of_the_server(tmp_path: Path) -> None:
    def answer(request: Emulator) -> None:
        request.reply(b'{"Keys": []}', Keep_Alive="timeout=5", X_Thing="1", Connection="x-hop", X_Hop="2")

    with (
        run_emulator(answer) as (url, requests),
        run_server(tmp_path, runtime="process", services={"*": url}) as server,
    ):
        credentials = server.client("sts").get_session_token()["Credentials"]
        session = boto3.Session(
            credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"], "eu-west-1"
        )
        kms = session.client("kms", endpoint_url=server.address.url)
        headers = kms.list_keys(Limit=3)["ResponseMetadata"]["HTTPHeaders"]
    ((path, sent_headers, body),) = requests
    assert (path, json.loads(body), sent_headers["x-amz-target"]) == ("/base/", {"Limit": 3}, "TrentService.ListKeys")
    assert "Credential=test/" in sent_headers["authorization"]
    assert "/eu-west-1/kms/aws4_request" in sent_headers["authorization"]
    assert "x-amz-security-token" not in sent_headers
    text = repr(sent_headers)
    assert not any(
        secret in text
        for secret in (credentials["AccessKeyId"], credentials["SessionToken"], server.address.access_key_id)
    )
    assert headers["x-thing"] == "1"
    assert not {"keep-alive", "x-hop"} & headers.keys()


def _send_too_much(request: Emulator) -> None:
    request.reply(b"x" * 2_000)


def _send_half(request: Emulator) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.end_headers()
    request.wfile.write(b"half")
    request.close_connection = True


def _send_invalid_http(request: Emulator) -> None:
    request.wfile.write(b"this is no HTTP\r\n\r\n")
    request.close_connection = True


def forward_request(services: dict[str, str]) -> None:
    """Forward a request for KMS to an emulator."""
    request = Request.from_values("/", method="POST", data=b"{}")
    request.environ["REQUEST_URI"] = "/"
    state = RequestState(request)
    state.protocol = get_protocol("json")
    state.claim = Claim("", "us-east-1", "kms", "", (), "")
    Forwarder(services).forward(state)


@pytest.mark.parametrize("answer", [_send_too_much, _send_half, _send_invalid_http])
def test_invalid_response_of_the_emulator_raises(
    answer: Callable[[Emulator], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MAX_RESPONSE_BYTES", 1_000)
    with (
        run_emulator(answer) as (url, _),
        pytest.raises(ServiceError, match=r"does not respond|answered with more than") as error_info,
    ):
        forward_request({"kms": url})
    assert error_info.value.code == "ServiceUnavailable"


@pytest.mark.parametrize("key", ["kms", "*"])
def test_error_names_the_key_of_the_setting(key: str) -> None:
    with (
        run_emulator(_send_half) as (url, _),
        pytest.raises(ServiceError, match=re.escape(f"{url}, the emulator for {key} in [local.services], does not")),
    ):
        forward_request({key: url})


# --- settings ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kms = 5000", "[local.services] 'kms' must be an address such as http://127.0.0.1:5000, not 5000"),
        ('kms = "127.0.0.1:5000"', "not '127.0.0.1:5000'"),
        ('kms = "file:///etc/passwd"', "not 'file:///etc/passwd'"),
        ('kms = "http://user:secret@host"', "[local.services] 'kms' must be an address"),
    ],
)
def test_invalid_address_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "microjobs.toml"
    path.write_text(f"[local.services]\n{text}\n")
    with pytest.raises(ConfigError, match=re.escape(reason)):
        load(path)


@pytest.mark.parametrize(
    ("service", "reason"),
    [("nonsense", "use boto3's names"), ("s3", "this server itself"), ("sagemaker-metrics", "itself")],
)
def test_service_that_cannot_be_forwarded_is_refused(service: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Forwarder({service: "http://127.0.0.1:1"})


def test_invalid_service_setting_is_reported_at_start(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"has 'nonsense', which is not a service"),
        run_server(tmp_path, runtime="process", services={"nonsense": "http://127.0.0.1:1"}),
    ):
        pass


def test_forwarded_services_are_converted_to_flags() -> None:
    assert "--service=kms=http://127.0.0.1:1" in Config(services={"kms": "http://127.0.0.1:1"}).to_flags()
