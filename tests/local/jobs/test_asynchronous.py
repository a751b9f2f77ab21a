"""InvokeEndpointAsync: what is queued, what becomes of it, and that nothing of it is lost."""

import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from werkzeug import Response

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.endpoints import asynchronous
from microjobs_orchestrator.local.resources.endpoints import endpoint as endpoints
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.s3.keys import parse_uri
from tests.local.jobs.conftest import ServerParts, wait_until
from tests.local.jobs.fakes import Asked, Model, Reply, watched
from tests.local.jobs.test_endpoints_invocations import Invoker

GROUP = "/aws/sagemaker/Endpoints/e"
OUTPUT = {"S3OutputPath": "s3://bucket/out", "S3FailurePath": "s3://bucket/failed/"}
INPUT, OUTPUT_AT, FAILURE_AT = (
    f"X-Amzn-SageMaker-{name}" for name in ("InputLocation", "OutputLocation", "FailureLocation")
)


@pytest.fixture
def invoke(parts: ServerParts, model: Model) -> Invoker:  # noqa: ARG001  the endpoint serves it
    serve(parts)
    return Invoker(parts)


def serve(parts: ServerParts, output: dict[str, str] = OUTPUT, **client: int) -> None:
    parts.make_config("c", {"OutputConfig": output, "ClientConfig": client})
    parts.start_endpoint()
    assert parts.settled()["EndpointStatus"] == "InService"


def ask(invoke: Invoker, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    response = invoke(body, path="async-invocations", **headers)
    assert response.status_code == 202
    return response


def refusal(invoke: Invoker, body: bytes, **request: str) -> str:
    return invoke.refused(body=body, path="async-invocations", **request).message


def content(parts: ServerParts, uri: str) -> tuple[str, bytes]:
    """An object, when it is there, and its content type."""
    opened = wait_until(lambda: _opened(parts, uri))
    with opened.file as file:
        return opened.details.headers["ContentType"], file.read()


def _opened(parts: ServerParts, uri: str) -> Any:
    try:
        return parts.context.store.open(*parse_uri(uri))
    except Exception:
        return None


def queued(parts: ServerParts) -> int:
    return len(asynchronous.list_queue(parts.context, "e"))


def test_answer_becomes_an_object(parts: ServerParts, invoke: Invoker, model: Model) -> None:
    model.invoke = lambda asked: Reply(asked.body.upper(), headers={"Content-Type": "text/csv"})
    response = ask(invoke, headers={INPUT: parts.put("in.csv", b"a,b")})
    where = response.headers[OUTPUT_AT]
    name = where.removeprefix("s3://bucket/out/").removesuffix(".out")
    assert response.headers[FAILURE_AT] == f"s3://bucket/failed/{name}-error.out"
    assert response.json == {"InferenceId": name}
    assert content(parts, where) == ("text/csv", b"A,B")
    wait_until(lambda: queued(parts) == 0)
    assert list(parts.context.store.list("bucket", "failed/")) == []


def test_container_gets_the_body_and_its_headers(parts: ServerParts, invoke: Invoker, model: Model) -> None:
    given = {
        "X-Amzn-SageMaker-Content-Type": "text/csv",
        "X-Amzn-SageMaker-Accept": "application/json",
        "X-Amzn-SageMaker-Custom-Attributes": "colour=blue",
        "X-Amzn-SageMaker-Inference-Id": "mine",
    }
    assert ask(invoke, headers={INPUT: parts.put("in", b"1,2"), **given}).json == {"InferenceId": "mine"}
    wait_until(lambda: model.asked)
    (asked,) = model.asked
    assert (asked.body, asked.chunked) == (b"1,2", False)
    expected = {
        "Content-Type": "text/csv",
        "Accept": "application/json",
        "X-Amzn-SageMaker-Custom-Attributes": "colour=blue",
        "X-Amzn-SageMaker-Inference-Id": "mine",
    }
    assert expected.items() <= asked.headers.items()


def test_object_says_its_content_type(parts: ServerParts, invoke: Invoker, model: Model) -> None:
    ask(invoke, headers={INPUT: parts.put("in.json", b"{}")})
    wait_until(lambda: model.asked)
    assert model.asked[0].headers["Content-Type"] == "application/json"


def test_body_may_come_with_the_request(parts: ServerParts, invoke: Invoker) -> None:
    response = ask(invoke, b"inline")
    assert content(parts, response.headers[OUTPUT_AT])[1] == b"inline"


def test_output_has_the_name_that_was_asked_for(parts: ServerParts, invoke: Invoker) -> None:
    named = {"X-Amzn-SageMaker-S3OutputPathExtension": "mine/", "X-Amzn-SageMaker-Filename": "a.csv"}
    response = ask(invoke, b"x", named)
    assert response.headers[OUTPUT_AT] == "s3://bucket/out/mine/a.csv"
    assert response.headers[FAILURE_AT] == "s3://bucket/failed/mine/a.csv-error.out"
    assert content(parts, "s3://bucket/out/mine/a.csv")[1] == b"x"


def test_models_error_becomes_the_failure(parts: ServerParts, invoke: Invoker, model: Model) -> None:
    model.invoke = lambda _: Reply(b'{"error": "no such column"}', 400, {"Content-Type": "application/json"})
    response = ask(invoke, b"x")
    assert content(parts, response.headers[FAILURE_AT]) == ("application/json", b'{"error": "no such column"}')
    assert parts.outputs() == {}
    (lines,) = parts.log(GROUP).values()
    assert any("failed: the model answered 400" in line for line in lines)


def test_missing_input_becomes_the_failure(parts: ServerParts, invoke: Invoker) -> None:
    response = ask(invoke, headers={INPUT: "s3://bucket/nothing"})
    assert content(parts, response.headers[FAILURE_AT]) == (
        "text/plain",
        b"The specified key does not exist: 'nothing'.",
    )


def test_slow_answer_becomes_the_failure(parts: ServerParts, invoke: Invoker, model: Model) -> None:
    def slow(_: Asked) -> Reply:
        time.sleep(1.5)
        return Reply(b"late")

    model.invoke = slow
    response = ask(invoke, b"x", {"X-Amzn-SageMaker-InvocationTimeoutSeconds": "1"})
    assert b"did not answer within 1 s (InvocationTimeoutSeconds)" in content(parts, response.headers[FAILURE_AT])[1]


def test_container_that_dies_of_a_request_is_asked_once(parts: ServerParts, invoke: Invoker, model: Model) -> None:
    def die(_: Asked) -> Reply:
        parts.running[0].end(Exit(137))
        return Reply()

    model.invoke = die
    response = ask(invoke, b"x")
    assert b"the container did not answer: " in content(parts, response.headers[FAILURE_AT])[1]
    assert len(model.asked) == 1


def test_request_that_waits_too_long_becomes_the_failure(parts: ServerParts, model: Model) -> None:
    serve(parts)
    model.exits = Exit(1)
    parts.running[0].end(Exit(1))
    wait_until(lambda: len(parts.runtime.ever) >= 2)
    queue = parts.registry.find("endpoint/e").queue  # type: ignore[union-attr]
    config = {"OutputConfig": OUTPUT}
    short = asynchronous.prepare(parts.context, config, {"RequestTTLSeconds": "0"}, b"x")
    queue.put(short)
    assert short.failure
    assert content(parts, short.failure)[1] == b"the request waited longer than 0 s (RequestTTLSeconds)"


@pytest.mark.usefixtures("model")
def test_failure_without_a_place_is_in_the_log_alone(parts: ServerParts) -> None:
    serve(parts, {"S3OutputPath": "s3://bucket/out"})
    response = ask(Invoker(parts), headers={INPUT: "s3://bucket/nothing"})
    assert FAILURE_AT not in response.headers
    (name,) = parts.log(GROUP)
    wait_until(lambda: any("key does not exist" in line for line in parts.log(GROUP)[name]))
    wait_until(lambda: queued(parts) == 0)


def test_as_many_at_once_as_configured(parts: ServerParts, model: Model) -> None:
    most = watched(model)
    serve(parts, MaxConcurrentInvocationsPerInstance=3)
    for _ in range(12):
        ask(Invoker(parts), b"x")
    wait_until(lambda: queued(parts) == 0)
    assert (max(most), len(parts.outputs())) == (3, 12)


def test_queue_of_a_server_that_ended_goes_on(parts: ServerParts, model: Model) -> None:
    held = threading.Event()

    def hold(asked: Asked) -> Reply:
        held.wait(20)
        return Reply(asked.body)

    serve(parts, MaxConcurrentInvocationsPerInstance=2)
    model.invoke = hold
    where = [ask(Invoker(parts), b"%d" % number).headers[OUTPUT_AT] for number in range(5)]
    wait_until(lambda: len(model.asked) == 2)
    parts.registry.shut_down()
    assert queued(parts) == 5
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("async e")] == []
    held.set()
    second = parts.restarted()
    assert [content(second, uri)[1] for uri in where] == [b"0", b"1", b"2", b"3", b"4"]
    wait_until(lambda: queued(second) == 0)
    second.close()


def test_update_loses_no_invocation(parts: ServerParts, invoke: Invoker, model: Model) -> None:
    def slow(asked: Asked) -> Reply:
        time.sleep(0.01)
        return Reply(asked.body)

    model.invoke = slow
    where = [ask(invoke, b"%d" % number).headers[OUTPUT_AT] for number in range(60)]
    parts.make_config("d", {"OutputConfig": OUTPUT, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 8}})
    parts.update("d")
    parts.settled()
    wait_until(lambda: queued(parts) == 0)
    assert [content(parts, uri)[1] for uri in where] == [b"%d" % number for number in range(60)]
    assert len({asked.host for asked in model.asked}) == 2


def test_invocation_cut_off_by_an_update_is_made_again(
    parts: ServerParts, invoke: Invoker, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "DRAIN_TIMEOUT", 0.1)
    (old,) = parts.running

    def never_in_the_old_one(asked: Asked) -> Reply:
        if asked.host == old.name:
            old._over.wait(20)
        return Reply(asked.host.encode())

    model.invoke = never_in_the_old_one
    where = ask(invoke, b"x").headers[OUTPUT_AT]
    wait_until(lambda: model.asked)
    parts.make_config("d", {"OutputConfig": OUTPUT})
    parts.update("d")
    answered = content(parts, where)[1].decode()
    assert answered == parts.running[0].name != old.name


def test_deletion_forgets_the_queue(parts: ServerParts, invoke: Invoker, model: Model) -> None:
    held = threading.Event()
    model.invoke = lambda _: Reply(str(held.wait(20)).encode())
    for _ in range(6):
        ask(invoke, b"x")
    wait_until(lambda: len(model.asked) == asynchronous.DEFAULT_CONCURRENCY)
    parts.delete()
    wait_until(lambda: parts.context.state.get("endpoint", "e") is None, seconds=5)
    held.set()
    assert (queued(parts), parts.outputs()) == (0, {})


def test_queue_that_ends_takes_nothing(parts: ServerParts, invoke: Invoker) -> None:
    endpoint = parts.registry.find("endpoint/e")
    assert isinstance(endpoint, endpoints.Endpoint)
    endpoint.queue.stop()
    assert invoke.refused(path="async-invocations").code == "ServiceUnavailable"
    assert queued(parts) == 0


def test_endpoint_is_described_with_its_queue(parts: ServerParts, invoke: Invoker) -> None:  # noqa: ARG001
    assert parts.endpoint()["AsyncInferenceConfig"]["OutputConfig"] == OUTPUT


def test_endpoint_takes_one_kind_of_request(parts: ServerParts, invoke: Invoker) -> None:
    assert invoke.refused().message == "Endpoint e has an AsyncInferenceConfig: invoke it with InvokeEndpointAsync."
    parts.make_config("plain")
    parts.start_endpoint("plain", "plain")
    parts.settled("plain")
    assert "invoke it with InvokeEndpoint." in refusal(invoke, b"x", name="plain")


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"", {}, "Provide exactly one of Body and InputLocation, not neither."),
        (b"x", {INPUT: "s3://bucket/in"}, "Provide exactly one of Body and InputLocation, not both."),
        (b"x" * 128_001, {}, "Member body must have length less than or equal to 128000"),
        (b"", {INPUT: "nowhere"}, "at 'inputLocation' failed to satisfy constraint"),
        (b"x", {"X-Amzn-SageMaker-InvocationTimeoutSeconds": "3601"}, "value less than or equal to 3600"),
        (b"x", {"X-Amzn-SageMaker-RequestTTLSeconds": "soon"}, "RequestTTLSeconds is 'soon'; its type must be integer"),
        (b"x", {"X-Amzn-SageMaker-S3OutputPathExtension": "../up"}, "S3OutputPath s3://bucket/out: "),
    ],
)
def test_what_cannot_be_is_refused(invoke: Invoker, body: bytes, headers: dict[str, str], reason: str) -> None:
    assert reason in refusal(invoke, body, **headers)


def test_missing_output_bucket_is_refused(parts: ServerParts) -> None:
    parts.make_model()
    with pytest.raises(ValidationError, match="S3FailurePath s3://nowhere/x: The specified bucket does not exist"):
        parts.make_config("c", {"OutputConfig": {**OUTPUT, "S3FailurePath": "s3://nowhere/x"}})
