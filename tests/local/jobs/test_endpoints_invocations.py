"""InvokeEndpoint: the request to the container, the response to the client, and errors."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug import Response
from werkzeug.test import Client, EnvironBuilder

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.chain import Gateway, list_operation_interceptors
from microjobs_orchestrator.local.gateway.request_state import RequestState
from microjobs_orchestrator.local.protocols.protocol import get_protocol
from microjobs_orchestrator.local.resources.endpoints import deployer
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.services import sagemaker_runtime
from microjobs_orchestrator.local.services.sagemaker_runtime import EndpointInvoker
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply, return_body
from tests.polling import wait_until


class Invoker:
    """A client of SageMaker Runtime, without signatures and without a listener."""

    def __init__(self, parts: ServerParts) -> None:
        service = EndpointInvoker(parts.context, parts.registry).list_handlers()
        self.gateway = Gateway([self._choose_service, *list_operation_interceptors({"sagemaker-runtime": service})])

    def _choose_service(self, state: RequestState) -> None:
        state.service, state.protocol = "sagemaker-runtime", get_protocol("rest-json")

    def __call__(self, body: bytes = b"x", name: str = "e", path: str = "invocations", **headers: str) -> Response:
        response = self._send(body, name, path, headers)
        if response.status_code >= 400:
            content = json.loads(response.data)
            raise ServiceError(
                response.headers["x-amzn-ErrorType"], content.get("message") or content["Message"], response.status_code
            )
        return response

    def _send(self, body: bytes, name: str, path: str, headers: Mapping[str, str]) -> Response:
        header_items = [(header.replace("_", "-"), value) for header, value in headers.items()]
        builder = EnvironBuilder(f"/endpoints/{name}/{path}", method="POST", data=body, headers=header_items)
        return Client(self.gateway).open(builder)

    def read_error(self, **request: Any) -> ServiceError:
        with pytest.raises(ServiceError) as caught:
            self(**request)
        return caught.value

    def read_model_error(self, body: bytes = b"x", path: str = "invocations", **headers: str) -> dict[str, Any]:
        response = self._send(body, "e", path, headers)
        assert (response.status_code, response.headers["x-amzn-ErrorType"]) == (424, "ModelError")
        content: dict[str, Any] = json.loads(response.data)
        return content


@pytest.fixture
def invoke(parts: ServerParts, model: ImageBehaviour) -> Invoker:  # noqa: ARG001  endpoint `e` serves it
    parts.deploy()
    return Invoker(parts)


def test_container_receives_body_and_headers(invoke: Invoker, model: ImageBehaviour) -> None:
    sent_headers = {
        "Content-Type": "text/csv",
        "Accept": "application/json",
        "X-Amzn-SageMaker-Custom-Attributes": "colour=blue",
        "X-Amzn-SageMaker-Inference-Id": "one",
        "X-Amzn-SageMaker-Session-Id": "NEW_SESSION",
    }
    assert invoke(b"1,2\n", **sent_headers).data == b"1,2\n"
    (request,) = model.requests
    assert request.body == b"1,2\n"
    assert sent_headers.items() <= request.headers.items()


def test_signature_headers_are_not_forwarded(invoke: Invoker, model: ImageBehaviour) -> None:
    invoke(Authorization="AWS4-HMAC-SHA256 …", X_Amz_Date="20260131T235959Z", Cookie="a=b")
    assert not {"Authorization", "X-Amz-Date", "Cookie"} & set(model.requests[0].headers)


def test_client_receives_response_and_headers(invoke: Invoker, model: ImageBehaviour) -> None:
    container_headers = {"X-Amzn-SageMaker-Custom-Attributes": "seen", "Content-Type": "text/csv", "Server": "mine"}
    model.invoke = lambda _: Reply(b"3\n", 201, container_headers)
    response = invoke()
    assert (response.status_code, response.data) == (201, b"3\n")
    assert response.headers["Content-Type"] == "text/csv"
    assert response.headers["x-Amzn-Invoked-Production-Variant"] == "main"
    assert response.headers["X-Amzn-SageMaker-Custom-Attributes"] == "seen"
    assert "Server" not in response.headers


@pytest.mark.parametrize(
    ("status", "error_text"),
    [(400, "client error (400)"), *((status, f"server error ({status})") for status in (500, 502, 503, 504))],
)
def test_container_error_is_a_model_error(invoke: Invoker, model: ImageBehaviour, status: int, error_text: str) -> None:
    model.invoke = lambda _: Reply(b"no such column", status)
    assert invoke.read_model_error() == {
        "Message": f'Received {error_text} from primary with message "no such column". '
        "See /aws/sagemaker/Endpoints/e in account 000000000000 for more information.",
        "OriginalStatusCode": status,
        "OriginalMessage": "no such column",
        "LogStreamArn": "arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/Endpoints/e",
    }


@pytest.mark.parametrize(
    ("timeout_name", "path"),
    [("RESPONSE_TIMEOUT", "invocations"), ("STREAM_TIMEOUT", "invocations-response-stream")],
)
def test_slow_container_is_a_model_error(
    invoke: Invoker, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch, timeout_name: str, path: str
) -> None:
    def respond_slowly(_: ReceivedRequest) -> Reply:
        time.sleep(0.5)
        return Reply()

    monkeypatch.setattr(sagemaker_runtime, timeout_name, 0.1)
    model.invoke = respond_slowly
    error = invoke.read_model_error(path=path)
    assert error["OriginalStatusCode"] == 0
    assert "timed out while waiting for a response from container primary. The time limit is 0.1 s." in error["Message"]
    wait_until(lambda: model.requests)
    assert len(model.requests) == 1


def test_response_without_its_end_is_a_model_error(parts: ServerParts, invoke: Invoker, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(chunks=end_in_the_middle())

    def end_in_the_middle() -> Iterator[bytes]:
        yield b"half"
        parts.running_hosts[0].end(Exit(137))

    error = invoke.read_model_error()
    assert error["OriginalStatusCode"] == 500
    assert "closed the connection before the end of its response" in error["Message"]


def test_oversized_response_is_a_model_error(invoke: Invoker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sagemaker_runtime, "MAX_RESPONSE_BYTES", 10)
    assert "more than 10 bytes" in invoke.read_model_error(body=b"x" * 11)["Message"]
    assert invoke(b"x" * 10).data == b"x" * 10


def test_oversized_request_is_a_validation_error(invoke: Invoker, model: ImageBehaviour) -> None:
    limit = 25 << 20
    error = invoke.read_error(body=bytes(limit + 1))
    assert (error.code, model.requests) == ("ValidationError", [])
    assert len(invoke(bytes(limit)).data) == limit


def test_request_that_ends_the_container_is_a_model_error(
    parts: ServerParts, invoke: Invoker, model: ImageBehaviour
) -> None:
    def end_container(_: ReceivedRequest) -> Reply:
        model.ping = 503  # the next container does not serve before the assertions
        parts.running_hosts[0].end(Exit(1))
        return Reply()

    model.invoke = end_container
    assert "could not get a response from the primary endpoint" in invoke.read_model_error()["Message"]
    error = invoke.read_error()  # SDKs retry after this error
    assert (error.code, error.status) == ("ServiceUnavailable", 503)
    model.invoke, model.ping = return_body, 200
    wait_until(lambda: parts.running_hosts)
    assert wait_until(lambda: read_response(invoke)) == b"x"


def read_response(invoke: Invoker) -> bytes:
    """Return the body of the response; empty after an error."""
    try:
        return bytes(invoke().data)
    except ServiceError:
        return b""


def test_missing_endpoint_is_a_validation_error(invoke: Invoker) -> None:
    error = invoke.read_error(name="other")
    assert (error.code, error.message) == ("ValidationError", "Endpoint other of account 000000000000 not found.")


def test_error_names_status_of_endpoint_not_in_service(parts: ServerParts, model: ImageBehaviour) -> None:
    model.ping = 503
    parts.make_config()
    parts.start_endpoint()
    assert "is Creating: it must be InService" in Invoker(parts).read_error().message


@pytest.mark.slow
def test_restarted_server_answers_503_until_it_has_resumed_the_endpoint(
    parts: ServerParts, model: ImageBehaviour
) -> None:
    parts.deploy()
    model.ping = 503
    restarted_parts = parts.restart()
    error = Invoker(restarted_parts).read_error()
    assert (error.code, error.status) == ("ServiceUnavailable", 503)
    model.ping = 200
    assert wait_until(lambda: read_response(Invoker(restarted_parts))) == b"x"
    restarted_parts.close()


def test_target_variant_responds(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001
    parts.deploy(one={"InitialVariantWeight": 1.0}, two={"InitialVariantWeight": 0.0})
    response = Invoker(parts)(X_Amzn_SageMaker_Target_Variant="two")
    assert response.headers["x-Amzn-Invoked-Production-Variant"] == "two"
    assert "no production variant three" in Invoker(parts).read_error(X_Amzn_SageMaker_Target_Variant="three").message


def test_weights_distribute_requests(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001
    parts.deploy(
        one={"InitialVariantWeight": 9.0}, two={"InitialVariantWeight": 1.0}, never={"InitialVariantWeight": 0}
    )
    endpoint = parts.registry.find("endpoint/e")
    assert isinstance(endpoint, Endpoint)
    counts = Counter(replica.variant for _ in range(2000) if (replica := endpoint.choose_replica()))
    assert counts.keys() == {"one", "two"}
    assert 1700 < counts["one"] < 1900


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("X_Amzn_SageMaker_Target_Model", "is not a multi-model endpoint and does not support target model header"),
        ("X_Amzn_SageMaker_Inference_Component", "Inference Component a of account 000000000000 not found"),
        ("X_Amzn_SageMaker_Target_Variant", "at 'targetVariant' failed to satisfy constraint"),
    ],
)
def test_invalid_target_is_refused(invoke: Invoker, header: str, reason: str) -> None:
    value = "a b" if "Variant" in header else "a"
    error = invoke.read_error(**{header: value})
    assert error.code == "ValidationError"
    assert reason in error.message


def test_request_interrupted_by_an_update_goes_to_the_new_container(
    parts: ServerParts, invoke: Invoker, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer, "DRAIN_TIMEOUT", 0.1)
    (old_host,) = parts.running_hosts

    def respond_after_the_end(request: ReceivedRequest) -> Reply:
        if request.host == old_host.name:
            wait_until(lambda: old_host.has_ended)
        return Reply(request.body)

    model.invoke = respond_after_the_end
    parts.make_config("d", second={})
    with ThreadPoolExecutor() as pool:
        response = pool.submit(invoke)
        wait_until(lambda: model.requests)
        parts.update_endpoint("d")
        assert response.result(10).data == b"x"
    assert [request.host == old_host.name for request in model.requests] == [True, False]


def test_update_loses_no_request(parts: ServerParts, invoke: Invoker) -> None:
    parts.make_config("d", second={})
    stop = threading.Event()

    def invoke_until_stopped() -> set[bytes]:
        bodies = set()
        while not stop.is_set():
            bodies.add(invoke().data)
        return bodies

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(invoke_until_stopped) for _ in range(4)]
        parts.update_endpoint("d")
        parts.wait_for_endpoint()
        wait_until(lambda: len(parts.runtime.hosts) == 1)
        stop.set()
        assert [client.result() for client in clients] == [{b"x"}] * 4
