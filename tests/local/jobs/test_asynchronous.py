"""InvokeEndpointAsync: the container's requests, the queue, and the objects with results and failures."""

import errno
import json
import re
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from werkzeug import Response

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.endpoints import asynchronous, deployer, full_disk, notifications
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.s3.keys import parse_uri
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply, track_concurrency
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.polling import wait_until

LOG_GROUP = "/aws/sagemaker/Endpoints/e"
OUTPUT = {"S3OutputPath": "s3://bucket/out", "S3FailurePath": "s3://bucket/failed/"}
INPUT_HEADER, OUTPUT_HEADER, FAILURE_HEADER = (
    f"X-Amzn-SageMaker-{name}" for name in ("InputLocation", "OutputLocation", "FailureLocation")
)


@pytest.fixture
def invoke(parts: ServerParts, model: ImageBehaviour) -> Invoker:  # noqa: ARG001  the endpoint serves it
    deploy(parts)
    return Invoker(parts)


def deploy(parts: ServerParts, output: Mapping[str, Any] = OUTPUT, **client_config: int) -> None:
    parts.make_config("c", asynchronous={"OutputConfig": output, "ClientConfig": client_config})
    parts.start_endpoint()
    assert parts.wait_for_endpoint()["EndpointStatus"] == "InService"


def invoke_async(invoke: Invoker, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    response = invoke(body, path="async-invocations", **headers)
    assert response.status_code == 202
    return response


def read_refusal(invoke: Invoker, body: bytes, **request: str) -> str:
    return invoke.read_error(body=body, path="async-invocations", **request).message


def wait_for_object(parts: ServerParts, uri: str) -> tuple[str, bytes]:
    """Wait for an object; return its content type and its content."""
    stored_object = wait_until(lambda: _open(parts, uri))
    with stored_object.file as file:
        return stored_object.details.headers["ContentType"], file.read()


def _open(parts: ServerParts, uri: str) -> Any:
    try:
        return parts.context.store.open(*parse_uri(uri))
    except Exception:
        return None


def count_queued_invocations(parts: ServerParts) -> int:
    return len(asynchronous.list_queue(parts.context, "e"))


def test_response_is_stored_as_an_object(parts: ServerParts, invoke: Invoker, model: ImageBehaviour) -> None:
    model.invoke = lambda request: Reply(request.body.upper(), headers={"Content-Type": "text/csv"})
    response = invoke_async(invoke, headers={INPUT_HEADER: parts.put("in.csv", b"a,b")})
    uri = response.headers[OUTPUT_HEADER]
    name = uri.removeprefix("s3://bucket/out/").removesuffix(".out")
    assert response.headers[FAILURE_HEADER] == f"s3://bucket/failed/{name}-error.out"
    assert response.json == {"InferenceId": name}
    assert wait_for_object(parts, uri) == ("text/csv", b"A,B")
    wait_until(lambda: count_queued_invocations(parts) == 0)
    assert list(parts.context.store.list("bucket", "failed/")) == []


def test_container_receives_body_and_headers(parts: ServerParts, invoke: Invoker, model: ImageBehaviour) -> None:
    sent_headers = {
        "X-Amzn-SageMaker-Content-Type": "text/csv",
        "X-Amzn-SageMaker-Accept": "application/json",
        "X-Amzn-SageMaker-Custom-Attributes": "colour=blue",
        "X-Amzn-SageMaker-Inference-Id": "mine",
    }
    assert invoke_async(invoke, headers={INPUT_HEADER: parts.put("in", b"1,2"), **sent_headers}).json == {
        "InferenceId": "mine"
    }
    wait_until(lambda: model.requests)
    (request,) = model.requests
    assert (request.body, request.chunked) == (b"1,2", False)
    expected = {
        "Content-Type": "text/csv",
        "Accept": "application/json",
        "X-Amzn-SageMaker-Custom-Attributes": "colour=blue",
        "X-Amzn-SageMaker-Inference-Id": "mine",
    }
    assert expected.items() <= request.headers.items()


def test_content_type_comes_from_the_input_object(parts: ServerParts, invoke: Invoker, model: ImageBehaviour) -> None:
    invoke_async(invoke, headers={INPUT_HEADER: parts.put("in.json", b"{}")})
    wait_until(lambda: model.requests)
    assert model.requests[0].headers["Content-Type"] == "application/json"


def test_body_can_be_inline(parts: ServerParts, invoke: Invoker) -> None:
    response = invoke_async(invoke, b"inline")
    assert wait_for_object(parts, response.headers[OUTPUT_HEADER])[1] == b"inline"


def test_output_key_comes_from_the_request(parts: ServerParts, invoke: Invoker) -> None:
    headers = {"X-Amzn-SageMaker-S3OutputPathExtension": "mine/", "X-Amzn-SageMaker-Filename": "a.csv"}
    response = invoke_async(invoke, b"x", headers)
    assert response.headers[OUTPUT_HEADER] == "s3://bucket/out/mine/a.csv"
    assert response.headers[FAILURE_HEADER] == "s3://bucket/failed/mine/a.csv-error.out"
    assert wait_for_object(parts, "s3://bucket/out/mine/a.csv")[1] == b"x"


def test_model_error_is_stored_as_the_failure(parts: ServerParts, invoke: Invoker, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(b'{"error": "no such column"}', 400, {"Content-Type": "application/json"})
    response = invoke_async(invoke, b"x")
    assert wait_for_object(parts, response.headers[FAILURE_HEADER]) == (
        "application/json",
        b'{"error": "no such column"}',
    )
    assert parts.read_outputs() == {}
    (lines,) = parts.read_log(LOG_GROUP).values()
    assert any("failed: the model answered 400" in line for line in lines)


def test_missing_input_is_stored_as_the_failure(parts: ServerParts, invoke: Invoker) -> None:
    response = invoke_async(invoke, headers={INPUT_HEADER: "s3://bucket/nothing"})
    assert wait_for_object(parts, response.headers[FAILURE_HEADER]) == (
        "text/plain",
        b"The specified key does not exist: 'nothing'.",
    )


def test_response_timeout_is_stored_as_the_failure(parts: ServerParts, invoke: Invoker, model: ImageBehaviour) -> None:
    def respond_slowly(_: ReceivedRequest) -> Reply:
        time.sleep(1.5)
        return Reply(b"late")

    model.invoke = respond_slowly
    response = invoke_async(invoke, b"x", {"X-Amzn-SageMaker-InvocationTimeoutSeconds": "1"})
    assert (
        b"did not answer within 1 s (InvocationTimeoutSeconds)"
        in wait_for_object(parts, response.headers[FAILURE_HEADER])[1]
    )


def test_request_that_ends_the_container_is_not_repeated(
    parts: ServerParts, invoke: Invoker, model: ImageBehaviour
) -> None:
    def end_container(_: ReceivedRequest) -> Reply:
        parts.running_hosts[0].end(Exit(137))
        return Reply()

    model.invoke = end_container
    response = invoke_async(invoke, b"x")
    assert b"the container did not answer: " in wait_for_object(parts, response.headers[FAILURE_HEADER])[1]
    assert len(model.requests) == 1


def test_expired_request_is_stored_as_the_failure(parts: ServerParts, model: ImageBehaviour) -> None:
    deploy(parts)
    model.exit_at_start = Exit(1)
    parts.running_hosts[0].end(Exit(1))
    wait_until(lambda: len(parts.runtime.started_hosts) >= 2)
    queue = parts.registry.find("endpoint/e").queue  # type: ignore[union-attr]
    config = {"OutputConfig": OUTPUT}
    invocation = asynchronous.make_invocation(parts.context, config, {"RequestTTLSeconds": "0"}, b"x")
    queue.put(invocation)
    assert invocation.failure
    assert wait_for_object(parts, invocation.failure)[1] == b"the request waited longer than 0 s (RequestTTLSeconds)"


@pytest.fixture
def full_disk_errors(monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """Three errors of a full disk, for tests to raise. The server retries 0.01 s after each error."""
    monkeypatch.setattr(full_disk, "RETRY_SECONDS", 0.01)
    return [OSError(errno.ENOSPC, "No space left on device") for _ in range(3)]


def test_response_on_a_full_disk_is_stored_when_there_is_space(
    parts: ServerParts,
    invoke: Invoker,
    model: ImageBehaviour,
    monkeypatch: pytest.MonkeyPatch,
    full_disk_errors: list[OSError],
) -> None:
    store, put = parts.context.store, parts.context.store.put

    def fail_first_calls(*arguments: Any) -> Any:
        if full_disk_errors:
            raise full_disk_errors.pop()
        return put(*arguments)

    monkeypatch.setattr(store, "put", fail_first_calls)
    model.invoke = lambda request: Reply(request.body.upper())
    uri = invoke_async(invoke, b"x").headers[OUTPUT_HEADER]
    assert wait_for_object(parts, uri)[1] == b"X"
    wait_until(lambda: count_queued_invocations(parts) == 0)
    assert len(model.requests) == 1
    (lines,) = parts.read_log(LOG_GROUP).values()
    notes = [line for line in lines if ", because the disk " in line]
    assert ["is full" in line for line in notes] == [True, False]


def test_invocation_waits_for_space_for_its_response(
    parts: ServerParts,
    invoke: Invoker,
    monkeypatch: pytest.MonkeyPatch,
    full_disk_errors: list[OSError],
) -> None:
    store, new_file = parts.context.store, parts.context.store.new_file

    def fail_first_calls() -> Any:
        if full_disk_errors:
            raise full_disk_errors.pop()
        return new_file()

    monkeypatch.setattr(store, "new_file", fail_first_calls)
    uri = invoke_async(invoke, b"x").headers[OUTPUT_HEADER]
    assert wait_for_object(parts, uri)
    wait_until(lambda: count_queued_invocations(parts) == 0)


def test_closed_queue_does_not_wait_for_space(
    parts: ServerParts, invoke: Invoker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_failed = threading.Event()

    def fail(*_: Any) -> Any:
        put_failed.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parts.context.store, "put", fail)
    monkeypatch.setattr(full_disk, "RETRY_SECONDS", 1000.0)
    invoke_async(invoke, b"x")
    assert put_failed.wait(10)
    endpoint = parts.registry.find("endpoint/e")
    assert isinstance(endpoint, Endpoint)
    endpoint.queue.close()
    assert count_queued_invocations(parts) == 1


@pytest.mark.usefixtures("model")
def test_failure_without_failure_path_is_only_logged(parts: ServerParts) -> None:
    deploy(parts, {"S3OutputPath": "s3://bucket/out"})
    response = invoke_async(Invoker(parts), headers={INPUT_HEADER: "s3://bucket/nothing"})
    assert FAILURE_HEADER not in response.headers
    (name,) = parts.read_log(LOG_GROUP)
    wait_until(lambda: any("key does not exist" in line for line in parts.read_log(LOG_GROUP)[name]))
    wait_until(lambda: count_queued_invocations(parts) == 0)


def test_concurrency_follows_the_configuration(parts: ServerParts, model: ImageBehaviour) -> None:
    counts = track_concurrency(model)
    deploy(parts, MaxConcurrentInvocationsPerInstance=3)
    for _ in range(12):
        invoke_async(Invoker(parts), b"x")
    wait_until(lambda: count_queued_invocations(parts) == 0)
    assert (max(counts), len(parts.read_outputs())) == (3, 12)


def test_restarted_server_resumes_the_queue(parts: ServerParts, model: ImageBehaviour) -> None:
    released = threading.Event()

    def answer_when_released(request: ReceivedRequest) -> Reply:
        released.wait(20)
        return Reply(request.body)

    earlier_threads = set(threading.enumerate())
    deploy(parts, MaxConcurrentInvocationsPerInstance=2)
    model.invoke = answer_when_released
    uris = [invoke_async(Invoker(parts), b"%d" % number).headers[OUTPUT_HEADER] for number in range(5)]
    wait_until(lambda: len(model.requests) == 2)
    parts.registry.shut_down()
    assert count_queued_invocations(parts) == 5
    new_threads = set(threading.enumerate()) - earlier_threads
    assert [thread.name for thread in new_threads if thread.name.startswith("async e")] == []
    released.set()
    restarted_parts = parts.restart()
    assert [wait_for_object(restarted_parts, uri)[1] for uri in uris] == [b"0", b"1", b"2", b"3", b"4"]
    wait_until(lambda: count_queued_invocations(restarted_parts) == 0)
    restarted_parts.close()


def test_update_loses_no_invocation(parts: ServerParts, invoke: Invoker, model: ImageBehaviour) -> None:
    (old_host,) = parts.running_hosts
    new_host_responds = threading.Event()

    def respond_after_the_new_host(request: ReceivedRequest) -> Reply:
        if request.host == old_host.name:
            assert new_host_responds.wait(20)
        else:
            new_host_responds.set()
        return Reply(request.body)

    model.invoke = respond_after_the_new_host
    uris = [invoke_async(invoke, b"%d" % number).headers[OUTPUT_HEADER] for number in range(60)]
    parts.make_config(
        "d", asynchronous={"OutputConfig": OUTPUT, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 8}}
    )
    parts.update_endpoint("d")
    parts.wait_for_endpoint()
    wait_until(lambda: count_queued_invocations(parts) == 0)
    assert [wait_for_object(parts, uri)[1] for uri in uris] == [b"%d" % number for number in range(60)]
    assert len({request.host for request in model.requests}) == 2


def test_update_repeats_interrupted_invocation(
    parts: ServerParts, invoke: Invoker, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer, "DRAIN_TIMEOUT", 0.1)
    (old_host,) = parts.running_hosts

    def block_in_old_container(request: ReceivedRequest) -> Reply:
        if request.host == old_host.name:
            old_host._ended.wait(20)
        return Reply(request.host.encode())

    model.invoke = block_in_old_container
    uri = invoke_async(invoke, b"x").headers[OUTPUT_HEADER]
    wait_until(lambda: model.requests)
    parts.make_config("d", asynchronous={"OutputConfig": OUTPUT})
    parts.update_endpoint("d")
    host_name = wait_for_object(parts, uri)[1].decode()
    assert host_name == parts.running_hosts[0].name != old_host.name


def test_deletion_deletes_the_queue(parts: ServerParts, invoke: Invoker, model: ImageBehaviour) -> None:
    released = threading.Event()
    model.invoke = lambda _: Reply(str(released.wait(20)).encode())
    for _ in range(6):
        invoke_async(invoke, b"x")
    wait_until(lambda: len(model.requests) == asynchronous.DEFAULT_CONCURRENCY)
    parts.delete_endpoint()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None)
    released.set()
    assert (count_queued_invocations(parts), parts.read_outputs()) == (0, {})


def test_stopped_queue_refuses_invocations(parts: ServerParts, invoke: Invoker) -> None:
    endpoint = parts.registry.find("endpoint/e")
    assert isinstance(endpoint, Endpoint)
    endpoint.queue.stop()
    assert invoke.read_error(path="async-invocations").code == "ServiceUnavailable"
    assert count_queued_invocations(parts) == 0


def test_describe_returns_async_inference_config(parts: ServerParts, invoke: Invoker) -> None:  # noqa: ARG001
    assert parts.describe_endpoint()["AsyncInferenceConfig"]["OutputConfig"] == OUTPUT


def test_configuration_decides_which_invocation_operation_an_endpoint_accepts(
    parts: ServerParts, invoke: Invoker
) -> None:
    assert invoke.read_error().message == "Endpoint e has an AsyncInferenceConfig: invoke it with InvokeEndpointAsync."
    parts.make_config("plain")
    parts.start_endpoint("plain", "plain")
    parts.wait_for_endpoint("plain")
    assert "invoke it with InvokeEndpoint." in read_refusal(invoke, b"x", name="plain")


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"", {}, "Provide exactly one of Body and InputLocation, not neither."),
        (b"x", {INPUT_HEADER: "s3://bucket/in"}, "Provide exactly one of Body and InputLocation, not both."),
        (b"x" * 128_001, {}, "Member body must have length less than or equal to 128000"),
        (b"", {INPUT_HEADER: "nowhere"}, "at 'inputLocation' failed to satisfy constraint"),
        (b"x", {"X-Amzn-SageMaker-InvocationTimeoutSeconds": "3601"}, "value less than or equal to 3600"),
        (b"x", {"X-Amzn-SageMaker-RequestTTLSeconds": "soon"}, "RequestTTLSeconds is 'soon'; its type must be integer"),
        (b"x", {"X-Amzn-SageMaker-S3OutputPathExtension": "../up"}, "S3OutputPath s3://bucket/out: "),
    ],
)
def test_invalid_invocation_is_refused(invoke: Invoker, body: bytes, headers: dict[str, str], reason: str) -> None:
    assert reason in read_refusal(invoke, body, **headers)


def test_missing_bucket_for_failures_is_refused(parts: ServerParts) -> None:
    parts.make_model()
    with pytest.raises(ValidationError, match="S3FailurePath s3://nowhere/x: The specified bucket does not exist"):
        parts.make_config("c", asynchronous={"OutputConfig": {**OUTPUT, "S3FailurePath": "s3://nowhere/x"}})


# --- notifications ---

TOPICS = {
    "SuccessTopic": "arn:aws:sns:us-east-1:000000000000:done",
    "ErrorTopic": "arn:aws:sns:us-east-1:000000000000:bad",
}


def collect_messages(parts: ServerParts) -> list[tuple[str, dict[str, Any]]]:
    """Return a list to which each notification is appended, with the name of its topic."""
    messages: list[tuple[str, dict[str, Any]]] = []
    parts.context.state.publish = lambda topic, message: messages.append((topic.rpartition(":")[2], dict(message)))
    return messages


def test_success_is_published(parts: ServerParts, model: ImageBehaviour) -> None:
    messages = collect_messages(parts)
    model.invoke = lambda _: Reply(b"42", headers={"Content-Type": "text/csv"})
    inclusion = {"IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"]}
    deploy(parts, {**OUTPUT, "NotificationConfig": {**TOPICS, **inclusion}})
    source = parts.put("in/x.csv", b"1,2")
    headers = {INPUT_HEADER: source, "X-Amzn-SageMaker-Content-Type": "text/csv"}
    response = invoke_async(Invoker(parts), headers=headers)
    topic, message = wait_until(lambda: messages)[0]
    times = {message.pop(name) for name in ("eventTime", "receivedTime")}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text) for text in times)
    assert topic == "done"
    assert message == {
        "awsRegion": "us-east-1",
        "invocationStatus": "Completed",
        "requestParameters": {"endpointName": "e", "contentType": "text/csv", "inputLocation": source},
        "responseParameters": {"contentType": "text/csv", "outputLocation": response.headers[OUTPUT_HEADER]},
        "responseBody": {"content": "42", "encoding": "UTF-8"},
        "inferenceId": json.loads(response.data)["InferenceId"],
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }


def test_failure_is_published_without_the_response(parts: ServerParts, model: ImageBehaviour) -> None:
    messages = collect_messages(parts)
    model.invoke = lambda _: Reply(b"bad row", 400)
    deploy(parts, {**OUTPUT, "NotificationConfig": TOPICS})
    invoke_async(Invoker(parts), b"1,2")
    topic, message = wait_until(lambda: messages)[0]
    assert (topic, message["invocationStatus"]) == ("bad", "Failed")
    assert message["failureReason"] == 'the model answered 400: "bad row"'
    assert message.keys().isdisjoint({"responseBody", "responseParameters"})


def test_large_response_is_not_in_the_notification(parts: ServerParts, model: ImageBehaviour) -> None:
    messages = collect_messages(parts)
    model.invoke = lambda _: Reply(b"x" * (notifications.MAX_INCLUDED_BYTES + 1))
    inclusion = {"IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"]}
    deploy(parts, {**OUTPUT, "NotificationConfig": {**TOPICS, **inclusion}})
    invoke_async(Invoker(parts), b"1,2")
    ((_, message),) = wait_until(lambda: messages)
    assert message["invocationStatus"] == "Completed"
    assert "responseBody" not in message


def test_endpoint_without_topics_publishes_nothing(parts: ServerParts, invoke: Invoker) -> None:
    messages = collect_messages(parts)
    response = invoke_async(invoke, b"1")
    wait_for_object(parts, response.headers[OUTPUT_HEADER])
    wait_until(lambda: asynchronous.list_queue(parts.context, "e") == [])
    assert messages == []
