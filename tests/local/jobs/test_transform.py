"""Tests for transform jobs on fake containers. Each test defines the answers of the containers."""

import gzip
import struct
import threading
import time

import pytest

from microjobs_orchestrator.local import recordio
from microjobs_orchestrator.local.errors import ResourceInUseError, ServiceError, ValidationError
from microjobs_orchestrator.local.resources.transform.job import TransformJob
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.conftest import ServerParts, make_transform_request
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply, track_concurrency
from tests.polling import wait_until

MB = 1 << 20
SERVER_PREFIXES = ("AWS_", "PIP_", "UV_", "SAGEMAKER_MLFLOW_")
"""The prefixes of the variables that each host gets, whatever the request contains."""


def answer_in_upper_case(request: ReceivedRequest) -> Reply:
    return Reply(request.body.upper())


def reject_bodies_with_two(request: ReceivedRequest) -> Reply:
    return Reply(b"no two", 400) if b"two" in request.body else Reply(request.body)


def test_output_keys_match_input_keys(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = answer_in_upper_case
    parts.put("in/a.csv", b"a")
    parts.put("in/deep/b.csv", b"b")
    job = parts.transform()
    assert job["TransformJobStatus"] == "Completed"
    assert job["TransformStartTime"] <= job["TransformEndTime"]
    assert parts.read_outputs() == {"a.csv.out": b"A", "deep/b.csv.out": b"B"}
    assert parts.runtime.hosts == {}


def test_request_headers_match_job(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.put("in/a", b"a")
    parts.transform(ContentType="text/csv", Accept="application/json")
    (request,) = model.requests
    assert (request.headers["Content-Type"], request.headers["Accept"]) == ("text/csv", "application/json")


@pytest.mark.usefixtures("model")
def test_container_environment_contains_members_of_the_request(parts: ServerParts) -> None:
    parts.put("in/a", b"a")
    parts.transform(BatchStrategy="SingleRecord", MaxPayloadInMB=2, MaxConcurrentTransforms=3, Environment={"X": "y"})
    environment = dict(parts.runtime.started_hosts[0].plan.environment)
    assert {name: value for name, value in environment.items() if not name.startswith(SERVER_PREFIXES)} == {
        "X": "y",
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "3",
    }
    assert parts.runtime.started_hosts[0].plan.arguments == ("serve",)


@pytest.mark.usefixtures("model")
def test_unset_members_are_not_passed(parts: ServerParts) -> None:
    parts.put("in/a", b"a")
    parts.transform()
    environment = parts.runtime.started_hosts[0].plan.environment
    assert {name for name in environment if not name.startswith(SERVER_PREFIXES)} == {"SAGEMAKER_BATCH"}


def test_split_by_line_keeps_line_ends(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.put("in/a", b"one\r\ntwo\n\nthree")
    parts.transform(SplitType="Line", BatchStrategy="SingleRecord")
    assert [request.body for request in model.requests] == [b"one\r\n", b"two\n", b"\n", b"three"]
    assert parts.read_outputs() == {"a.out": b"one\r\ntwo\n\nthree"}


def test_one_request_contains_several_lines(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.put("in/a", b"one\ntwo\n")
    parts.transform(SplitType="Line")
    assert [request.body for request in model.requests] == [b"one\ntwo\n"]


@pytest.mark.parametrize("max_payload_mb", [0, 1])
def test_compressed_objects_are_decompressed(parts: ServerParts, model: ImageBehaviour, max_payload_mb: int) -> None:
    parts.put("in/a.gz", gzip.compress(b"one\ntwo\n"))
    parts.put("in/b.gz", b"plain")
    job = parts.transform(CompressionType="Gzip", MaxPayloadInMB=max_payload_mb)
    assert job["FailureReason"].startswith("ClientError: s3://bucket/in/b.gz: CompressionType is Gzip, but")
    assert parts.read_outputs() == {"a.gz.out": b"one\ntwo\n"}
    assert b"one\ntwo\n" in [request.body for request in model.requests]


def test_damaged_records_fail_only_their_object(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.put("in/a", b"not RecordIO")
    parts.put("in/b", struct.pack("<II", recordio.MAGIC, 4) + b"data")
    reason = parts.transform(SplitType="RecordIO")["FailureReason"]
    assert reason.startswith(
        "ClientError: s3://bucket/in/a: SplitType is RecordIO, and record 1 is invalid: a RecordIO"
    )
    assert list(parts.read_outputs()) == ["b.out"]
    assert len(model.requests) == 1


@pytest.mark.usefixtures("model")
def test_reason_counts_the_other_failed_objects(parts: ServerParts) -> None:
    for name in ("a", "b"):
        parts.put(f"in/{name}", b"not RecordIO")
    assert parts.transform(SplitType="RecordIO")["FailureReason"].endswith(" (1 more failed, see the log)")


def test_assemble_adds_newlines(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda request: Reply(request.body.strip())
    parts.put("in/a", b"one\ntwo\n")
    parts.transform(SplitType="Line", BatchStrategy="SingleRecord", AssembleWith="Line")
    assert parts.read_outputs() == {"a.out": b"one\ntwo\n"}


@pytest.mark.usefixtures("model")
def test_assemble_adds_no_blank_lines(parts: ServerParts) -> None:
    parts.put("in/a", b"one\ntwo\n")
    parts.transform(SplitType="Line", BatchStrategy="SingleRecord", AssembleWith="Line")
    assert parts.read_outputs() == {"a.out": b"one\ntwo\n"}


def test_output_keeps_input_order(parts: ServerParts, model: ImageBehaviour) -> None:
    another_response_sent = threading.Event()
    answered_numbers: list[int] = []

    def answer_first_request_last(request: ReceivedRequest) -> Reply:
        number = int(request.body)
        if number == 0:
            another_response_sent.wait(10)
        answered_numbers.append(number)
        another_response_sent.set()
        return Reply(request.body)

    model.invoke = answer_first_request_last
    content = b"".join(b"%d\n" % number for number in range(40))
    parts.put("in/a", content)
    parts.transform(SplitType="Line", BatchStrategy="SingleRecord", MaxConcurrentTransforms=8)
    assert parts.read_outputs() == {"a.out": content}
    assert answered_numbers[0] != 0


def test_respects_max_concurrent_transforms(parts: ServerParts, model: ImageBehaviour) -> None:
    concurrent_counts = track_concurrency(model)
    for number in range(12):
        parts.put(f"in/{number}", b"x")
    parts.transform(MaxConcurrentTransforms=3)
    assert max(concurrent_counts) == 3


def test_execution_parameters_fill_missing_members(parts: ServerParts, model: ImageBehaviour) -> None:
    model.execution_parameters = {"BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1, "MaxConcurrentTransforms": 2}
    parts.put("in/a", b"one\ntwo\n")
    parts.transform(SplitType="Line")
    assert sorted(request.body for request in model.requests) == [b"one\n", b"two\n"]


def test_request_overrides_execution_parameters(parts: ServerParts, model: ImageBehaviour) -> None:
    model.execution_parameters = {"BatchStrategy": "SINGLE_RECORD"}
    parts.put("in/a", b"one\ntwo\n")
    parts.transform(SplitType="Line", BatchStrategy="MultiRecord")
    assert [request.body for request in model.requests] == [b"one\ntwo\n"]


def test_invalid_execution_parameters_fail_the_job(parts: ServerParts, model: ImageBehaviour) -> None:
    model.execution_parameters = {"BatchStrategy": "ALL_AT_ONCE"}
    parts.put("in/a", b"a")
    reason = parts.transform()["FailureReason"]
    assert reason.startswith('AlgorithmError: GET /execution-parameters answered \'{"BatchStrategy": "ALL_AT_ONCE"}\'')


def test_rejected_record_fails_only_its_object(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = reject_bodies_with_two
    parts.put("in/a", b"one\ntwo\nthree\n")
    parts.put("in/b", b"fine\n")
    job = parts.transform(SplitType="Line", BatchStrategy="SingleRecord")
    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"] == (
        'ClientError: s3://bucket/in/a: bad HTTP status received from algorithm: 400, "no two"'
    )
    assert parts.read_outputs() == {"b.out": b"fine\n"}
    (lines,) = parts.read_log("/aws/sagemaker/TransformJobs").values()
    assert any(line.startswith("[microjobs] ClientError: s3://bucket/in/a") for line in lines)


def test_server_error_is_retried(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda request: Reply(request.body) if len(model.requests) > 2 else Reply(b"busy", 503)
    parts.put("in/a", b"a")
    assert parts.transform()["TransformJobStatus"] == "Completed"
    assert len(model.requests) == 3


def test_respects_max_retries(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(b"broken", 500)
    parts.put("in/a", b"a")
    reason = parts.transform(ModelClientConfig={"InvocationsMaxRetries": 1})["FailureReason"]
    assert reason == 'AlgorithmError: s3://bucket/in/a: bad HTTP status received from algorithm: 500, "broken"'
    assert len(model.requests) == 2


def test_client_error_is_not_retried(parts: ServerParts, model: ImageBehaviour) -> None:
    model.invoke = lambda _: Reply(b"no", 400)
    parts.put("in/a", b"a")
    parts.transform()
    assert len(model.requests) == 1


def test_invocation_timeout_fails_its_object(parts: ServerParts, model: ImageBehaviour) -> None:
    def respond_slowly(_: ReceivedRequest) -> Reply:
        time.sleep(0.3)
        return Reply()

    model.invoke = respond_slowly
    parts.put("in/a", b"a")
    limits = {"InvocationsMaxRetries": 0, "InvocationsTimeoutInSeconds": 0.1}
    assert "no response within 0.1 s" in parts.transform(ModelClientConfig=limits)["FailureReason"]


@pytest.mark.usefixtures("model")
def test_oversized_record_reports_line(parts: ServerParts) -> None:
    parts.put("in/a", b"short\n" + b"x" * MB + b"\n")
    reason = parts.transform(SplitType="Line", MaxPayloadInMB=1)["FailureReason"]
    assert reason == "ClientError: s3://bucket/in/a: line 2 is larger than a request may be: MaxPayloadInMB is 1"
    assert parts.read_outputs() == {}


@pytest.mark.usefixtures("model")
def test_unstorable_output_fails_only_its_object(parts: ServerParts) -> None:
    parts.put("in/a", b"a")
    parts.put(f"in/{'n' * 252}", b"b")
    assert "its output cannot be stored" in parts.transform()["FailureReason"]
    assert parts.read_outputs() == {"a.out": b"a"}


@pytest.mark.usefixtures("model")
def test_output_key_collision_raises(parts: ServerParts) -> None:
    parts.put("in-1", b"a")
    parts.put("in/in-1", b"b")
    with pytest.raises(ValidationError, match=r"2 objects of s3://bucket/in would all become out/in-1\.out"):
        parts.start_transform(source="s3://bucket/in")


def test_max_payload_zero_sends_objects_in_chunks(parts: ServerParts, model: ImageBehaviour) -> None:
    content = bytes(3 * MB)
    parts.put("in/a", content)
    assert parts.transform(MaxPayloadInMB=0)["TransformJobStatus"] == "Completed"
    (request,) = model.requests
    assert request.chunked
    assert parts.read_outputs() == {"a.out": content}


def test_empty_objects_become_empty_objects(parts: ServerParts, model: ImageBehaviour) -> None:
    parts.put("in/a", b"")
    assert parts.transform(SplitType="Line")["TransformJobStatus"] == "Completed"
    assert parts.read_outputs() == {"a.out": b""}
    assert model.requests == []


def test_objects_are_split_across_hosts(parts: ServerParts, model: ImageBehaviour) -> None:
    for name in "abcd":
        parts.put(f"in/{name}", name.encode())
    parts.transform(host_count=2)
    bodies_by_host = {
        host: {request.body for request in model.requests if request.host == host} for host in ("algo-1", "algo-2")
    }
    assert bodies_by_host == {"algo-1": {b"a", b"c"}, "algo-2": {b"b", b"d"}}
    assert len(parts.read_outputs()) == 4
    assert {name.rpartition("-")[0] for name in parts.read_log("/aws/sagemaker/TransformJobs")} == {
        "t/algo-1",
        "t/algo-2",
    }


def test_ended_container_fails_the_job(parts: ServerParts, model: ImageBehaviour) -> None:
    def end_container(_: ReceivedRequest) -> Reply:
        parts.running_hosts[0].end(Exit(9, "it ran out of memory"))
        return Reply()

    model.invoke = end_container
    parts.put("in/a", b"a")
    parts.start_transform()
    job = parts.wait_for_transform()
    assert job["FailureReason"] == "AlgorithmError: it ran out of memory, exit code: 9"
    assert parts.read_outputs() == {}


def test_unhealthy_container_fails_the_job(
    parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microjobs_orchestrator.local.resources.models.serving.STARTUP_TIMEOUT", 0.2)
    model.ping = 500
    parts.put("in/a", b"a")
    assert parts.transform()["FailureReason"].startswith("AlgorithmError: GET /ping did not answer 200 within 0.2 s")


def test_unhealthy_container_stops_other_hosts(
    parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond_slowly(request: ReceivedRequest) -> Reply:
        time.sleep(0.05)
        return Reply(request.body)

    monkeypatch.setattr("microjobs_orchestrator.local.resources.models.serving.STARTUP_TIMEOUT", 0.2)
    model.unhealthy_hosts, model.invoke = {"algo-2"}, respond_slowly
    parts.put("in/a", b"x\n" * 1000)
    start_time = time.monotonic()
    job = parts.transform(host_count=2, SplitType="Line", BatchStrategy="SingleRecord")
    assert job["FailureReason"] == "AlgorithmError: GET /ping did not answer 200 within 0.2 s."
    assert time.monotonic() - start_time < 10


def test_stopped_job_stores_nothing(parts: ServerParts, model: ImageBehaviour) -> None:
    def block_second_object(request: ReceivedRequest) -> Reply:
        if request.body == b"b":
            parts.running_hosts[0]._ended.wait(10)
        return Reply(request.body)

    model.invoke = block_second_object
    parts.put("in/a", b"a")
    parts.put("in/b", b"b")
    parts.start_transform()
    wait_until(lambda: len(model.requests) == 2)
    parts.registry.stop("transform-job/t")
    assert parts.wait_for_transform()["TransformJobStatus"] == "Stopped"
    assert parts.read_outputs() == {}
    assert list(parts.home.work.iterdir()) == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, "more than 100 MB"),
        ({"MaxPayloadInMB": 101}, "more than 100 MB"),
        ({"MaxPayloadInMB": 0, "SplitType": "Line"}, "SplitType must be None, not Line"),
        ({"source": "s3://bucket/nothing/"}, "No S3 objects found"),
        ({"ModelName": "other"}, "Could not find model"),
    ],
)
@pytest.mark.usefixtures("model")
def test_invalid_request_raises(parts: ServerParts, members: dict[str, object], message: str) -> None:
    parts.put("in/a", b"a")
    with pytest.raises(ValidationError, match=message):
        parts.start_transform(**members)


@pytest.mark.usefixtures("model")
def test_missing_output_bucket_raises(parts: ServerParts) -> None:
    parts.put("in/a", b"a")
    with pytest.raises(ServiceError, match="nowhere"):
        parts.start_transform(TransformOutput={"S3OutputPath": "s3://nowhere/out"})


@pytest.mark.usefixtures("model")
def test_duplicate_name_raises(parts: ServerParts) -> None:
    parts.put("in/a", b"a")
    parts.transform()
    with pytest.raises(ResourceInUseError, match="t already exists"):
        parts.start_transform()


@pytest.mark.usefixtures("model")
def test_describe_returns_request_members(parts: ServerParts) -> None:
    parts.put("in/a", b"a")
    job = parts.transform(BatchStrategy="MultiRecord", MaxPayloadInMB=3)
    assert (job["BatchStrategy"], job["MaxPayloadInMB"], job["ModelName"]) == ("MultiRecord", 3, "m")
    assert job["TransformInput"]["SplitType"] == job["TransformOutput"]["AssembleWith"] == "None"
    assert "Model" not in job


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("old_container", ["running", "ended", "none"])
def test_restarted_server_restarts_job(parts: ServerParts, old_container: str) -> None:
    """The server restarts the job, whether the earlier attempt's container still runs, has ended or was removed."""
    parts.put("in/a", b"a")
    job = TransformJob(parts.context, parts.transform_jobs.add(make_transform_request()))
    parts.runtime.start(job.attempt.make_plan(parts.context.make_work_folder(job.plan_name)))
    if old_container == "ended":
        parts.running_hosts[0].end(Exit(0))
    elif old_container == "none":
        parts.runtime.remove(job.plan_name)
    restarted_parts = parts.restart()
    assert restarted_parts.wait_for_transform()["TransformJobStatus"] == "Completed"
    assert restarted_parts.read_outputs() == {"a.out": b"a"}
    assert len(restarted_parts.runtime.started_hosts) == 2
    assert restarted_parts.runtime.hosts == {}
    restarted_parts.close()
