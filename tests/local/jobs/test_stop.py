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
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Host, Image, Line, Plan
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from microjobs_orchestrator.local.state import Record, State
from microjobs_orchestrator.local.trees import Tree
from tests.local.hosts import HostWithoutFolders
from tests.local.jobs.fake_programs import FakePrograms
from tests.local.trees import read_tree

TIMEOUT_SECONDS = 60.0


class Gates:
    """A gate before each step of a job. At most one gate is closed: the job waits there until the test opens it."""

    def __init__(self, closed_step: str) -> None:
        self.closed_step = closed_step
        self.is_reached = threading.Event()
        self.is_open = threading.Event()

    def pass_gate(self, step: str) -> None:
        """If the gate of this step is closed, wait until the test opens it."""
        if step == self.closed_step:
            self.is_reached.set()
            self.is_open.wait(TIMEOUT_SECONDS)


class GatedHost(HostWithoutFolders):
    name = "algo-1"

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._ended = threading.Event()

    def lines(self) -> Iterator[Line]:
        self._ended.wait(TIMEOUT_SECONDS)
        return iter(())

    def wait(self) -> Exit:
        self._gates.pass_gate("running")
        if self._gates.is_reached.is_set():  # the test stops the job, so the host must run until it is stopped
            self._ended.wait(TIMEOUT_SECONDS)
        self._ended.set()
        return Exit(0)

    def stop(self, grace: float) -> None:  # noqa: ARG002
        self._ended.set()

    def measure(self) -> None:
        """Return None: the host's use of CPU, memory and GPUs is unknown."""

    def copy(self, path: str, target: Path) -> Tree | None:  # noqa: ARG002
        self._gates.pass_gate("collecting")
        return None

    def connect(self, timeout: float) -> socket.socket:  # noqa: ARG002
        raise ConnectionRefusedError


class GatedRuntime:
    name = "gated"
    machine_address = "127.0.0.1"
    machine_address_exists_only_while_hosts_run = False

    host_type = GatedHost

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._cancelled = threading.Event()
        self.hosts_by_plan: dict[str, Sequence[Host]] = {}

    def forward(self, port: int) -> None:
        """Return None: this runtime forwards no ports."""

    def prepare(self, image: str, stopped: threading.Event | None = None) -> None:  # noqa: ARG002
        self._gates.pass_gate("preparing")
        if self._gates.closed_step == "installing":
            self._gates.is_reached.set()
            assert self._cancelled.wait(TIMEOUT_SECONDS)
            raise CannotRunError("the environment cannot be made")
        if self._gates.closed_step == "pulling":
            self._gates.is_reached.set()
            assert stopped is not None
            assert stopped.wait(TIMEOUT_SECONDS)
            raise CannotRunError("the pull was stopped")

    def start(self, plan: Plan) -> Sequence[Host]:
        self._gates.pass_gate("starting")
        self.hosts_by_plan[plan.name] = [self.host_type(self._gates)]
        return self.hosts_by_plan[plan.name]

    def images(self) -> Sequence[Image]:
        return ()

    def find_hosts(self) -> Mapping[str, Sequence[Host]]:
        return self.hosts_by_plan

    def remove(self, plan_name: str) -> None:
        self._gates.pass_gate("removing")
        self.hosts_by_plan.pop(plan_name, None)

    def cancel_installations(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class Server:
    """The parts of a server whose runtime has gates."""

    def __init__(self, folder: Path, closed_step: str) -> None:
        home = Home(folder)
        home.create()
        (home.buckets / "bucket").mkdir()
        self.gates = Gates(closed_step)
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
        self.operations = SageMaker(self.context, load_operations(self.context, self.registry)).list_handlers()

    def stop(self) -> None:
        self.operations["StopTrainingJob"]({"TrainingJobName": "job"})

    def get_record(self, kind: str = TRAINING_JOB.arn_type) -> Record:
        record = self.state.get(kind, "job")
        assert record is not None
        return record

    def wait_for_end(self, kind: str = TRAINING_JOB.arn_type) -> Mapping[str, Any]:
        """Wait until the job has ended and its containers are removed; return its description."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.registry.find(f"{kind}/job") is not None:
            assert time.monotonic() < deadline, self.get_record(kind)
            time.sleep(0.005)
        assert self.runtime.hosts_by_plan == {}
        return self.get_record(kind).description

    def close(self) -> None:
        self.gates.is_open.set()
        self.registry.shut_down()
        self.context.store.close()
        self.state.close()
        self.context.metrics.close()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """A function that makes a server. Its argument is the step of a job whose gate is closed; empty if all are open."""
    servers: list[Server] = []

    def make(closed_step: str = "") -> Server:
        servers.append(Server(tmp_path / "home", closed_step))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


TRAINING_REQUEST = {
    "TrainingJobName": "job",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "RoleArn": "arn:aws:iam::000000000000:role/microjobs",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 100},
}

PROCESSING_REQUEST = {
    "ProcessingJobName": "job",
    "AppSpecification": {"ImageUri": "image"},
    "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    "RoleArn": "arn:aws:iam::000000000000:role/microjobs",
}


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("preparing", "Stopped"),
        ("starting", "Stopped"),
        ("running", "Stopped"),
        ("collecting", "Completed"),  # the hosts have ended, and the server copies their files
    ],
)
def test_job_ends_after_a_stop_at_each_step(make_server: Callable[[str], Server], step: str, outcome: str) -> None:
    server = make_server(step)
    server.operations["CreateTrainingJob"](TRAINING_REQUEST)
    assert server.gates.is_reached.wait(TIMEOUT_SECONDS)
    server.stop()
    assert server.get_record().status == "Stopping"
    server.stop()  # a second stop has no effect
    server.gates.is_open.set()
    assert server.wait_for_end()["TrainingJobStatus"] == outcome


def test_stop_ends_the_pull_of_the_image(make_server: Callable[[str], Server]) -> None:
    server = make_server("pulling")
    server.operations["CreateTrainingJob"](TRAINING_REQUEST)
    assert server.gates.is_reached.wait(TIMEOUT_SECONDS)
    server.stop()
    description = server.wait_for_end()
    assert (description["TrainingJobStatus"], description.get("FailureReason")) == ("Stopped", None)


def test_stop_of_an_ended_job_raises(make_server: Callable[[str], Server]) -> None:
    server = make_server("removing")
    server.operations["CreateTrainingJob"](TRAINING_REQUEST)
    assert server.gates.is_reached.wait(TIMEOUT_SECONDS)
    with pytest.raises(ValidationError, match="in status Completed"):
        server.stop()


def test_delete_waits_until_the_hosts_are_removed(make_server: Callable[[str], Server]) -> None:
    """If a job with the same name could start earlier, the removal would also remove the containers of this new job."""
    server = make_server("removing")
    server.operations["CreateTrainingJob"](TRAINING_REQUEST)
    assert server.gates.is_reached.wait(TIMEOUT_SECONDS)
    with ThreadPoolExecutor() as pool:
        deletion = pool.submit(server.operations["DeleteTrainingJob"], {"TrainingJobName": "job"})
        with pytest.raises(TimeoutError):
            deletion.result(0.3)
        server.gates.is_open.set()
        assert deletion.result(TIMEOUT_SECONDS) == {}
    assert server.runtime.hosts_by_plan == {}


def test_job_that_starts_during_a_shutdown_is_stopped(make_server: Callable[[str], Server]) -> None:
    server = make_server("")
    server.registry.shut_down()
    server.operations["CreateTrainingJob"](TRAINING_REQUEST)
    assert server.wait_for_end()["FailureReason"].endswith("the local server was shut down while the job ran")


def test_shutdown_cancels_installations(make_server: Callable[[str], Server]) -> None:
    server = make_server("installing")
    server.operations["CreateTrainingJob"](TRAINING_REQUEST)
    assert server.gates.is_reached.wait(TIMEOUT_SECONDS)
    server.registry.shut_down()
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
    server.operations["CreateTrainingJob"](
        {**TRAINING_REQUEST, "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"}}
    )
    description = server.wait_for_end()
    assert description["TrainingJobStatus"] == "Completed", description
    assert [item.key for item in server.context.store.list("bucket")] == ["models/job/output/model.tar.gz"]
    (log,) = server.context.logs.streams("/aws/sagemaker/TrainingJobs").values()
    assert any("the last checkpoints could not be saved" in event.message for event in log.events())


@pytest.mark.parametrize("step", ["preparing", "starting", "running"])
def test_stop_ends_a_processing_job(make_server: Callable[[str], Server], step: str) -> None:
    server = make_server(step)
    server.operations["CreateProcessingJob"](PROCESSING_REQUEST)
    assert server.gates.is_reached.wait(TIMEOUT_SECONDS)
    server.operations["StopProcessingJob"]({"ProcessingJobName": "job"})
    server.gates.is_open.set()
    assert server.wait_for_end(PROCESSING_JOB.arn_type)["ProcessingJobStatus"] == "Stopped"


def test_stop_before_the_first_start_stops_the_job(make_server: Callable[[str], Server]) -> None:
    """Another client can list a job and stop it before the server sends the response of Create."""
    server = make_server("running")
    record = create_training_job(server.context, TRAINING_REQUEST)
    server.stop()
    server.registry.start(training.TrainingJob(server.context, record))
    assert server.wait_for_end()["TrainingJobStatus"] == "Stopped"


@pytest.mark.parametrize("has_host", [False, True])
def test_stop_before_a_crash_stops_the_resumed_job(make_server: Callable[[str], Server], has_host: bool) -> None:
    server = make_server("running")
    create_training_job(server.context, TRAINING_REQUEST)
    server.stop()
    if has_host:
        server.runtime.hosts_by_plan["training-job/job"] = [GatedHost(server.gates)]
    server.gates.is_open.set()
    server.registry.recover({TRAINING_JOB.arn_type: training.TrainingJob})
    assert server.wait_for_end()["TrainingJobStatus"] == "Stopped"
