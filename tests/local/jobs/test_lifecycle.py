"""Attempts of jobs, from their start to their outcome: events, groups of hosts, and the results of jobs. Also tests the
count of requests in progress to a replica, and the results that a tuning job inherits from earlier tuning jobs."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator.local.lifecycle.attempt import (
    Attempt,
    EndReason,
    Outcome,
    classify_end,
    launch_plan,
    prepare_plan,
)
from microjobs_orchestrator.local.lifecycle.events import (
    Change,
    Event,
    EventQueue,
    HostExit,
    Interruption,
    StopReason,
)
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.resources.endpoints.traffic import Traffic
from microjobs_orchestrator.local.resources.models.client import NoResponseError
from microjobs_orchestrator.local.resources.processing import job as processing
from microjobs_orchestrator.local.resources.transform.job import TransformJob
from microjobs_orchestrator.local.resources.tuning import warm_start
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, HostPlan, Plan
from microjobs_orchestrator.local.state import Owner
from microjobs_orchestrator.local.trees import Tree
from tests.local.jobs.conftest import ServerParts, make_transform_request
from tests.local.jobs.test_clock import PROCESSING_REQUEST, load_or_create_training_job
from tests.local.jobs.test_waiting import make_tuning_request
from tests.local.jobs.waiting import WaitingHost, run_hosts
from tests.local.trees import read_tree
from tests.polling import wait_until

FINISHED, REQUEST, TIMEOUT, SHUTDOWN = StopReason


@pytest.mark.parametrize(
    ("reasons", "expected_reason"),
    [
        ([FINISHED, REQUEST], REQUEST),
        ([REQUEST, FINISHED], REQUEST),
        ([REQUEST, TIMEOUT], REQUEST),
        ([TIMEOUT, REQUEST], TIMEOUT),
        ([REQUEST, SHUTDOWN], SHUTDOWN),
        ([TIMEOUT, SHUTDOWN], SHUTDOWN),
        ([SHUTDOWN, REQUEST], SHUTDOWN),
    ],
)
def test_more_important_stop_reason_replaces_the_earlier_one(
    reasons: list[StopReason], expected_reason: StopReason
) -> None:
    events = EventQueue()
    for reason in reasons:
        events.stop(reason)
    assert events.stop_reason is expected_reason
    # A second reason that is not more important is not sent as an event.
    expected_events = reasons if expected_reason is reasons[1] else reasons[:1]
    assert events.wait() == expected_events
    assert events.stopped.is_set()


def test_wait_returns_all_events_in_their_order() -> None:
    events = EventQueue()
    assert events.wait(0) == []
    events.send(Change.METRIC_REPORTED)
    events.send(Interruption(notice_seconds=1.0))
    assert events.wait() == [Change.METRIC_REPORTED, Interruption(notice_seconds=1.0)]
    assert events.wait(0) == []


def test_pause_drops_events_and_is_not_shortened_by_them() -> None:
    events = EventQueue()
    events.send(Interruption())
    start_time = time.monotonic()
    events.pause(0.2)
    assert time.monotonic() - start_time >= 0.2
    assert events.wait(0) == []


def test_stop_ends_a_pause() -> None:
    events = EventQueue()
    threading.Timer(0.05, events.stop, [REQUEST]).start()
    start_time = time.monotonic()
    events.pause(20)
    assert time.monotonic() - start_time < 5


class StubbornHost(WaitingHost):
    """A host that ends only when it is stopped with a short grace period."""

    def stop(self, grace: float) -> None:
        self.graces.append(grace)
        if grace <= 10:
            self.end(137)


def test_shutdown_after_a_stop_shortens_the_grace_period(tmp_path: Path) -> None:
    events, host = EventQueue(), StubbornHost("algo-1")
    events.stop(REQUEST)
    threading.Timer(0.1, events.stop, [SHUTDOWN]).start()
    outcome = run_hosts(tmp_path, events, host)
    assert host.graces == [120.0, 10.0]
    assert (outcome.exits["algo-1"].code, outcome.first_failed_host) == (137, None)


def test_hosts_that_are_no_longer_needed_get_30_seconds(tmp_path: Path) -> None:
    events, host = EventQueue(), WaitingHost("algo-1")
    events.stop(FINISHED)
    run_hosts(tmp_path, events, host)
    assert host.graces == [30.0]


def test_failed_host_stops_the_others(tmp_path: Path) -> None:
    failed_host, other_host = WaitingHost("algo-1"), WaitingHost("algo-2")
    failed_host.end(3)
    outcome = run_hosts(tmp_path, EventQueue(), failed_host, other_host)
    assert outcome.first_failed_host == "algo-1"
    assert outcome.exits == {"algo-1": Exit(3), "algo-2": Exit(0)}
    assert other_host.graces == [120.0]


def test_timeout_stops_the_hosts(tmp_path: Path) -> None:
    events, host = EventQueue(), WaitingHost("algo-1")
    outcome = run_hosts(tmp_path, events, host, timeout=0.05)
    assert (events.stop_reason, outcome.first_failed_host) == (TIMEOUT, None)


class CountingQueue(EventQueue):
    """A queue that counts the calls of `wait`."""

    wait_count = 0

    def wait(self, timeout: float | None = None) -> list[Event]:
        self.wait_count += 1
        return super().wait(timeout)


class SlowHost(WaitingHost):
    """A host that stops slowly."""

    def stop(self, grace: float) -> None:
        self.graces.append(grace)
        threading.Timer(0.3, self.end).start()


def test_timeout_is_not_polled_while_the_hosts_stop(tmp_path: Path) -> None:
    events, host = CountingQueue(), SlowHost("algo-1")
    run_hosts(tmp_path, events, host, timeout=0.05)
    assert host.graces == [120.0]
    assert events.wait_count <= 3  # the timeout, the stop, and the host's end


@pytest.mark.parametrize("earlier_event", ["stop", "failure", "interruption"])
def test_later_interruption_is_ignored(tmp_path: Path, earlier_event: str) -> None:
    events, host, failing_host = EventQueue(), WaitingHost("algo-1"), WaitingHost("algo-2")
    if earlier_event == "stop":
        events.stop(REQUEST)
    elif earlier_event == "interruption":
        events.send(Interruption(notice_seconds=5.0))
    else:
        events.send(HostExit("algo-2", Exit(1)))
        failing_host.end(1)
    events.send(Interruption(notice_seconds=7.0))
    outcome = run_hosts(tmp_path, events, host, failing_host)
    assert 7.0 not in host.graces
    assert outcome.interruption == (Interruption(notice_seconds=5.0) if earlier_event == "interruption" else None)


@pytest.mark.parametrize(
    ("reason", "failed_host", "expected"),
    [
        (None, None, EndReason.COMPLETED),
        (FINISHED, None, EndReason.COMPLETED),
        (REQUEST, None, EndReason.STOPPED),
        (TIMEOUT, None, EndReason.TIMED_OUT),
        (SHUTDOWN, None, EndReason.SHUT_DOWN),
        (None, "algo-1", EndReason.FAILED),
        (REQUEST, "algo-1", EndReason.FAILED),
        (TIMEOUT, "algo-1", EndReason.FAILED),
        (SHUTDOWN, "algo-1", EndReason.SHUT_DOWN),
    ],
)
def test_end_is_classified_by_stop_reason_and_failed_host(
    reason: StopReason | None, failed_host: str | None, expected: EndReason
) -> None:
    events = EventQueue()
    if reason is not None:
        events.stop(reason)
    assert classify_end(Outcome(first_failed_host=failed_host), events) is expected


def prepare_and_read_secrets(parts: ServerParts, host_count: int) -> list[bytes]:
    """Prepare a new attempt; return the secret in the files of each host."""

    def make_plan(folder: Path) -> Plan:
        files = [folder / str(number) for number in range(host_count)]
        for path in files:
            path.mkdir()
        return Plan("plan", tuple(HostPlan(path.name, "model", path) for path in files))

    attempt = Attempt("plan", "model", make_plan, open_stream=lambda name: LogStream(parts.home.logs / name))
    plan = prepare_plan(parts.context, attempt, EventQueue())
    paths = [path for host in plan.hosts for path in host.files.rglob("*") if path.is_file()]
    return [path.read_bytes() for path in paths]


def test_hosts_of_an_attempt_share_a_new_secret(parts: ServerParts) -> None:
    first_secrets, second_secrets = prepare_and_read_secrets(parts, 2), prepare_and_read_secrets(parts, 2)
    assert len(first_secrets) == len(second_secrets) == 2
    assert first_secrets[0] == first_secrets[1] != second_secrets[0]
    assert prepare_and_read_secrets(parts, 1) == []


def test_stopped_job_starts_no_hosts(parts: ServerParts) -> None:
    events = EventQueue()

    def make_plan(folder: Path) -> Plan:
        events.stop(REQUEST)
        return Plan("plan", (HostPlan("algo-1", "model", folder),))

    attempt = Attempt("plan", "model", make_plan, open_stream=lambda name: LogStream(parts.home.logs / name))
    assert launch_plan(parts.context, attempt, prepare_plan(parts.context, attempt, EventQueue()), events) == ()
    assert parts.runtime.started_hosts == []


# --- replicas ---


def test_failed_request_is_no_longer_in_progress() -> None:
    traffic = Traffic(lambda: None)
    with suppress(NoResponseError), traffic.count_request(timeout=5.0):
        assert traffic.find_longest_timeout() == 5.0
        raise NoResponseError("no response")
    assert traffic.find_longest_timeout() == 0.0


def test_end_of_the_last_request_after_close_is_reported_once() -> None:
    calls: list[str] = []
    traffic = Traffic(lambda: calls.append("idle"))
    with traffic.count_request(timeout=1.0):
        pass
    with traffic.count_request(timeout=1.0):
        with traffic.count_request(timeout=2.0):
            traffic.close()
            assert traffic.find_longest_timeout() == 2.0
        assert calls == []
    assert calls == ["idle"]
    with pytest.raises(NoResponseError), traffic.count_request(timeout=1.0):
        pass


# --- processing, training, transform and tuning jobs ---


class HostWithOneFolder(WaitingHost):
    """An ended host with one folder. Other output folders cannot be copied."""

    def __init__(self, folder: str) -> None:
        super().__init__("algo-1")
        self._folder = folder
        self.end()

    def copy(self, path: str, target: Path) -> Tree | None:  # type: ignore[override]
        if path == self._folder:
            target.mkdir(parents=True)
            (target / "file").write_text("content")
            return read_tree(target)
        if "/output" in path and "message" not in path:
            raise CannotRunError(f"{path} does not fit on this device")
        return None


def test_no_output_is_uploaded_unless_all_can_be_copied(parts: ServerParts) -> None:
    folder = f"{DEFAULT_ROOT}/processing/output/"
    outputs = [
        {
            "OutputName": name,
            "S3Output": {"LocalPath": folder + name, "S3Uri": f"s3://bucket/{name}", "S3UploadMode": "EndOfJob"},
        }
        for name in ("first", "second")
    ]
    request = {**PROCESSING_REQUEST, "ProcessingOutputConfig": {"Outputs": outputs}}
    job = processing.ProcessingJob(parts.context, parts.processing_jobs.add(request))
    job.recover([cast("Any", HostWithOneFolder(folder + "first"))])
    record = parts.context.state.get("processing-job", "job")
    assert record is not None
    assert (record.status, record.description["FailureReason"]) == (
        "Failed",
        f"ClientError: {folder}second does not fit on this device",
    )
    assert list(parts.context.store.list("bucket", "first")) == []


def test_long_reason_is_truncated(parts: ServerParts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: str, _stopped: threading.Event) -> None:
        raise CannotRunError(f"{image} {'x' * 2000}")

    monkeypatch.setattr(parts.runtime, "prepare", fail)
    processing.ProcessingJob(parts.context, parts.processing_jobs.add(PROCESSING_REQUEST)).run()
    load_or_create_training_job(parts).run()
    for kind in ("processing-job", "training-job"):
        record = parts.context.state.get(kind, "job")
        assert record is not None
        assert record.description["FailureReason"] == f"ClientError: image {'x' * 2000}"[:1024]


@pytest.mark.usefixtures("model")
def test_start_time_of_a_transform_job_survives_a_restart(parts: ServerParts) -> None:
    parts.put("in/a", b"x")
    parts.transform_jobs.add(make_transform_request())
    start = time.time() - 100
    record = parts.context.state.update("transform-job", "t", {"TransformStartTime": start})
    assert record is not None
    TransformJob(parts.context, record).recover(())
    description = wait_until(lambda: parts.context.state.get("transform-job", "t")).description
    assert (description["TransformJobStatus"], description["TransformStartTime"]) == ("Completed", start)


class FakeTrialSearch:
    """A search that records the results that it inherits."""

    def __init__(self) -> None:
        self.inherited_results: list[float] = []

    def inherit_result(self, values: Mapping[str, str], result: float) -> None:  # noqa: ARG002
        self.inherited_results.append(result)


def test_search_inherits_an_objective_of_zero(parts: ServerParts) -> None:
    state, request = parts.context.state, make_tuning_request(3)
    state.add("hyper-parameter-tuning-job", "t", "arn:t", "Completed", request, {})
    for name, value in (("a", 0.0), ("b", 1.0), ("c", None)):
        metrics = [] if value is None else [{"MetricName": "loss", "Value": value, "Timestamp": 1.0}]
        description = {"HyperParameters": {"rate": "0.5"}, "FinalMetricDataList": metrics}
        state.add(
            "training-job",
            name,
            f"arn:{name}",
            "Completed",
            {},
            description,
            owner=Owner("hyper-parameter-tuning-job", "t"),
        )
    parents = {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "t"}]}
    search = FakeTrialSearch()
    warm_start.inherit_results(parts.context, {"WarmStartConfig": parents}, cast("Any", search))
    assert sorted(search.inherited_results) == [0.0, 1.0]
