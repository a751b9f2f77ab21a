"""Tests of endpoints whose containers break the contract, with a real engine and a real client."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.conftest import build_image_from_job
from tests.local.clients import SHELL_IMAGE, LocalServer, make_unique_name
from tests.local.test_hosting import make_config, wait_for_endpoint
from tests.polling import wait_until

pytestmark = pytest.mark.engine

PROGRAM = """
import http.server, os, signal

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        command = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if command.isdigit():
            self.answer(b"the model is busy", int(command))
        elif command == "large":
            self.answer(bytes((25 << 20) + 1))
        elif command == "no-http":
            self.wfile.write(b"oops")
            self.close_connection = True
        elif command in ("cut", "exit"):
            self.begin(200, 100)
            self.wfile.write(b"half")
            self.close_connection = True
            if command == "exit":
                os._exit(9)
        else:
            self.answer(command.encode())

    def answer(self, body, status=200):
        self.begin(status, len(body))
        self.wfile.write(body)

    def begin(self, status, length):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
"""The program of a container. A request contains a command: the status of the response, or a way to break the contract.
The container returns all other requests unchanged."""


@pytest.fixture(scope="module")
def endpoint(server: LocalServer) -> Iterator[str]:
    name = make_unique_name("misbehaving")
    with build_image_from_job(SHELL_IMAGE, f"ENTRYPOINT {json.dumps(['python3', '-c', PROGRAM])}") as image:
        container, role = {"Image": image}, server.address.role_arn
        server.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
        server.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=make_config(server, name))
        assert wait_for_endpoint(server, name)["EndpointStatus"] == "InService"
        yield name
        server.sagemaker.delete_endpoint(EndpointName=name)
        server.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})


def invoke(server: LocalServer, endpoint: str, command: str) -> bytes:
    body: bytes = server.client("sagemaker-runtime").invoke_endpoint(EndpointName=endpoint, Body=command)["Body"].read()
    return body


def read_error(server: LocalServer, endpoint: str, command: str) -> Any:
    with pytest.raises(ClientError) as error:
        invoke(server, endpoint, command)
    return error.value.response


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        *((str(status), status, "the model is busy") for status in (400, 500, 502, 503, 504)),
        ("large", 500, "more than 26214400 bytes"),
        ("cut", 500, "closed the connection before the end of its response"),
        ("no-http", 500, "the response is not valid HTTP"),
    ],
)
def test_error_status_or_broken_response_is_a_model_error(
    server: LocalServer, endpoint: str, command: str, status: int, message: str
) -> None:
    error = read_error(server, endpoint, command)
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("ModelError", 424)
    assert error["OriginalStatusCode"] == status
    assert message in error["OriginalMessage"]
    assert invoke(server, endpoint, "hello") == b"hello"


def test_broken_response_stream_is_a_stream_error(server: LocalServer, endpoint: str) -> None:
    runtime = server.client("sagemaker-runtime")
    response = runtime.invoke_endpoint_with_response_stream(EndpointName=endpoint, Body=b"cut")
    with closing(response["Body"]) as stream:
        events = iter(stream)
        assert next(events)["PayloadPart"]["Bytes"] == b"half"
        with pytest.raises(EventStreamError, match=r"ModelStreamError.*StreamBroken"):
            next(events)


def test_container_that_exits_during_a_request_is_replaced(server: LocalServer, endpoint: str) -> None:
    error = read_error(server, endpoint, "exit")
    assert "closed the connection before the end of its response" in error["OriginalMessage"]
    assert wait_until(lambda: is_responding(server, endpoint), bool)
    lines = [
        line for stream in server.read_log_streams(f"/aws/sagemaker/Endpoints/{endpoint}").values() for line in stream
    ]
    assert any("the container ended by itself" in line and "Exit code: 9" in line for line in lines), lines


def is_responding(server: LocalServer, endpoint: str) -> bool:
    try:
        return invoke(server, endpoint, "again") == b"again"
    except ClientError:
        return False
