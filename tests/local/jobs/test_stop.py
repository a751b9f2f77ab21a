"""Tests of Stop requests at each step of a job: the job and its hosts end, and the description has the right status."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.context import Context, Settings
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.operations import load_operations
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.training import job as training
from microjobs_orchestrator.local.resources.training.create import create as create_training_job
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.runtimes.base import Exit, Host, Image, Line, Plan
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from microjobs_orchestrator.local.state import Record, State
from microjobs_orchestrator.local.trees import Tree
from tests.local.hosts import HostWithoutFolders
from tests.local.jobs.fake_programs import FakePrograms
from tests.local.trees import read_tree

TIMEOUT_SECONDS = 10.0


class Gates:
    """The steps of a job. One of them waits until the test opens its gate."""

    def __init__(self, closed: str) -> None:
        self._closed = closed
        self.reached = threading.Event()
        self.open = threading.Event()

    def step(self, name: str) -> None:
        if name == self._closed:
            self.reached.set()
            self.open.wait(TIMEOUT_SECONDS)


class GatedHost(HostWithoutFolders):
    name = "algo-1"

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._ended = threading.Event()

    def lines(self) -> Iterator[Line]:
        self._ended.wait(TIMEOUT_SECONDS)
        return iter(())

    def wait(self) -> Exit:
        self._gates.step("running")
        if self._gates.reached.is_set():
            self._ended.wait(TIMEOUT_SECONDS)
        self._ended.set()
        return Exit(0)

    def stop(self, grace: float) -> None:  # noqa: ARG002
        self._ended.set()

    def measure(self) -> None:
        """Return None: the use of resources is unknown."""

    def copy(self, path: str, target: Path) -> Tree | None:  # noqa: ARG002
        self._gates.step("collecting")
        return None

    def connect(self, timeout: float) -> socket.socket:  # noqa: ARG002
        raise ConnectionRefusedError


class GatedRuntime:
    name = "gated"
    machine_address = "127.0.0.1"
    gets_address_later = False

    host_type = GatedHost

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self.plans: dict[str, Sequence[Host]] = {}

    def forward(self, port: int) -> None:
        """Return None: hosts connect directly."""

    def prepare(self, image: str) -> None:  # noqa: ARG002
        self._gates.step("preparing")

    def start(self, plan: Plan) -> Sequence[Host]:
        self._gates.step("starting")
        self.plans[plan.name] = [self.host_type(self._gates)]
        return self.plans[plan.name]

    def images(self) -> Sequence[Image]:
        return ()

    def find_hosts(self) -> Mapping[str, Sequence[Host]]:
        return self.plans

    def remove(self, plan_name: str) -> None:
        self._gates.step("removing")
        self.plans.pop(plan_name, None)

    def close(self) -> None:
        """There is nothing to close."""


class Server:
    """The parts of a server whose runtime has gates."""

    def __init__(self, folder: Path, closed: str) -> None:
        home = Home(folder)
        home.create()
        (home.buckets / "bucket").mkdir()
        self.gates = Gates(closed)
        self.runtime = GatedRuntime(self.gates)
        self.state, store = State(home.state), ObjectStore(home)
        self.context = Context(
            home,
            self.state,
            store,
            LogStore(home.logs),
            MetricStore(home.metrics),
            self.runtime,
            Settings("http://127.0.0.1:1"),
            FakePrograms(),
        )
        self.registry = Registry(self.context)
        self.operations = SageMaker(self.context, load_operations(self.context, self.registry)).operations()

    def stop(self) -> None:
        self.operations["StopTrainingJob"]({"TrainingJobName": "job"})

    def record(self, kind: str = TRAINING_JOB.arn_type) -> Record:
        found = self.state.get(kind, "job")
        assert found is not None
        return found

    def wait_for_end(self, kind: str = TRAINING_JOB.arn_type) -> Mapping[str, Any]:
        """Wait until the job has ended and its containers are removed; return its description."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.registry.find(f"{kind}/job") is not None:
            assert time.monotonic() < deadline, self.record(kind)
            time.sleep(0.005)
        assert self.runtime.plans == {}
        return self.record(kind).description

    def close(self) -> None:
        self.gates.open.set()
        self.registry.shut_down()
        self.context.store.close()
        self.state.close()
        self.context.metrics.close()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Return a function that makes a server whose gate with a given name is closed."""
    servers: list[Server] = []

    def make(closed: str = "") -> Server:
        servers.append(Server(tmp_path / "home", closed))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


REQUEST = {
    "TrainingJobName": "job",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "RoleArn": "arn:aws:iam::000000000000:role/microjobs",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 100},
}

PROCESSING = {
    "ProcessingJobName": "job",
    "AppSpecification": {"ImageUri": "image"},
    "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    "RoleArn": "arn:aws:iam::000000000000:role/microjobs",
}


@pytest.mark.parametrize(
    ("moment", "outcome"),
    [
        ("preparing", "Stopped"),
        ("starting", "Stopped"),
        ("running", "Stopped"),
        ("collecting", "Completed"),  # its hosts have ended, and its model is being uploaded
    ],
)
def test_stop_ends_a_job_at_any_moment(make_server: Callable[[str], Server], moment: str, outcome: str) -> None:
    server = make_server(moment)
    server.operations["CreateTrainingJob"](REQUEST)
    assert server.gates.reached.wait(TIMEOUT_SECONDS)
    server.stop()
    assert server.record().status == "Stopping"
    server.stop()  # a second stop has no further effect
    server.gates.open.set()
    assert server.wait_for_end()["TrainingJobStatus"] == outcome


def test_stop_of_an_ended_job_raises(make_server: Callable[[str], Server]) -> None:
    server = make_server("removing")
    server.operations["CreateTrainingJob"](REQUEST)
    assert server.gates.reached.wait(TIMEOUT_SECONDS)
    with pytest.raises(ValidationError, match="in status Completed"):
        server.stop()


def test_delete_waits_until_the_hosts_are_removed(make_server: Callable[[str], Server]) -> None:
    """Otherwise, the removal of the old job's containers would remove those of a new job with the same name."""
    server = make_server("removing")
    server.operations["CreateTrainingJob"](REQUEST)
    assert server.gates.reached.wait(TIMEOUT_SECONDS)
    with ThreadPoolExecutor() as pool:
        deletion = pool.submit(server.operations["DeleteTrainingJob"], {"TrainingJobName": "job"})
        with pytest.raises(TimeoutError):
            deletion.result(0.3)
        server.gates.open.set()
        assert deletion.result(TIMEOUT_SECONDS) == {}
    assert server.runtime.plans == {}


def test_job_that_starts_during_a_shutdown_is_stopped(make_server: Callable[[str], Server]) -> None:
    server = make_server("")
    server.registry.shut_down()
    server.operations["CreateTrainingJob"](REQUEST)
    assert server.wait_for_end()["FailureReason"].endswith("the local server was shut down while the job ran")


class CheckpointHost(GatedHost):
    """A host whose last checkpoint has a name that is not a valid key."""

    def copy(self, path: str, target: Path) -> Tree | None:
        if Path(path).name not in ("checkpoints", "model"):
            return None
        target.mkdir(parents=True)
        name = os.fsdecode(b"caf\xe9") if Path(path).name == "checkpoints" else "weights"
        (target / name).write_text("w")
        return read_tree(target)


def test_model_is_stored_after_a_failed_checkpoint_upload(make_server: Callable[[str], Server]) -> None:
    server = make_server("")
    server.runtime.host_type = CheckpointHost
    server.operations["CreateTrainingJob"]({**REQUEST, "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"}})
    ended = server.wait_for_end()
    assert ended["TrainingJobStatus"] == "Completed", ended
    assert [item.key for item in server.context.store.list("bucket")] == ["models/job/output/model.tar.gz"]
    (log,) = server.context.logs.streams("/aws/sagemaker/TrainingJobs").values()
    assert any("the last checkpoints could not be saved" in event.message for event in log.events())


@pytest.mark.parametrize("moment", ["preparing", "starting", "running"])
def test_stop_ends_a_processing_job(make_server: Callable[[str], Server], moment: str) -> None:
    server = make_server(moment)
    server.operations["CreateProcessingJob"](PROCESSING)
    assert server.gates.reached.wait(TIMEOUT_SECONDS)
    server.operations["StopProcessingJob"]({"ProcessingJobName": "job"})
    server.gates.open.set()
    assert server.wait_for_end(PROCESSING_JOB.arn_type)["ProcessingJobStatus"] == "Stopped"


def test_stop_before_the_first_start_stops_the_job(make_server: Callable[[str], Server]) -> None:
    """Another client can list a job and stop it before the response of Create was sent."""
    server = make_server("running")
    record = create_training_job(server.context, REQUEST)
    server.stop()
    server.registry.start(training.TrainingJob(server.context, record))
    assert server.wait_for_end()["TrainingJobStatus"] == "Stopped"


@pytest.mark.parametrize("hosts", [0, 1])
def test_stop_before_a_crash_stops_the_resumed_job(make_server: Callable[[str], Server], hosts: int) -> None:
    server = make_server("running")
    create_training_job(server.context, REQUEST)
    server.stop()
    if hosts:
        server.runtime.plans["training-job/job"] = [GatedHost(server.gates)]
    server.gates.open.set()
    server.registry.recover({TRAINING_JOB.arn_type: training.TrainingJob})
    assert server.wait_for_end()["TrainingJobStatus"] == "Stopped"
