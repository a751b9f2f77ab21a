"""Data capture: the objects with the requests to an endpoint and its responses."""

import base64
import itertools
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.resources.endpoints import capture_writer
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.local.jobs.test_inference_components import Components
from tests.local.jobs.test_inference_components import invoke as invoke_component
from tests.polling import wait_until

KEY_PATTERN = re.compile(r"captured/e/main/\d{4}/\d\d/\d\d/\d\d/[0-9a-f-]{36}\.jsonl")
DESTINATION = "s3://bucket/captured"
BOTH_MODES = ({"CaptureMode": "Input"}, {"CaptureMode": "Output"})


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_writer, "FLUSH_SECONDS", 0.05)


def make_capture_config(**members: Any) -> dict[str, Any]:
    config = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": DESTINATION,
        "CaptureOptions": list(BOTH_MODES),
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
        **members,
    }
    return {"DataCaptureConfig": config}


def deploy(parts: ServerParts, **members: Any) -> Invoker:
    parts.make_config(config_members=make_capture_config(**members))
    parts.start_endpoint()
    assert parts.wait_for_endpoint()["EndpointStatus"] == "InService"
    return Invoker(parts)


def is_responding(parts: ServerParts) -> bool:
    try:
        return bool(Invoker(parts)().data == b"x")
    except ServiceError:
        return False


def list_keys(parts: ServerParts) -> list[str]:
    return [item.key for item in parts.context.store.list("bucket", "captured/")]


def list_records(parts: ServerParts) -> Iterator[dict[str, Any]]:
    for item in parts.context.store.list("bucket", "captured/"):
        yield from map(json.loads, item.path.read_text().splitlines())


def wait_for_records(parts: ServerParts, count: int = 1) -> list[dict[str, Any]]:
    """Wait for `count` records, and return them. There must be no more records."""
    records: list[dict[str, Any]] = wait_until(lambda: list(list_records(parts)), lambda records: len(records) >= count)
    assert len(records) == count
    return records


def test_record_has_request_response_and_ids(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(b'{"sum": 3}', headers={"Content-Type": "application/json"})
    headers = {
        "Content-Type": "text/csv; charset=utf-8",
        "X-Amzn-SageMaker-Inference-Id": "mine",
        "X-Amzn-SageMaker-Custom-Attributes": "colour=blue",
    }
    deploy(parts)(b"1,2\n", **headers)
    (record,) = wait_for_records(parts)
    assert record["captureData"] == {
        "endpointInput": {
            "observedContentType": "text/csv; charset=utf-8",
            "mode": "INPUT",
            "data": "1,2\n",
            "encoding": "CSV",
        },
        "endpointOutput": {
            "observedContentType": "application/json",
            "mode": "OUTPUT",
            "data": '{"sum": 3}',
            "encoding": "JSON",
        },
    }
    assert record["eventVersion"] == "0"
    metadata = record["eventMetadata"]
    assert (metadata["inferenceId"], metadata["customAttributes"]) == ("mine", ["colour=blue"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["inferenceTime"])
    assert len(metadata["eventId"]) == 36
    (key,) = list_keys(parts)
    assert KEY_PATTERN.fullmatch(key)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("content_type", "body"), [("image/png", b"\x89PNG"), ("text/csv", b"\xff")])
def test_content_that_is_not_text_is_stored_as_base64(parts: ServerParts, content_type: str, body: bytes) -> None:
    deploy(parts)(body, Content_Type=content_type)
    data = wait_for_records(parts)[0]["captureData"]["endpointInput"]
    assert (data["encoding"], base64.b64decode(data["data"])) == ("BASE64", body)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("Input", {"endpointInput"}),
        ("Output", {"endpointOutput"}),
        ("InputAndOutput", {"endpointInput", "endpointOutput"}),
    ],
)
def test_options_choose_directions(parts: ServerParts, mode: str, expected: set[str]) -> None:
    deploy(parts, CaptureOptions=[{"CaptureMode": mode}])()
    assert wait_for_records(parts)[0]["captureData"].keys() == expected


@pytest.mark.usefixtures("model")
def test_sample_has_requested_share(parts: ServerParts, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.0, 0.29, 0.3, 0.99])
    monkeypatch.setattr(capture_writer, "_random", lambda: next(values))
    invoke = deploy(parts, InitialSamplingPercentage=30)
    for _ in range(4):
        invoke()
    parts.delete_endpoint()
    assert parts.wait_for_endpoint()["EndpointStatus"] == "gone"
    wait_for_records(parts, 2)


def test_errors_of_the_model_are_not_captured(parts: ServerParts, model: ImageBehaviour) -> None:
    invoke = deploy(parts)
    model.invoke = lambda _: Reply(b"no", 400)
    invoke.read_model_error()
    model.invoke = lambda _: Reply(b"yes")
    invoke()
    (record,) = wait_for_records(parts)
    assert base64.b64decode(record["captureData"]["endpointOutput"]["data"]) == b"yes"


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("ending", ["update", "delete", "shutdown"])
def test_buffer_is_stored_when_the_deployment_ends(
    parts: ServerParts, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(capture_writer, "FLUSH_SECONDS", 60.0)
    deploy(parts)()
    assert list_keys(parts) == []
    if ending == "update":
        parts.make_config("d")
        parts.update_endpoint("d")
        parts.wait_for_endpoint()
    elif ending == "delete":
        parts.delete_endpoint()
        wait_until(lambda: parts.describe_endpoint()["EndpointStatus"] == "gone")
    else:
        parts.registry.shut_down()
    wait_for_records(parts)


@pytest.mark.usefixtures("model")
def test_full_buffer_is_stored_before_the_interval(parts: ServerParts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_writer, "FLUSH_SECONDS", 60.0)
    deploy(parts)(b"x" * (capture_writer.FLUSH_BYTES // 2))
    wait_for_records(parts)


@pytest.mark.usefixtures("model")
def test_slow_disk_loses_records_but_no_requests(
    parts: ServerParts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capture_writer, "MAX_BUFFERED_BYTES", 3 * capture_writer.OVERHEAD_BYTES)
    put_begun, disk_ready = threading.Event(), threading.Event()
    put = parts.context.store.put

    def put_slowly(*arguments: Any) -> object:
        put_begun.set()
        disk_ready.wait(10)
        return put(*arguments)

    monkeypatch.setattr(parts.context.store, "put", put_slowly)
    invoke = deploy(parts)
    invoke()
    assert put_begun.wait(10)
    for _ in range(5):
        assert invoke().data == b"x"
    disk_ready.set()
    wait_for_records(parts, 1 + 2)  # the record that the slow call stored, and two records in the buffer
    assert "lost exchanges (3), because the disk is too slow" in caplog.text


@pytest.mark.usefixtures("model")
def test_missing_bucket_does_not_fail_requests(parts: ServerParts, caplog: pytest.LogCaptureFixture) -> None:
    parts.context.store.create_bucket("other-bucket")
    invoke = deploy(parts, DestinationS3Uri="s3://other-bucket")
    parts.context.store.delete_bucket("other-bucket")
    assert invoke().data == b"x"
    wait_until(lambda: "data capture lost exchanges (1)" in caplog.text)


@pytest.mark.usefixtures("model")
def test_endpoint_describes_capture(parts: ServerParts) -> None:
    invoke = deploy(parts, InitialSamplingPercentage=20)
    expected = {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 20,
        "DestinationS3Uri": DESTINATION,
        "KmsKeyId": "",
    }
    assert parts.describe_endpoint()["DataCaptureConfig"] == expected
    parts.make_config("d", config_members=make_capture_config(EnableCapture=False, InitialSamplingPercentage=100))
    parts.update_endpoint("d")
    description = parts.wait_for_endpoint()["DataCaptureConfig"]
    assert (description["EnableCapture"], description["CaptureStatus"]) == (False, "Stopped")
    invoke()
    parts.delete_endpoint()
    wait_until(lambda: parts.describe_endpoint()["EndpointStatus"] == "gone")
    assert list_keys(parts) == []


@pytest.mark.usefixtures("model")
def test_restarted_server_captures(parts: ServerParts) -> None:
    deploy(parts)
    restarted_parts = parts.restart()
    try:
        wait_until(lambda: is_responding(restarted_parts))
        wait_for_records(restarted_parts)
    finally:
        restarted_parts.close()


@pytest.mark.usefixtures("model")
def test_missing_destination_bucket_is_refused(parts: ServerParts) -> None:
    with pytest.raises(ValidationError, match=r"DestinationS3Uri s3://missing/x: .*bucket"):
        parts.make_config(config_members=make_capture_config(DestinationS3Uri="s3://missing/x"))
    parts.make_config(config_members=make_capture_config(DestinationS3Uri="s3://missing/x", EnableCapture=False))


def deploy_asynchronously(parts: ServerParts) -> Invoker:
    output = {"S3OutputPath": "s3://bucket/out"}
    parts.make_config("c", asynchronous={"OutputConfig": output}, config_members=make_capture_config())
    parts.start_endpoint()
    assert parts.wait_for_endpoint()["EndpointStatus"] == "InService"
    return Invoker(parts)


@pytest.mark.parametrize("is_inline", [True, False])
def test_asynchronous_endpoint_captures_both_directions(
    parts: ServerParts, model: ImageBehaviour, is_inline: bool
) -> None:
    model.invoke = lambda request: Reply(request.body.upper(), headers={"Content-Type": "text/csv"})
    invoke = deploy_asynchronously(parts)
    headers = {"X-Amzn-SageMaker-Inference-Id": "mine", "X-Amzn-SageMaker-Content-Type": "text/csv"}
    location = {} if is_inline else {"X-Amzn-SageMaker-InputLocation": parts.put("in.csv", b"a,b")}
    invoke(b"a,b" if is_inline else b"", path="async-invocations", **headers, **location)
    (record,) = wait_for_records(parts)
    data = record["captureData"]
    assert [(item["data"], item["encoding"]) for item in data.values()] == [("a,b", "CSV"), ("A,B", "CSV")]
    assert record["eventMetadata"]["inferenceId"] == "mine"
    assert KEY_PATTERN.fullmatch(list_keys(parts)[0])


def test_asynchronous_response_that_the_buffer_cannot_hold_is_stored_but_not_captured(
    parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(capture_writer, "MAX_BUFFERED_BYTES", 1 << 16)
    model.invoke = lambda _: Reply(b"x" * (1 << 20))
    deploy_asynchronously(parts)(b"1", path="async-invocations")
    wait_until(lambda: "data capture lost exchanges (1)" in caplog.text)
    wait_until(lambda: [len(content) for content in parts.read_outputs().values()] == [1 << 20])
    assert list_keys(parts) == []


def test_key_of_an_inference_component_has_its_name(parts: ServerParts, model: ImageBehaviour) -> None:  # noqa: ARG001
    components = Components(parts)
    components.start_endpoint(**make_capture_config())
    for name in ("one", "two"):
        components.start(name)
    invoke_component(parts, "two", b"2")
    (record,) = wait_for_records(parts)
    assert base64.b64decode(record["captureData"]["endpointInput"]["data"]) == b"2"
    (key,) = list_keys(parts)
    assert KEY_PATTERN.fullmatch(key.replace("/main/two/", "/main/"))


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("source", "prefix", "path"),
    [("s3://bucket/in/", "in/", ""), ("s3://bucket/in", "", "in/"), ("s3://bucket", "", "in/")],
)
def test_transform_job_lists_inputs_and_outputs(parts: ServerParts, source: str, prefix: str, path: str) -> None:
    for name in ("a", "b/c"):
        parts.put(f"in/{name}.csv", b"1")
    parts.transform(source=source, DataCaptureConfig={"DestinationS3Uri": DESTINATION})
    results = {item.key: json.loads(item.path.read_text()) for item in parts.context.store.list("bucket", "captured/")}
    assert all(
        re.fullmatch(r"captured/(input|output)/\d{4}/\d\d/\d\d/\d\d/[0-9a-f-]{36}\.json", key) for key in results
    )
    assert {key.split("/")[1]: manifest for key, manifest in results.items()} == {
        "input": [{"prefix": f"s3://bucket/{prefix}"}, *(f"{path}{name}.csv" for name in ("a", "b/c"))],
        "output": [{"prefix": "s3://bucket/out/"}, *sorted(parts.read_outputs())],
    }


def test_failed_transform_job_captures_nothing(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(b"no", 400)
    parts.put("in/a.csv", b"1")
    assert parts.transform(DataCaptureConfig={"DestinationS3Uri": DESTINATION})["TransformJobStatus"] == "Failed"
    assert list_keys(parts) == []
    with pytest.raises(ValidationError, match="DestinationS3Uri s3://missing/x"):
        parts.start_transform(DataCaptureConfig={"DestinationS3Uri": "s3://missing/x"})


@pytest.mark.usefixtures("model")
def test_updates_under_load_capture_each_exchange_once(parts: ServerParts) -> None:
    invoke, stop = deploy(parts), threading.Event()
    parts.make_config("d", config_members=make_capture_config())

    def invoke_until_stopped(client: int) -> int:
        for number in itertools.count():
            if stop.is_set():
                return number
            invoke(X_Amzn_SageMaker_Inference_Id=f"{client}-{number}")
        raise AssertionError

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(invoke_until_stopped, client) for client in range(4)]
        for config in ("d", "c", "d"):
            parts.update_endpoint(config)
            assert parts.wait_for_endpoint()["EndpointConfigName"] == config
        stop.set()
        count = sum(client.result() for client in clients)
    parts.delete_endpoint()
    wait_until(lambda: parts.describe_endpoint()["EndpointStatus"] == "gone")
    ids = [record["eventMetadata"]["inferenceId"] for record in wait_for_records(parts, count)]
    assert len(set(ids)) == count
