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
from tests.conftest import image_name
from tests.local.clients import ROOT, LocalServer, channel, running_server, training_request, wait_until

RESUMES = (
    f"cd {ROOT}; if [ -e checkpoints/step ]; then cp checkpoints/step model/; echo resumed; exit 0; fi; "
    "trap 'echo 7 > checkpoints/step; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
)
"""Saves a checkpoint on SIGTERM and ends with code 0, as our trainers do; resumes from a saved checkpoint."""

STUBBORN = RESUMES.replace("exit 0' TERM", "' TERM").replace("echo ready", "echo 0 > model/half; echo ready")


def spot_members(local: LocalServer, name: str, runtime: int = 60, wait: int = 90) -> dict[str, Any]:
    """Return the members of a spot job's request, with a separate folder of checkpoints."""
    return {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": runtime, "MaxWaitTimeInSeconds": wait},
        "CheckpointConfig": {"S3Uri": local.uri(f"checkpoints/{local.address.runtime}-{name}")},
    }


def interrupt(local: LocalServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MICROJOBS_HOME": str(local.home.root)}
    command = ["microjobs", "interrupt", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def start_interrupted_job(local: LocalServer, script: str, *flags: str, **members: Any) -> str:
    """Start a job, and interrupt it when it is ready."""
    name = local.start_training(script, **members)
    local.wait_for_log(name, "ready")
    done = interrupt(local, name, *flags)
    assert done.returncode == 0, done.stderr
    return name


def secondary_statuses(job: dict[str, Any]) -> list[str]:
    return [step["Status"] for step in job["SecondaryStatusTransitions"]]


TWO_ATTEMPTS = [
    "Starting", "Downloading", "Training", "Interrupted",
    "Starting", "Downloading", "Training", "Uploading", "Completed",
]  # fmt: skip


def test_interrupted_job_resumes_from_its_checkpoint(anywhere: LocalServer) -> None:
    name = start_interrupted_job(anywhere, RESUMES, **spot_members(anywhere, "resumes"))
    job = anywhere.wait_for_end(name)
    assert secondary_statuses(job) == TWO_ATTEMPTS
    assert anywhere.model(name) == {"step": "7\n"}
    assert [line for line in anywhere.read_logs("TrainingJobs", name)["algo-1"] if line[0] != "["] == [
        "ready",
        "resumed",
    ]
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


def test_job_that_ignores_sigterm_is_killed_after_the_notice(anywhere: LocalServer) -> None:
    name = start_interrupted_job(anywhere, STUBBORN, "--notice", "3", **spot_members(anywhere, "stubborn"))
    job = anywhere.wait_for_end(name)
    assert job["TrainingJobStatus"] == "Completed", job
    assert anywhere.model(name) == {"step": "7\n"}  # without files of the first host


@pytest.mark.engine
def test_all_hosts_are_interrupted_together(local: LocalServer) -> None:
    name = start_interrupted_job(local, RESUMES, **spot_members(local, "together"), instances=2)
    assert secondary_statuses(local.wait_for_end(name)) == TWO_ATTEMPTS
    assert {host: lines[-1] for host, lines in local.read_logs("TrainingJobs", name).items()} == {
        "algo-1": "resumed", "algo-2": "resumed",
    }  # fmt: skip


EPOCHS = 4000


@pytest.mark.engine
def test_interrupted_trainer_ends_at_the_same_weights(local: LocalServer) -> None:
    """Our own image saves a checkpoint when its host is interrupted, and the next host resumes from it."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        x = random.normal(size=(32, 4))
        for kind, values in (("x", x), ("y", x.sum(axis=1))):
            path = local.bucket / f"spot/{split}/{kind}_{split}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)
    complete = start_trainer(local)
    spot_job = start_trainer(local, **spot_members(local, "trainer", runtime=300, wait=600))
    wait_until(
        lambda: local.read_logs("TrainingJobs", spot_job),
        lambda lines: any("Epoch: 200 " in line for line in lines.get("algo-1", [])),
    )
    assert interrupt(local, spot_job).returncode == 0
    job = local.wait_for_end(spot_job)
    assert secondary_statuses(job) == TWO_ATTEMPTS, job
    lines = "\n".join(local.read_logs("TrainingJobs", spot_job)["algo-1"])
    (epochs,) = re.findall(r"resuming after (\S+) of", lines)
    assert float(epochs) < EPOCHS  # the interruption came during the training
    assert local.wait_for_end(complete)["TrainingJobStatus"] == "Completed"
    assert read_onnx(local, spot_job) == read_onnx(local, complete)


def start_trainer(local: LocalServer, **members: Any) -> str:
    """Start a training job of about ten seconds in the PyTorch image, and return its name."""
    request = training_request(local, "", **members)
    request["AlgorithmSpecification"] = {"TrainingImage": image_name("train-pytorch"), "TrainingInputMode": "File"}
    request["HyperParameters"] = {"epochs": str(EPOCHS), "batch_size": "16", "eval_every": "100"}
    request["InputDataConfig"] = [channel(split, local.uri(f"spot/{split}/")) for split in ("train", "test")]
    local.sagemaker.create_training_job(**request)
    return str(request["TrainingJobName"])


def read_onnx(local: LocalServer, name: str) -> bytes:
    with tarfile.open(local.bucket / f"models/{name}/output/model.tar.gz") as archive:
        file = archive.extractfile("model.onnx")
        assert file is not None
        return file.read()


FOREVER = RESUMES.replace("exit 0; fi", "fi")


def test_max_wait_includes_time_without_hosts(processes: LocalServer) -> None:
    members = spot_members(processes, "waits", runtime=9, wait=9)
    job = processes.wait_for_end(start_interrupted_job(processes, FOREVER, "--away", "6", **members))
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"] <= 12  # 15 if waiting time did not count


def test_max_runtime_includes_all_attempts(processes: LocalServer) -> None:
    forever = FOREVER.replace("echo ready", "sleep 2; echo ready")
    job = processes.wait_for_end(
        start_interrupted_job(processes, forever, **spot_members(processes, "longest", runtime=10))
    )
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded"
    # The first attempt takes longer than this difference, so it is billed too.
    assert job["TrainingTimeInSeconds"] - job["BillableTimeInSeconds"] <= 2


def test_job_without_hosts_can_be_stopped(processes: LocalServer) -> None:
    name = start_interrupted_job(processes, RESUMES, "--away", "1000", **spot_members(processes, "stopped"))
    processes.wait_for_secondary_status(name, "Interrupted")
    command = ["microjobs", "ps", "--status", "interrupted"]
    environment = {**os.environ, "MICROJOBS_HOME": str(processes.home.root)}
    table = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^training +{name} +InProgress: Interrupted ", table, re.MULTILINE)
    processes.sagemaker.stop_training_job(TrainingJobName=name)
    assert processes.wait_for_end(name)["SecondaryStatus"] == "Stopped"


@pytest.mark.engine
def test_interruption_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    slow = RESUMES.replace("exit 0' TERM", "sleep 3; exit 0' TERM")
    with running_server(tmp_path / "home", runtime="docker") as local:
        name = start_interrupted_job(local, slow, **spot_members(local, "outlives"))
        local.wait_for_secondary_status(name, "Interrupted")
        os.kill(local.address.pid, signal.SIGKILL)
        wait_until(lambda: control.find_server(local.home), lambda address: address is None)
        second = LocalServer(local.home, control.start(local.home, Config(port=0, runtime="docker")))
        assert secondary_statuses(second.wait_for_end(name)) == TWO_ATTEMPTS
        assert second.model(name) == {"step": "7\n"}


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
def test_contradictory_time_limits_raise(processes: LocalServer, members: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        processes.start_training("true", **members)


def test_only_running_spot_jobs_are_interrupted(processes: LocalServer) -> None:
    on_demand = processes.train("true")["TrainingJobName"]
    assert "is not a managed spot training job" in interrupt(processes, on_demand).stderr
    completed = processes.train("true", **spot_members(processes, "completed"))["TrainingJobName"]
    assert "is Completed: only a job that is Training" in interrupt(processes, completed).stderr
    assert f"no job or endpoint in {processes.home.root} is called nothing" in interrupt(processes, "nothing").stderr
    assert interrupt(processes, on_demand, "--notice", "-1").returncode == 2
