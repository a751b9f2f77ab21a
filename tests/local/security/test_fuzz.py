"""Generated requests to a real server: each response must be one that AWS could send.

The environment variable FUZZ_REQUESTS sets the number of requests for each family of operations. Another FUZZ_SEED
generates other requests.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException
from xml.etree import ElementTree

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.model import Shape, StructureShape
from botocore.parsers import ResponseParserError, create_parser
from hypothesis import HealthCheck, Phase, given, seed, settings

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer
from tests.local.security.families import BASE_MEMBERS, FAMILIES
from tests.local.security.hosting_requests import create_endpoints
from tests.local.security.requests import Request
from tests.local.security.stub_runner import run_stub_server
from tests.local.security.wire import Response, Sender

REQUEST_COUNT = int(os.environ.get("FUZZ_REQUESTS", "100"))
SEED = int(os.environ.get("FUZZ_SEED", "20261122"))

PROTOCOLS = {
    "application/cbor": "smithy-rpc-v2-cbor",
    "application/x-amz-json-1.1": "json",
    "application/xml": "rest-xml",
    "text/xml": "query",
}
"""Protocols by the content type of responses."""
EVENT_STREAM = "application/vnd.amazon.eventstream"

NO_MEMBERS = StructureShape("Nothing", {"type": "structure", "members": {}})

MAX_VIOLATIONS = 15
"""Number of different violations after which the test sends no more requests."""


@pytest.fixture(scope="module")
def stub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server for all families, with an endpoint of each kind."""
    with run_stub_server(tmp_path_factory.mktemp("fuzz") / "home") as server:
        server.sagemaker.create_model(ModelName="a", **BASE_MEMBERS["CreateModel"])
        create_endpoints(server)
        yield server


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.timeout(3600)
def test_generated_request_gets_a_response_that_aws_could_send(stub_server: LocalServer, family: str) -> None:
    print(f"FUZZ_SEED={SEED} FUZZ_REQUESTS={REQUEST_COUNT}")
    sender, requests_by_violation, response_counts = Sender(stub_server.address), dict[str, Request](), Counter[str]()

    @seed(SEED)
    @settings(
        max_examples=REQUEST_COUNT,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(FAMILIES[family]())
    def send(request: Request) -> None:
        if len(requests_by_violation) >= MAX_VIOLATIONS:
            return
        try:
            answer = sender.send_signed(request.service, request.method, request.target, request.headers, request.body)
            response_counts[f"{answer.status} {get_error_code(answer)}"] += 1
            violation = describe_violation(request, answer)
        except (OSError, HTTPException) as error:
            sender.close()
            violation = f"{request.operation.name}: no answer: {error!r}"
        if violation:
            requests_by_violation[violation] = request

    start_time = time.monotonic()
    with closing(sender):
        send()
    frequent_responses = dict(response_counts.most_common(12))
    print(f"{family}: {sum(response_counts.values())} in {time.monotonic() - start_time:.0f} s; {frequent_responses}")
    assert control.find_server(stub_server.home) is not None
    log = stub_server.home.server_log.read_text(errors="replace")
    assert not requests_by_violation, "\n\n".join(
        f"{violation}\n  {request!r:.1500}" for violation, request in requests_by_violation.items()
    )
    traceback_offset = log.find("Traceback")
    assert traceback_offset < 0, log[max(0, traceback_offset - 500) : traceback_offset + 4000]
    assert " ERROR " not in log, log[-4000:]


def describe_violation(request: Request, answer: Response) -> str:
    """Return why AWS could not have sent a response; empty if AWS could have sent it."""
    is_head = request.method == "HEAD"  # the response has no body
    if answer.status >= 500 and get_error_code(answer) not in ("NotImplemented", "ServiceUnavailable") and not is_head:
        return f"{request.operation.name}: status {answer.status}: {answer.body[:150]!r}"
    if answer.status >= 400:
        return (
            ""
            if is_head or get_error_code(answer)
            else f"{request.operation.name}: not an AWS error: {answer.body[:100]!r}"
        )
    if answer.status >= 300:
        return "" if answer.status == 304 else f"{request.operation.name}: status {answer.status}"
    is_readable = is_head or _is_readable(request, answer)
    return "" if is_readable else f"{request.operation.name}: not readable: {answer.body!r:.200}"


def get_error_code(answer: Response) -> str:
    """Return the error code in a response: "ok" without an error, empty if code or message is missing."""
    if answer.status < 400:
        return "ok"
    try:
        if answer.body and answer.headers.get("content-type") == "application/cbor":
            response = {"headers": answer.headers, "status_code": answer.status, "body": answer.body}
            return str(create_parser("smithy-rpc-v2-cbor").parse(response, NO_MEMBERS)["Error"]["Code"])
        if answer.body.startswith(b"{"):
            content = json.loads(answer.body)
            has_message = bool(content.get("message") or content.get("Message"))
            return answer.headers["x-amzn-errortype"] if has_message else ""
        root = ElementTree.fromstring(answer.body)  # noqa: S314  our own server's
        error = root.find("Error") if root.tag == "ErrorResponse" else root
        texts = ["" if error is None else error.findtext(name) or "" for name in ("Code", "Message")]
        return texts[0] if all(texts) else ""
    except (ValueError, KeyError, ElementTree.ParseError):
        return ""


def _is_readable(request: Request, answer: Response) -> bool:
    """Return whether botocore can parse the response for the operation of the request.

    Responses in an unknown format, of another operation, or with a blob as their body count as readable.
    """
    service, shape = request.operation.service_model, request.operation.output_shape
    if answer.headers.get("content-type") == EVENT_STREAM:
        return _is_event_stream(answer.body)
    protocol = PROTOCOLS.get(answer.headers.get("content-type", ""))
    target = f"{service.metadata.get('targetPrefix')}.{request.operation.name}"
    is_other_operation = protocol == "json" and request.headers.get("X-Amz-Target") != target
    if shape is None or protocol is None or is_other_operation or _has_blob(shape):
        return True
    response = {"headers": answer.headers, "status_code": answer.status, "body": answer.body, "context": {}}
    try:
        return isinstance(create_parser(protocol).parse(response, shape), dict)
    except ResponseParserError:
        return False


def _has_blob(shape: Shape) -> bool:
    """Return whether the body of the response is a blob. A blob, such as a container's response, can have any type."""
    payload = shape.serialization.get("payload")
    return isinstance(shape, StructureShape) and payload is not None and shape.members[payload].type_name == "blob"


def _is_event_stream(body: bytes) -> bool:
    """Return whether botocore can parse all events of a response stream."""
    stream = EventStreamBuffer()
    stream.add_data(body)
    try:
        size = sum(event.prelude.total_length for event in stream)  # type: ignore[attr-defined]  # the stubs are wrong
    except ParserError:
        return False
    return size == len(body)
