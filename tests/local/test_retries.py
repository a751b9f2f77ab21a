"""Tests of RetryStrategy: jobs whose hosts end, or cannot be started, for reasons outside of the jobs."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker
import pytest

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.context import Context, Settings
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.training import job as training
from microjobs_orchestrator.local.resources.training import time_limits
from microjobs_orchestrator.local.resources.training.create import create as create_training_job
from microjobs_orchestrator.local.runtimes.base import Host, MachineFailedError, Plan
from microjobs_orchestrator.local.runtimes.process.runtime import ProcessRuntime
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.state import State
from tests.local.clients import LocalServer, run_server
from tests.local.jobs.fake_programs import FakePrograms
from tests.local.runtimes.processes import make_home, make_tiny_repository
from tests.local.test_spot import list_secondary_statuses
from tests.polling import wait_until

STATUSES_WITH_RETRY = [
    "Starting",
    "Downloading",
    "Training",
    "Starting",
    "Downloading",
    "Training",
    "Uploading",
    "Completed",
]


def make_retry_strategy(max_retries: int) -> dict[str, Any]:
    return {"RetryStrategy": {"MaximumRetryAttempts": max_retries}}


def remove_container(name: str) -> None:
    """Remove the container of a job, as a user of the engine can do."""
    client = docker.from_env()
    try:
        (container,) = client.containers.list(
            ignore_removed=True, filters={"label": f"org.microjobs.plan=training-job/{name}"}
        )
        container.remove(force=True, v=True)
    finally:
        client.close()


@pytest.mark.engine
def test_job_is_retried_after_its_container_was_removed(server: LocalServer) -> None:
    name = server.start_training("echo ready; sleep 2; echo done", **make_retry_strategy(1))
    server.wait_for_log(name, "ready")
    remove_container(name)
    assert list_secondary_statuses(server.wait_for_end(name)) == STATUSES_WITH_RETRY
    lines = server.read_logs("TrainingJobs", name)["algo-1"]
    assert [line for line in lines if line[0] != "["] == ["ready", "ready", "done"]
    assert any("another program removed its container" in line and "retry 1 of 1" in line for line in lines)


@pytest.mark.engine
def test_removed_container_is_an_internal_error(server: LocalServer) -> None:
    name = server.start_training("echo ready; sleep 60")
    server.wait_for_log(name, "ready")
    remove_container(name)
    assert server.wait_for_end(name)["FailureReason"].startswith(
        "InternalServerError: another program removed its container"
    )


def test_jobs_own_failure_is_not_retried(process_server: LocalServer) -> None:
    job = process_server.train("exit 3", **make_retry_strategy(5))
    assert (job["TrainingJobStatus"], list_secondary_statuses(job).count("Training")) == ("Failed", 1)


def test_missing_image_is_not_retried(process_server: LocalServer) -> None:
    job = process_server.train("true", algorithm={"TrainingImage": "nowhere.invalid/none:1"}, **make_retry_strategy(5))
    assert (job["TrainingJobStatus"], list_secondary_statuses(job).count("Starting")) == ("Failed", 1)


@pytest.mark.slow
def test_job_is_retried_after_its_server_was_killed(tmp_path: Path) -> None:
    """Processes end with their server, so the next server finds no hosts of the job."""
    with run_server(tmp_path / "home", runtime="process") as server:
        retried_job = server.start_training("echo ready; sleep 3", **make_retry_strategy(1))
        lost_job = server.start_training("echo ready; sleep 3")
        for name in (retried_job, lost_job):
            server.wait_for_log(name, "ready")
        os.kill(server.address.pid, signal.SIGKILL)
        wait_until(lambda: control.find_server(server.home), lambda address: address is None)
        next_server = LocalServer(server.home, control.start(server.home, Config(port=0, runtime="process")))
        assert list_secondary_statuses(next_server.wait_for_end(retried_job)) == STATUSES_WITH_RETRY
        assert "the local server ended while the job ran" in next_server.wait_for_end(lost_job)["FailureReason"]


# --- a machine that temporarily cannot start hosts ---


class FailingRuntime(ProcessRuntime):
    """A runtime whose first `failure_count` calls of `start` fail."""

    failure_count = 0

    def start(self, plan: Plan) -> Sequence[Host]:
        if self.failure_count > 0:
            self.failure_count -= 1
            raise MachineFailedError("no room")
        return super().start(plan)


@pytest.fixture
def flaky_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """The parts of a server with a `FailingRuntime`, and with the job `tiny`. A failed start is repeated at once."""
    monkeypatch.setattr(time_limits, "FIRST_RETRY_DELAY_SECONDS", 0.01)
    make_tiny_repository(tmp_path, "")
    home: Home = make_home(tmp_path / "home")
    state, store, metrics = State(home.state), ObjectStore(home), MetricStore(home.metrics)
    store.create_bucket("data")
    runtime = FailingRuntime(home, tmp_path / "repository" / "containers")
    settings = Settings("http://127.0.0.1:1")
    yield Context(home, state, store, LogStore(home.logs), metrics, runtime, settings, FakePrograms())
    runtime.close()
    store.close()
    state.close()
    metrics.close()


def run_training(context: Context, failure_count: int, **members: Any) -> dict[str, Any]:
    runtime = context.runtime
    assert isinstance(runtime, FailingRuntime)
    runtime.failure_count = failure_count
    algorithm = {"TrainingInputMode": "File", "ContainerEntrypoint": ["sh", "-c", "echo trained"]}
    request = {
        "TrainingJobName": "job",
        "AlgorithmSpecification": {"TrainingImage": "microjobs/tiny:dev", **algorithm},
        "OutputDataConfig": {"S3OutputPath": "s3://data/out"},
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "RoleArn": "role",
        **members,
    }
    training.TrainingJob(context, create_training_job(context, request)).run()
    record = context.state.get("training-job", "job")
    assert record is not None
    return dict(record.description)


def test_job_is_retried_after_a_failed_start(flaky_context: Context) -> None:
    job = run_training(flaky_context, failure_count=2, **make_retry_strategy(2))
    assert (job["TrainingJobStatus"], list_secondary_statuses(job).count("Starting")) == ("Completed", 3)


def test_retries_are_limited(flaky_context: Context) -> None:
    job = run_training(flaky_context, failure_count=3, **make_retry_strategy(2))
    assert (job["TrainingJobStatus"], job["FailureReason"]) == ("Failed", "InternalServerError: no room")


def test_retries_share_the_time_limit(flaky_context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limits, "FIRST_RETRY_DELAY_SECONDS", 30.0)
    start = time.monotonic()
    stopping_condition = {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1}
    job = run_training(
        flaky_context,
        failure_count=1,
        **make_retry_strategy(1),
        EnableManagedSpotTraining=True,
        StoppingCondition=stopping_condition,
    )
    assert job["SecondaryStatus"] == "MaxWaitTimeExceeded"
    assert time.monotonic() - start < 10
