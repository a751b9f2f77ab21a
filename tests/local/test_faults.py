"""Tests of errors of containers and images: the job ends with a reason, and its containers are removed."""

import re
import subprocess
from collections.abc import Iterator

import docker
import pytest

from tests.conftest import build_image_from_job
from tests.local.clients import SHELL_IMAGE, LocalServer
from tests.polling import wait_until

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def image_without_train() -> Iterator[str]:
    """The name of an image without an entry point and without a program `train`."""
    with build_image_from_job(SHELL_IMAGE, "ENV PATH=/bin", "ENTRYPOINT []") as name:
        yield name


def list_containers(job: str) -> list[str]:
    command = ["docker", "ps", "--quiet", "--all", "--filter", f"label=org.microjobs.plan=training-job/{job}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_missing_train_is_reported(server: LocalServer, image_without_train: str) -> None:
    job = server.train("", AlgorithmSpecification={"TrainingImage": image_without_train, "TrainingInputMode": "File"})
    assert 'exec: "train": executable file not found' in job["FailureReason"]
    wait_until(lambda: list_containers(job["TrainingJobName"]), lambda containers: containers == [])


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/no/such/program", "no such file or directory"), ("/tmp", "(?i)permission denied|is a dir")],
)
def test_failed_entrypoint_is_reported(server: LocalServer, program: str, reason: str) -> None:
    job = server.train("", algorithm={"ContainerEntrypoint": [program]})
    assert re.search(reason, job["FailureReason"]), job["FailureReason"]
    wait_until(lambda: list_containers(job["TrainingJobName"]), lambda containers: containers == [])


def test_killed_program_is_reported(server: LocalServer) -> None:
    job = server.train("sh -c 'kill -9 $$'; exit $?")
    assert job["FailureReason"].endswith("exit code: 137")


def test_killed_container_stops_the_other_hosts(server: LocalServer) -> None:
    script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    name = server.start_training(script, instances=2)
    ready_lines = {"algo-1": ["ready"], "algo-2": ["ready"]}
    wait_until(lambda: server.read_logs("TrainingJobs", name), lambda lines: lines == ready_lines)
    engine = docker.from_env()
    (container,) = (
        item for item in engine.containers.list(ignore_removed=True) if str(item.name).endswith(f"{name}-algo-2")
    )
    container.kill()
    engine.close()
    job = server.wait_for_end(name)
    assert job["FailureReason"].endswith("exit code: 137 on algo-2")
    assert (job["TrainingEndTime"] - job["TrainingStartTime"]).total_seconds() < 30
