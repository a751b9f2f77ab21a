"""Tests of jobs during changes of the system clock: time limits and times ignore the changes."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local import clock
from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.events import EventQueue
from microjobs_orchestrator.local.resources.processing import job as processing
from microjobs_orchestrator.local.resources.training import job as training
from microjobs_orchestrator.local.resources.training.create import create as create_training_job
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.training.time_limits import Usage
from microjobs_orchestrator.local.resources.transform.job import TransformJob
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Line, MachineFailedError
from tests.local.hosts import HostWithoutFolders
from tests.local.jobs.conftest import ServerParts, transform_request
from tests.local.jobs.waiting import run_hosts

DAY = 86_400.0

PROCESSING = {
    "ProcessingJobName": "job",
    "AppSpecification": {"ImageUri": "image"},
    "ProcessingResources": {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large"}},
}


class WorkingHost(HostWithoutFolders):
    """A host that ends by itself after some seconds."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self._ended = threading.Event()
        self._seconds = seconds
        self.was_stopped = False

    def lines(self) -> Iterator[Line]:
        return iter(())

    def wait(self) -> Exit:
        self._ended.wait(self._seconds)
        return Exit(0)

    def stop(self, grace: float) -> None:  # noqa: ARG002
        self.was_stopped = True
        self._ended.set()

    def measure(self) -> None:
        """Return None: the use of resources is unknown."""

    def copy(self, path: str, target: Path) -> None:
        """Return None: the host has no files."""

    def connect(self, timeout: float) -> socket.socket:  # noqa: ARG002
        raise ConnectionRefusedError


class ClockChangingHost(WorkingHost):
    """A host that changes the clock and ends. After the end of a host, the server computes the remaining time again."""

    def __init__(self, patch: pytest.MonkeyPatch, by: float) -> None:
        super().__init__("algo-2", 0.0)
        self._patch = patch
        self._by = by

    def wait(self) -> Exit:
        real = time.time
        self._patch.setattr(time, "time", lambda: real() + self._by)
        return Exit(0)


def test_clock_set_forward_does_not_end_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = WorkingHost("algo-1", 0.6)
    run_hosts(tmp_path, EventQueue(), host, ClockChangingHost(monkeypatch, DAY), timeout=60)
    assert not host.was_stopped


def test_clock_set_back_does_not_lengthen_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = WorkingHost("algo-1", 20)
    began = time.monotonic()
    run_hosts(tmp_path, EventQueue(), host, ClockChangingHost(monkeypatch, -DAY), timeout=0.6)
    assert host.was_stopped
    assert time.monotonic() - began < 10


class Clock:
    """Replaces the system clock, which a test can change, and the monotonic clock."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._real = time.time, time.monotonic
        self._change, self._passed = 0.0, 0.0
        patch.setattr(time, "time", lambda: self._real[0]() + self._passed + self._change)
        patch.setattr(time, "monotonic", lambda: self._real[1]() + self._passed)

    def change(self, by: float) -> None:
        self._change += by

    def advance(self, seconds: float) -> None:
        self._passed += seconds

    def reboot(self) -> None:
        self._patch.setattr(clock, "BOOT_ID", "another")


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


TRAINING = {
    "TrainingJobName": "job",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large"},
    "StoppingCondition": {"MaxRuntimeInSeconds": 1000, "MaxWaitTimeInSeconds": 3000},
    "EnableManagedSpotTraining": True,
}


def training_job(parts: ServerParts) -> training.TrainingJob:
    """Return a new object for the training job, as a restarted server would. Create the job if it does not exist."""
    record = parts.context.state.get(TRAINING_JOB.arn_type, "job") or create_training_job(parts.context, TRAINING)
    return training.TrainingJob(parts.context, record)


@pytest.mark.parametrize("by", [DAY, -DAY, 0.0])
@pytest.mark.parametrize("restart", [True, False])
def test_time_limits_ignore_clock_changes(parts: ServerParts, clocks: Clock, by: float, restart: bool) -> None:
    job = training_job(parts)
    clocks.advance(50)
    job.handle_start(())
    clocks.advance(100)
    clocks.change(by)
    if restart:
        job = training_job(parts)
    assert job.remaining_time == pytest.approx(900, abs=2)
    clocks.advance(100)
    job.fail("a reason")
    record = parts.context.state.get(TRAINING_JOB.arn_type, "job")
    assert record is not None
    described = record.description
    assert described["TrainingTimeInSeconds"] == pytest.approx(200, abs=2)
    assert described["BillableTimeInSeconds"] == pytest.approx(200, abs=2)
    assert described["TrainingEndTime"] >= described["TrainingStartTime"]
    for transition in described["SecondaryStatusTransitions"]:
        assert transition["EndTime"] >= transition["StartTime"]


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_max_wait_ignores_clock_changes(parts: ServerParts, clocks: Clock, by: float) -> None:
    job = training_job(parts)
    clocks.advance(2500)
    clocks.change(by)
    job.handle_start(())
    assert job.remaining_time == pytest.approx(500, abs=2)
    assert training_job(parts).remaining_time == pytest.approx(500, abs=2)


def test_elapsed_time_uses_the_system_clock_after_a_reboot(clocks: Clock) -> None:
    stored = Moment.now().to_members()
    clocks.advance(100)
    clocks.reboot()
    assert Moment.read(stored, 0.0).elapsed() == pytest.approx(100, abs=1)
    clocks.change(-DAY)
    assert Moment.read(stored, 0.0).elapsed() == 0.0


def test_metrics_are_read_from_lines_before_a_restart(parts: ServerParts) -> None:
    metrics = [{"Name": "loss", "Regex": "loss: (.+)"}]
    algorithm = {"TrainingImage": "image", "TrainingInputMode": "File", "MetricDefinitions": metrics}
    create_training_job(parts.context, {**TRAINING, "AlgorithmSpecification": algorithm})
    job = training_job(parts)
    job.handle_start(())
    with job.job.open_stream("algo-1").writer() as write:
        write(Line(time.time(), b"loss: 0.5"))
    training_job(parts).recover([WorkingHost("algo-1", 0.0)])
    record = parts.context.state.get(TRAINING_JOB.arn_type, "job")
    assert record is not None
    assert [(item["MetricName"], item["Value"]) for item in record.description["FinalMetricDataList"]] == [
        ("loss", 0.5)
    ]


def test_usage_of_an_earlier_version_is_read(clocks: Clock) -> None:
    usage = Usage.load({"Attempts": {"ran": 5.0, "since": time.time(), "retries": 1}})
    clocks.advance(10)
    assert usage.seconds == pytest.approx(15, abs=1)


def test_delay_doubles_with_each_retry() -> None:
    assert [Usage(retries=number).retry_delay for number in (1, 2, 3, 4, 7)] == [1, 2, 4, 8, 60]


REASONS: dict[Exception, str] = {
    CannotRunError("image x is missing"): "ClientError: image x is missing",
    CannotRunError("AlgorithmError: it failed"): "AlgorithmError: it failed",
    MachineFailedError("the engine is unreachable"): "InternalServerError: the engine is unreachable",
    ServiceError("ValidationException", "No S3 objects found"): "ClientError: No S3 objects found",
    ServiceError("InsufficientStorage", "no space", 507): "InternalServerError: no space",
    RuntimeError("surprise"): "InternalServerError: RuntimeError: surprise; see the server's log",
}


@pytest.mark.parametrize(("error", "reason"), REASONS.items(), ids=REASONS.values())
@pytest.mark.parametrize("kind", ["training", "processing", "transform"])
def test_reason_of_a_failed_start_begins_with_a_sagemaker_prefix(
    parts: ServerParts, error: Exception, reason: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr(parts.runtime, "prepare", fail)
    parts.make_model()
    parts.put("in/a", b"x")
    job: training.TrainingJob | processing.ProcessingJob | TransformJob
    if kind == "training":
        job = training_job(parts)
    elif kind == "processing":
        job = processing.ProcessingJob(parts.context, parts.processing_jobs.add(PROCESSING))
    else:
        job = TransformJob(parts.context, parts.transform_jobs.add(transform_request()))
    job.run()
    record = parts.context.state.get(job.job.kind.arn_type, job.job.name)
    assert record is not None
    assert (record.status, record.description["FailureReason"]) == ("Failed", reason)


def test_reason_has_no_control_characters(parts: ServerParts) -> None:
    job = training_job(parts)
    job.fail("AlgorithmError: \x1b]52;c;aGk=\x07caf\udce9\x00 \x1b[2Jline\nnext")
    record = parts.context.state.get(TRAINING_JOB.arn_type, "job")
    assert record is not None
    assert record.description["FailureReason"] == "AlgorithmError: caf\\xe9 line\nnext"
