"""Stop at every moment of a job's life: it ends, its host does, and its description says so."""

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
from tests.local.trees import tree_of

SECONDS = 10.0


class Gates:
    """Steps that a job comes to, one of which is closed until the test opens it."""

    def __init__(self, closed: str) -> None:
        self._closed = closed
        self.reached = threading.Event()
        self.open = threading.Event()

    def step(self, name: str) -> None:
        if name == self._closed:
            self.reached.set()
            self.open.wait(SECONDS)


class Container:
    name = "algo-1"

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._over = threading.Event()

    def lines(self) -> Iterator[Line]:
        self._over.wait(SECONDS)
        return iter(())

    def wait(self) -> Exit:
        self._gates.step("running")
        if self._gates.reached.is_set():
            self._over.wait(SECONDS)
        self._over.set()
        return Exit(0)

    def stop(self, grace: float) -> None:  # noqa: ARG002
        self._over.set()

    def copy(self, path: str, to: Path) -> Tree | None:  # noqa: ARG002
        self._gates.step("collecting")
        return None

    def connect(self, timeout: float) -> socket.socket:  # noqa: ARG002
        raise ConnectionRefusedError


class Engine:
    name = "gated"
    machine = "127.0.0.1"

    container = Container

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self.plans: dict[str, Sequence[Host]] = {}

    def prepare(self, image: str) -> None:  # noqa: ARG002
        self._gates.step("preparing")

    def start(self, plan: Plan) -> Sequence[Host]:
        self._gates.step("starting")
        self.plans[plan.name] = [self.container(self._gates)]
        return self.plans[plan.name]

    def images(self) -> Sequence[Image]:
        return ()

    def running(self) -> Mapping[str, Sequence[Host]]:
        return self.plans

    def remove(self, plan_name: str) -> None:
        self._gates.step("removing")
        self.plans.pop(plan_name, None)

    def close(self) -> None:
        """Nothing is held."""


class Server:
    """The parts of a server whose engine has gates."""

    def __init__(self, folder: Path, closed: str) -> None:
        home = Home(folder)
        home.create()
        (home.buckets / "bucket").mkdir()
        self.gates = Gates(closed)
        self.engine = Engine(self.gates)
        self.state, store = State(home.state), ObjectStore(home)
        self.context = Context(
            home, self.state, store, LogStore(home.logs), self.engine, Settings("http://127.0.0.1:1")
        )
        self.registry = Registry(self.context)
        self.operations = SageMaker(self.context.state, load_operations(self.context, self.registry)).operations()

    def stop(self) -> None:
        self.operations["StopTrainingJob"]({"TrainingJobName": "job"})

    def record(self, kind: str = TRAINING_JOB.arn_type) -> Record:
        found = self.state.get(kind, "job")
        assert found is not None
        return found

    def ended(self, kind: str = TRAINING_JOB.arn_type) -> Mapping[str, Any]:
        """The description when nothing is left of the job."""
        deadline = time.monotonic() + SECONDS
        while self.registry.find(f"{kind}/job") is not None:
            assert time.monotonic() < deadline, self.record(kind)
            time.sleep(0.005)
        assert self.engine.plans == {}
        return self.record(kind).description

    def close(self) -> None:
        self.gates.open.set()
        self.registry.shut_down()
        self.context.store.close()
        self.state.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Makes a server with one gate closed."""
    made: list[Server] = []

    def make(closed: str = "") -> Server:
        made.append(Server(tmp_path / "home", closed))
        return made[-1]

    yield make
    for one in made:
        one.close()


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
        ("collecting", "Completed"),  # it has ended by itself, and its model is being uploaded
    ],
)
def test_stop_ends_a_job_at_any_moment(server: Callable[[str], Server], moment: str, outcome: str) -> None:
    here = server(moment)
    here.operations["CreateTrainingJob"](REQUEST)
    assert here.gates.reached.wait(SECONDS)
    here.stop()
    assert here.record().status == "Stopping"
    here.stop()  # twice is as good as once
    here.gates.open.set()
    assert here.ended()["TrainingJobStatus"] == outcome


def test_stop_of_an_ended_job_raises(server: Callable[[str], Server]) -> None:
    here = server("removing")
    here.operations["CreateTrainingJob"](REQUEST)
    assert here.gates.reached.wait(SECONDS)
    with pytest.raises(ValidationError, match="in status Completed"):
        here.stop()


def test_delete_waits_until_the_hosts_are_removed(server: Callable[[str], Server]) -> None:
    """A new job of its name would lose its containers to the removal of the old one's."""
    here = server("removing")
    here.operations["CreateTrainingJob"](REQUEST)
    assert here.gates.reached.wait(SECONDS)
    with ThreadPoolExecutor() as pool:
        deletion = pool.submit(here.operations["DeleteTrainingJob"], {"TrainingJobName": "job"})
        with pytest.raises(TimeoutError):
            deletion.result(0.3)
        here.gates.open.set()
        assert deletion.result(SECONDS) == {}
    assert here.engine.plans == {}


def test_job_that_starts_during_a_shutdown_is_stopped(server: Callable[[str], Server]) -> None:
    here = server("")
    here.registry.shut_down()
    here.operations["CreateTrainingJob"](REQUEST)
    assert here.ended()["FailureReason"].endswith("the local server was shut down while the job ran")


class Saving(Container):
    """A host whose last checkpoint has a name that no object can have."""

    def copy(self, path: str, to: Path) -> Tree | None:
        if Path(path).name not in ("checkpoints", "model"):
            return None
        to.mkdir(parents=True)
        name = os.fsdecode(b"caf\xe9") if Path(path).name == "checkpoints" else "weights"
        (to / name).write_text("w")
        return tree_of(to)


def test_model_is_stored_after_a_failed_checkpoint_upload(server: Callable[[str], Server]) -> None:
    here = server("")
    here.engine.container = Saving
    here.operations["CreateTrainingJob"]({**REQUEST, "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"}})
    ended = here.ended()
    assert ended["TrainingJobStatus"] == "Completed", ended
    assert [item.key for item in here.context.store.list("bucket")] == ["models/job/output/model.tar.gz"]
    (log,) = here.context.logs.streams("/aws/sagemaker/TrainingJobs").values()
    assert any("the last checkpoints could not be saved" in event.message for event in log.events())


@pytest.mark.parametrize("moment", ["preparing", "starting", "running"])
def test_stop_ends_a_processing_job(server: Callable[[str], Server], moment: str) -> None:
    here = server(moment)
    here.operations["CreateProcessingJob"](PROCESSING)
    assert here.gates.reached.wait(SECONDS)
    here.operations["StopProcessingJob"]({"ProcessingJobName": "job"})
    here.gates.open.set()
    assert here.ended(PROCESSING_JOB.arn_type)["ProcessingJobStatus"] == "Stopped"


def test_stop_before_the_first_start_stops_the_job(server: Callable[[str], Server]) -> None:
    """Another client may list a job and stop it before its Create request is answered."""
    here = server("running")
    record = create_training_job(here.context, REQUEST)
    here.stop()
    here.registry.start(training.TrainingJob(here.context, record))
    assert here.ended()["TrainingJobStatus"] == "Stopped"


@pytest.mark.parametrize("hosts", [0, 1])
def test_stop_before_a_crash_stops_the_resumed_job(server: Callable[[str], Server], hosts: int) -> None:
    here = server("running")
    create_training_job(here.context, REQUEST)
    here.stop()
    if hosts:
        here.engine.plans["training-job/job"] = [Container(here.gates)]
    here.gates.open.set()
    here.registry.recover({TRAINING_JOB.arn_type: training.TrainingJob})
    assert here.ended()["TrainingJobStatus"] == "Stopped"
