"""Tests that requests have the same results on both runtimes: an example of each kind, and a workflow of real jobs."""

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.local.kinds import Kind, load_kinds
from tests.conftest import make_image_name
from tests.local.clients import (
    FINAL_STATUSES,
    LocalServer,
    make_channel,
    make_processing_input,
    make_processing_output,
    make_unique_name,
    run_server,
)
from tests.local.resources.examples import call, create_example
from tests.polling import wait_until

pytestmark = pytest.mark.engine

LAYOUT = Layout()
ENDPOINT = "predict"
NOISE = re.compile(
    r"^\d{4}[-/]\d\d[-/]\d\d [\d:,]+ |\d+\.\d+ s\b|tcp://\S+|on (port \d+|/\S+/http\.socket)"
    r"|/\S+(?=/site-packages/)"
)
"""Times, addresses, and the folders of virtual environments, in log lines."""
RANDOM_PART = re.compile(r"(?<=^http://)[\d.]+:\d+|\bi-[0-9a-f]+$|\b\d{9,}$|(?<=-\d{3}-)[0-9a-f]{8}\b")
"""The varying part of texts: the server's address, an endpoint's instance, the time in a log stream's name, the suffix
of a trial."""


def create_arrays(server: LocalServer) -> None:
    """Store random data with five features, in two files per split, for two hosts."""
    random = np.random.default_rng(0)
    weights = random.normal(size=5)
    for split, rows in (("train", 120), ("test", 40)):
        x = random.normal(3.0, 2.0, size=(rows, 5))
        y = x @ weights + random.normal(0, 0.1, size=rows)
        for number, (part_x, part_y) in enumerate(zip(np.split(x, 2), np.split(y, 2), strict=True)):
            for name, part in (("x", part_x), ("y", part_y)):
                buffer = io.BytesIO()
                np.save(buffer, part)
                key = f"raw/{name}_{split}-{number:05d}-of-00002.npy"
                server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=buffer.getvalue())


def scale_data(server: LocalServer) -> dict[str, Any]:
    """Preprocess the data on two hosts. Each host gets half of the files."""
    outputs = [
        make_processing_output(name, server.uri(name), str(LAYOUT.processing(name))) for name in ("train", "test")
    ]
    server.sagemaker.create_processing_job(
        ProcessingJobName="scale",
        AppSpecification={"ImageUri": make_image_name("preprocess")},
        ProcessingInputs=[
            make_processing_input("raw", server.uri("raw/"), str(LAYOUT.processing("input")), "ShardedByS3Key")
        ],
        ProcessingOutputConfig={"Outputs": outputs},
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}},
        RoleArn=server.address.role_arn,
    )
    return wait_for_end(
        lambda: server.sagemaker.describe_processing_job(ProcessingJobName="scale"), "ProcessingJobStatus"
    )


def train_model(server: LocalServer, name: str, **hyperparameters: str) -> dict[str, Any]:
    metrics = [{"Name": "val_loss", "Regex": r"Test loss: ([0-9\.]+)"}]
    server.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": make_image_name("train-pytorch"),
            "TrainingInputMode": "File",
            "MetricDefinitions": metrics,
        },
        HyperParameters={"epochs": "4", "eval_every": "2", **hyperparameters},
        InputDataConfig=[make_channel(split, server.uri(f"{split}/")) for split in ("train", "test")],
        OutputDataConfig={"S3OutputPath": server.uri("models")},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
        RoleArn=server.address.role_arn,
        Environment={"COLOUR": "blue"},
    )
    return wait_for_end(lambda: server.sagemaker.describe_training_job(TrainingJobName=name), "TrainingJobStatus")


def predict(server: LocalServer, model_uri: str) -> Any:
    """Deploy a model, return one prediction of the endpoint, and delete the endpoint."""
    client = server.sagemaker
    container = {"Image": make_image_name("serve"), "ModelDataUrl": model_uri}
    client.create_model(ModelName=ENDPOINT, PrimaryContainer=container, ExecutionRoleArn=server.address.role_arn)
    variant = {"VariantName": "all", "ModelName": ENDPOINT, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    client.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    wait_until(
        lambda: client.describe_endpoint(EndpointName=ENDPOINT),
        lambda description: description["EndpointStatus"] == "InService",
    )
    response = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=ENDPOINT, ContentType="application/json", Body=json.dumps({"instances": [[0.5] * 5, [-0.5] * 5]})
    )
    client.delete_endpoint(EndpointName=ENDPOINT)
    return json.load(response["Body"])


def wait_for_end(describe: Callable[[], Any], status_member: str) -> dict[str, Any]:
    job: dict[str, Any] = wait_until(describe, lambda job: job[status_member] in FINAL_STATUSES, seconds=300)
    return job


def remove_varying_parts(value: Any) -> Any:
    """Return a description or response without the parts that differ between runs: times, random
    names, and all digits of a number after the fourth decimal place."""
    match value:
        case dict():
            return {
                remove_varying_parts(name): remove_varying_parts(item)
                for name, item in value.items()
                if not name.endswith(("Time", "TimeInSeconds", "Timestamp")) and name != "ResponseMetadata"
            }
        case list():
            return [remove_varying_parts(item) for item in value]
        case float():
            return round(value, 4)
        case str():
            return RANDOM_PART.sub("", value)
    return value


def read_objects(folder: Path) -> dict[str, Any]:
    """Return the objects below a folder: arrays as numbers, archives as the names of their
    files and the contents of their JSON files."""
    return {path.relative_to(folder).as_posix(): _read_object(path) for path in folder.rglob("*") if path.is_file()}


def _read_object(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path).round(6).tolist()
    if path.suffix != ".gz":
        return _round_numbers(path.read_text())
    with tarfile.open(path) as archive:
        files = {item.name: archive.extractfile(item) for item in archive if item.isfile()}
        texts = {name: file.read().decode() for name, file in files.items() if file and name.endswith(".json")}
        return sorted(files), {name: _round_numbers(text) for name, text in texts.items()}


def _round_numbers(text: str) -> str:
    """Round the numbers of a text, and remove durations."""
    text = re.sub(r'"seconds": [\d.]+', "", text)
    return re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4f}", text)


def read_lines(server: LocalServer, group: str, job: str) -> dict[str, list[str]]:
    """Return the lines of a job's hosts, without times and addresses."""
    return {host: [NOISE.sub("", line) for line in lines] for host, lines in server.read_logs(group, job).items()}


def run_workflow(folder: Path, runtime: str) -> dict[str, Any]:
    """Scale, train and predict on a new server; return everything that a client sees."""
    with run_server(folder, runtime=runtime) as server:
        assert server.address.runtime == runtime
        create_arrays(server)
        scaling_job = scale_data(server)
        training_job = train_model(server, "train", seed="1")
        failed_job = train_model(server, "failed", epoch="1")
        return {
            "jobs": [remove_varying_parts(job) for job in (scaling_job, training_job, failed_job)],
            "prediction": remove_varying_parts(predict(server, training_job["ModelArtifacts"]["S3ModelArtifacts"])),
            "objects": read_objects(server.bucket),
            "lines": [read_lines(server, "ProcessingJobs", "scale"), read_lines(server, "TrainingJobs", "train")],
        }


@pytest.mark.timeout(900)
def test_workflow_has_same_results_on_both_runtimes(tmp_path: Path) -> None:
    docker, process = (run_workflow(tmp_path / runtime, runtime) for runtime in ("docker", "process"))
    statuses = [job.get("TrainingJobStatus", "Completed") for job in docker["jobs"]]
    assert statuses == ["Completed", "Completed", "Failed"]
    for part, result in docker.items():
        assert process[part] == result


def run_example(server: LocalServer, kind: Kind, name: str) -> dict[str, Any]:
    """Create the example of a kind, wait until it runs or has ended; return everything that a client sees."""
    create_example(server, kind, name)
    description = call(server, kind, "Describe", name)
    if (lifecycle := kind.lifecycle) is not None:
        description = wait_until(
            lambda: call(server, kind, "Describe", name),
            lambda resource: resource[kind.status_member] not in lifecycle.transitional_statuses,
            seconds=270,  # the installation of MLflow's packages is slow if other tests run
        )
        assert description[kind.status_member] == lifecycle.success_status, description
        if lifecycle.runs_until_deleted:
            call(server, kind, "Delete", name)
    streams = server.read_log_streams(kind.log_group(name), kind.log_prefix(name)) if kind.logs else {}
    lines = {stream: [NOISE.sub("", line) for line in lines] for stream, lines in streams.items()}
    results = {"description": description, "objects": read_objects(server.bucket / name), "lines": lines}
    return {part: remove_varying_parts(value) for part, value in results.items()}


@pytest.mark.parametrize("kind", load_kinds(), ids=lambda kind: kind.arn_type)
def test_kind_has_same_results_on_both_runtimes(kind: Kind, server: LocalServer, process_server: LocalServer) -> None:
    name = make_unique_name("example")
    docker, process = (run_example(each_server, kind, name) for each_server in (server, process_server))
    assert process == docker
