"""Tests of managed spot training: hosts are interrupted, and the job resumes from its checkpoints."""

import os
import re
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from tests.conftest import make_image_name
from tests.local.clients import ROOT, LocalServer, make_channel, make_training_request, run_server
from tests.polling import wait_until

RESUMING_SCRIPT = (
    f"cd {ROOT}; if [ -e checkpoints/step ]; then cp checkpoints/step model/; echo resumed; exit 0; fi; "
    "trap 'echo 7 > checkpoints/step; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
)
"""Saves a checkpoint on SIGTERM and ends with code 0, as the project's trainers do; resumes from a saved checkpoint."""

STUBBORN_SCRIPT = RESUMING_SCRIPT.replace("exit 0' TERM", "' TERM").replace(
    "echo ready", "echo 0 > model/half; echo ready"
)
"""Saves a checkpoint on SIGTERM, but does not end. Also writes a file that the model must not contain."""


def make_spot_members(server: LocalServer, name: str, max_runtime: int = 60, max_wait: int = 90) -> dict[str, Any]:
    """Return the members of a spot job's request, with a separate folder of checkpoints. The limits are in seconds."""
    return {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": max_runtime, "MaxWaitTimeInSeconds": max_wait},
        "CheckpointConfig": {"S3Uri": server.uri(f"checkpoints/{server.address.runtime}-{name}")},
    }


def interrupt_job(server: LocalServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MICROJOBS_HOME": str(server.home.root)}
    command = ["microjobs", "interrupt", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def start_interrupted_job(server: LocalServer, script: str, *flags: str, **members: Any) -> str:
    """Start a job, and interrupt it when it is ready."""
    name = server.start_training(script, **members)
    server.wait_for_log(name, "ready")
    result = interrupt_job(server, name, *flags)
    assert result.returncode == 0, result.stderr
    return name


def list_secondary_statuses(job: dict[str, Any]) -> list[str]:
    return [step["Status"] for step in job["SecondaryStatusTransitions"]]


STATUSES_OF_TWO_ATTEMPTS = [
    "Starting", "Downloading", "Training", "Interrupted",
    "Starting", "Downloading", "Training", "Uploading", "Completed",
]  # fmt: skip


def test_interrupted_job_resumes_from_its_checkpoint(any_runtime_server: LocalServer) -> None:
    name = start_interrupted_job(
        any_runtime_server, RESUMING_SCRIPT, **make_spot_members(any_runtime_server, "resumes")
    )
    job = any_runtime_server.wait_for_end(name)
    assert list_secondary_statuses(job) == STATUSES_OF_TWO_ATTEMPTS
    assert any_runtime_server.read_archive(name) == {"step": "7\n"}
    assert [line for line in any_runtime_server.read_logs("TrainingJobs", name)["algo-1"] if line[0] != "["] == [
        "ready",
        "resumed",
    ]
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


@pytest.mark.slow
def test_job_that_ignores_sigterm_is_killed_after_the_notice(any_runtime_server: LocalServer) -> None:
    name = start_interrupted_job(
        any_runtime_server, STUBBORN_SCRIPT, "--notice", "3", **make_spot_members(any_runtime_server, "stubborn")
    )
    job = any_runtime_server.wait_for_end(name)
    assert job["TrainingJobStatus"] == "Completed", job
    assert any_runtime_server.read_archive(name) == {"step": "7\n"}  # the archive has no files of the first host


@pytest.mark.engine
def test_all_hosts_are_interrupted_together(server: LocalServer) -> None:
    name = start_interrupted_job(server, RESUMING_SCRIPT, **make_spot_members(server, "together"), instances=2)
    assert list_secondary_statuses(server.wait_for_end(name)) == STATUSES_OF_TWO_ATTEMPTS
    assert {host: lines[-1] for host, lines in server.read_logs("TrainingJobs", name).items()} == {
        "algo-1": "resumed", "algo-2": "resumed",
    }  # fmt: skip


EPOCHS = 2000


@pytest.mark.engine
def test_interrupted_trainer_ends_at_the_same_weights(server: LocalServer) -> None:
    """The project's image saves a checkpoint when its host is interrupted, and the next host resumes from it."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        x = random.normal(size=(32, 4))
        for name, values in (("x", x), ("y", x.sum(axis=1))):
            path = server.bucket / f"spot/{split}/{name}_{split}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)
    uninterrupted_job = start_trainer(server, StoppingCondition={"MaxRuntimeInSeconds": 600})
    spot_job = start_trainer(server, **make_spot_members(server, "trainer", max_runtime=300, max_wait=600))
    wait_until(
        lambda: server.read_logs("TrainingJobs", spot_job),
        lambda lines: any("Epoch: 200 " in line for line in lines.get("algo-1", [])),
    )
    assert interrupt_job(server, spot_job).returncode == 0
    job = server.wait_for_end(spot_job)
    assert list_secondary_statuses(job) == STATUSES_OF_TWO_ATTEMPTS, job
    lines = "\n".join(server.read_logs("TrainingJobs", spot_job)["algo-1"])
    (epochs,) = re.findall(r"resuming after (\S+) of", lines)
    assert float(epochs) < EPOCHS  # the training was interrupted before its end
    assert server.wait_for_end(uninterrupted_job)["TrainingJobStatus"] == "Completed"
    assert read_onnx(server, spot_job) == read_onnx(server, uninterrupted_job)


def start_trainer(server: LocalServer, **members: Any) -> str:
    """Start a training job of about five seconds in the PyTorch image, and return its name."""
    request = make_training_request(server, "", **members)
    request["AlgorithmSpecification"] = {"TrainingImage": make_image_name("train-pytorch"), "TrainingInputMode": "File"}
    request["HyperParameters"] = {"epochs": str(EPOCHS), "batch_size": "16", "eval_every": "100"}
    request["InputDataConfig"] = [make_channel(split, server.uri(f"spot/{split}/")) for split in ("train", "test")]
    server.sagemaker.create_training_job(**request)
    return str(request["TrainingJobName"])


def read_onnx(server: LocalServer, name: str) -> bytes:
    with tarfile.open(server.bucket / f"models/{name}/output/model.tar.gz") as archive:
        file = archive.extractfile("model.onnx")
        assert file is not None
        return file.read()


ENDLESS_SCRIPT = RESUMING_SCRIPT.replace("exit 0; fi", "fi")
"""Does not end by itself, even after it has resumed."""


@pytest.mark.slow
def test_max_wait_includes_time_without_hosts(process_server: LocalServer) -> None:
    members = make_spot_members(process_server, "waits", max_runtime=9, max_wait=9)
    job = process_server.wait_for_end(start_interrupted_job(process_server, ENDLESS_SCRIPT, "--away", "6", **members))
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    # If the limit ignored the 6 s without hosts, TrainingTimeInSeconds would be 15: 9 s with hosts, and these 6 s.
    assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"] <= 12


@pytest.mark.slow
def test_max_runtime_includes_all_attempts(process_server: LocalServer) -> None:
    script = ENDLESS_SCRIPT.replace("echo ready", "sleep 2; echo ready")
    job = process_server.wait_for_end(
        start_interrupted_job(process_server, script, **make_spot_members(process_server, "longest", max_runtime=10))
    )
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded"
    # Each attempt takes more than 2 s (`sleep 2`). The difference would be larger if the first attempt were not billed.
    assert job["TrainingTimeInSeconds"] - job["BillableTimeInSeconds"] <= 2


def test_job_without_hosts_can_be_stopped(process_server: LocalServer) -> None:
    name = start_interrupted_job(
        process_server, RESUMING_SCRIPT, "--away", "1000", **make_spot_members(process_server, "stopped")
    )
    process_server.wait_for_secondary_status(name, "Interrupted")
    command = ["microjobs", "ps", "--status", "interrupted"]
    environment = {**os.environ, "MICROJOBS_HOME": str(process_server.home.root)}
    table = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^training +{name} +InProgress: Interrupted ", table, re.MULTILINE)
    process_server.sagemaker.stop_training_job(TrainingJobName=name)
    assert process_server.wait_for_end(name)["SecondaryStatus"] == "Stopped"


@pytest.mark.engine
def test_interruption_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    slow_script = RESUMING_SCRIPT.replace("exit 0' TERM", "sleep 3; exit 0' TERM")
    with run_server(tmp_path / "home", runtime="docker") as server:
        name = start_interrupted_job(server, slow_script, **make_spot_members(server, "outlives"))
        server.wait_for_secondary_status(name, "Interrupted")
        os.kill(server.address.pid, signal.SIGKILL)
        wait_until(lambda: control.find_server(server.home), lambda address: address is None)
        next_server = LocalServer(server.home, control.start(server.home, Config(port=0, runtime="docker")))
        assert list_secondary_statuses(next_server.wait_for_end(name)) == STATUSES_OF_TWO_ATTEMPTS
        assert next_server.read_archive(name) == {"step": "7\n"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"EnableManagedSpotTraining": True}, "must be present and be greater than or equal to MaxRuntimeInSeconds"),
        (
            {
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 8},
            },
            "must be present and be greater than or equal to MaxRuntimeInSeconds",
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 9}},
            "only supported when EnableManagedSpotTraining is set to true",
        ),
    ],
)
def test_contradictory_time_limits_raise(process_server: LocalServer, members: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        process_server.start_training("true", **members)


def test_only_running_spot_jobs_are_interrupted(process_server: LocalServer) -> None:
    on_demand_job = process_server.train("true")["TrainingJobName"]
    assert "is not a managed spot training job" in interrupt_job(process_server, on_demand_job).stderr
    completed_job = process_server.train("true", **make_spot_members(process_server, "completed"))["TrainingJobName"]
    assert "is Completed: only a job that is Training" in interrupt_job(process_server, completed_job).stderr
    assert (
        f"no job or endpoint in {process_server.home.root} is called nothing"
        in interrupt_job(process_server, "nothing").stderr
    )
    assert interrupt_job(process_server, on_demand_job, "--notice", "-1").returncode == 2
