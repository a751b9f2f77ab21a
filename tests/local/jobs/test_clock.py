"""Time limits and recorded times of jobs, which ignore changes of the system clock, and failure reasons of jobs."""

import errno
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
from microjobs_orchestrator.local.resources.training.time_limits import AttemptUsage
from microjobs_orchestrator.local.resources.transform.job import TransformJob
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Line, MachineFailedError
from tests.local.hosts import HostWithoutFolders
from tests.local.jobs.conftest import ServerParts, make_transform_request
from tests.local.jobs.waiting import run_hosts

DAY = 86_400.0

PROCESSING_REQUEST = {
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
        """Return None: the host's use of CPU, memory and GPUs is unknown."""

    def copy(self, path: str, target: Path) -> None:
        """Return None: the host has no files."""

    def connect(self, timeout: float) -> socket.socket:  # noqa: ARG002
        raise ConnectionRefusedError


class ClockChangingHost(WorkingHost):
    """A host that changes the clock and ends. After the end of a host, the server computes the remaining time again."""

    def __init__(self, patch: pytest.MonkeyPatch, change_seconds: float) -> None:
        super().__init__("algo-2", 0.0)
        self._patch = patch
        self._change_seconds = change_seconds

    def wait(self) -> Exit:
        real_time = time.time
        self._patch.setattr(time, "time", lambda: real_time() + self._change_seconds)
        return Exit(0)


def test_clock_set_forward_does_not_end_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = WorkingHost("algo-1", 0.6)
    run_hosts(tmp_path, EventQueue(), host, ClockChangingHost(monkeypatch, DAY), timeout=60)
    assert not host.was_stopped


def test_clock_set_back_does_not_lengthen_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = WorkingHost("algo-1", 20)
    start_time = time.monotonic()
    run_hosts(tmp_path, EventQueue(), host, ClockChangingHost(monkeypatch, -DAY), timeout=0.6)
    assert host.was_stopped
    assert time.monotonic() - start_time < 10


class Clocks:
    """Replacements for the system clock and the monotonic clock. Tests advance both, and set the system clock."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._real_time, self._real_monotonic = time.time, time.monotonic
        self._change_seconds, self._passed_seconds = 0.0, 0.0
        patch.setattr(time, "time", lambda: self._real_time() + self._passed_seconds + self._change_seconds)
        patch.setattr(time, "monotonic", lambda: self._real_monotonic() + self._passed_seconds)

    def change(self, seconds: float) -> None:
        """Set the system clock forward by some seconds, or back by negative seconds."""
        self._change_seconds += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass for both clocks."""
        self._passed_seconds += seconds

    def reboot(self) -> None:
        """Change the identity of the boot, so that stored times of the monotonic clock become invalid."""
        self._patch.setattr(clock, "BOOT_ID", "another")


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


TRAINING_REQUEST = {
    "TrainingJobName": "job",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large"},
    "StoppingCondition": {"MaxRuntimeInSeconds": 1000, "MaxWaitTimeInSeconds": 3000},
    "EnableManagedSpotTraining": True,
}


def load_or_create_training_job(parts: ServerParts) -> training.TrainingJob:
    """Return a new object for the training job `job`, as a restarted server creates it. Create the job if it does not
    exist."""
    record = parts.context.state.get(TRAINING_JOB.arn_type, "job") or create_training_job(
        parts.context, TRAINING_REQUEST
    )
    return training.TrainingJob(parts.context, record)


@pytest.mark.parametrize("change_seconds", [DAY, -DAY, 0.0])
@pytest.mark.parametrize("is_restarted", [True, False])
def test_time_limits_ignore_clock_changes(
    parts: ServerParts, clocks: Clocks, change_seconds: float, is_restarted: bool
) -> None:
    job = load_or_create_training_job(parts)
    clocks.advance(50)
    job.handle_start(())
    clocks.advance(100)
    clocks.change(change_seconds)
    if is_restarted:
        job = load_or_create_training_job(parts)
    assert job.remaining_seconds == pytest.approx(900, abs=2)
    clocks.advance(100)
    job.fail("a reason")
    record = parts.context.state.get(TRAINING_JOB.arn_type, "job")
    assert record is not None
    description = record.description
    assert description["TrainingTimeInSeconds"] == pytest.approx(200, abs=2)
    assert description["BillableTimeInSeconds"] == pytest.approx(200, abs=2)
    assert description["TrainingEndTime"] >= description["TrainingStartTime"]
    for transition in description["SecondaryStatusTransitions"]:
        assert transition["EndTime"] >= transition["StartTime"]


@pytest.mark.parametrize("change_seconds", [DAY, -DAY])
def test_max_wait_ignores_clock_changes(parts: ServerParts, clocks: Clocks, change_seconds: float) -> None:
    job = load_or_create_training_job(parts)
    clocks.advance(2500)
    clocks.change(change_seconds)
    job.handle_start(())
    assert job.remaining_seconds == pytest.approx(500, abs=2)
    assert load_or_create_training_job(parts).remaining_seconds == pytest.approx(500, abs=2)


def test_elapsed_time_uses_the_system_clock_after_a_reboot(clocks: Clocks) -> None:
    members = Moment.now().to_members()
    clocks.advance(100)
    clocks.reboot()
    assert Moment.read(members, 0.0).elapsed() == pytest.approx(100, abs=1)
    clocks.change(-DAY)
    assert Moment.read(members, 0.0).elapsed() == 0.0


def test_restarted_server_reads_metrics_from_earlier_lines(parts: ServerParts) -> None:
    metrics = [{"Name": "loss", "Regex": "loss: (.+)"}]
    algorithm = {"TrainingImage": "image", "TrainingInputMode": "File", "MetricDefinitions": metrics}
    create_training_job(parts.context, {**TRAINING_REQUEST, "AlgorithmSpecification": algorithm})
    training_job = load_or_create_training_job(parts)
    training_job.handle_start(())
    with training_job.job.open_stream("algo-1").writer() as write:
        write(Line(time.time(), b"loss: 0.5"))
    load_or_create_training_job(parts).recover([WorkingHost("algo-1", 0.0)])
    record = parts.context.state.get(TRAINING_JOB.arn_type, "job")
    assert record is not None
    assert [(item["MetricName"], item["Value"]) for item in record.description["FinalMetricDataList"]] == [
        ("loss", 0.5)
    ]


def test_usage_that_an_older_server_stored_is_read(clocks: Clocks) -> None:
    usage = AttemptUsage.load({"Attempts": {"ran": 5.0, "since": time.time(), "retries": 1}})
    clocks.advance(10)
    assert usage.used_seconds == pytest.approx(15, abs=1)


def test_delay_doubles_with_each_retry() -> None:
    assert [AttemptUsage(retries=number).retry_delay_seconds for number in (1, 2, 3, 4, 7)] == [1, 2, 4, 8, 60]


REASONS_BY_ERROR: dict[Exception, str] = {
    CannotRunError("image x is missing"): "ClientError: image x is missing",
    CannotRunError("AlgorithmError: it failed"): "AlgorithmError: it failed",
    MachineFailedError("the engine is unreachable"): "InternalServerError: the engine is unreachable",
    ServiceError("ValidationException", "No S3 objects found"): "ClientError: No S3 objects found",
    ServiceError("InsufficientStorage", "no space", 507): "InternalServerError: no space",
    OSError(errno.ENOSPC, "No space left", "/x"): (
        "InternalServerError: [Errno 28] No space left: '/x': free disk space"
    ),
    RuntimeError("surprise"): "InternalServerError: RuntimeError: surprise; see the server's log",
}


@pytest.mark.parametrize(("error", "reason"), REASONS_BY_ERROR.items(), ids=REASONS_BY_ERROR.values())
@pytest.mark.parametrize("job_type", ["training", "processing", "transform"])
def test_reason_of_a_failed_start_begins_with_a_sagemaker_prefix(
    parts: ServerParts, error: Exception, reason: str, job_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(parts.runtime, "prepare", fail)
    parts.make_model()
    parts.put("in/a", b"x")
    job: training.TrainingJob | processing.ProcessingJob | TransformJob
    if job_type == "training":
        job = load_or_create_training_job(parts)
    elif job_type == "processing":
        job = processing.ProcessingJob(parts.context, parts.processing_jobs.add(PROCESSING_REQUEST))
    else:
        job = TransformJob(parts.context, parts.transform_jobs.add(make_transform_request()))
    job.run()
    record = parts.context.state.get(job.job.kind.arn_type, job.job.name)
    assert record is not None
    assert (record.status, record.description["FailureReason"]) == ("Failed", reason)


def test_failure_reason_has_no_control_characters(parts: ServerParts) -> None:
    job = load_or_create_training_job(parts)
    job.fail("AlgorithmError: \x1b]52;c;aGk=\x07caf\udce9\x00 \x1b[2Jline\nnext")
    record = parts.context.state.get(TRAINING_JOB.arn_type, "job")
    assert record is not None
    assert record.description["FailureReason"] == "AlgorithmError: caf\\xe9 line\nnext"
