"""The same requests, the same results: one body runs in containers and as processes, and the two are compared."""

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
from tests.conftest import image_name
from tests.local.clients import OVER, LocalServer, channel, processing_input, processing_output, started, wait_until

pytestmark = pytest.mark.engine

ML = Layout()
SCORE = "predict"


def arrays(local: LocalServer) -> None:
    """Raw housing-like data, two files a kind for two hosts."""
    random = np.random.default_rng(0)
    weights = random.normal(size=5)
    for split, rows in (("train", 120), ("test", 40)):
        x = random.normal(3.0, 2.0, size=(rows, 5))
        y = x @ weights + random.normal(0, 0.1, size=rows)
        for number, (part_x, part_y) in enumerate(zip(np.split(x, 2), np.split(y, 2), strict=True)):
            for kind, part in (("x", part_x), ("y", part_y)):
                buffer = io.BytesIO()
                np.save(buffer, part)
                key = f"raw/{kind}_{split}-{number:05d}-of-00002.npy"
                local.s3.put_object(Bucket=local.address.bucket, Key=key, Body=buffer.getvalue())


def scale(local: LocalServer) -> dict[str, Any]:
    """Preprocessing on two hosts that each have half of the files."""
    outputs = [processing_output(name, local.uri(name), str(ML.processing(name))) for name in ("train", "test")]
    local.sagemaker.create_processing_job(
        ProcessingJobName="scale",
        AppSpecification={"ImageUri": image_name("preprocess")},
        ProcessingInputs=[processing_input("raw", local.uri("raw/"), str(ML.processing("input")), "ShardedByS3Key")],
        ProcessingOutputConfig={"Outputs": outputs},
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}},
        RoleArn=local.address.role_arn,
    )
    return ended(lambda: local.sagemaker.describe_processing_job(ProcessingJobName="scale"), "ProcessingJobStatus")


def train(local: LocalServer, name: str, **hyperparameters: str) -> dict[str, Any]:
    metrics = [{"Name": "val_loss", "Regex": r"Test loss: ([0-9\.]+)"}]
    local.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": image_name("train-pytorch"),
            "TrainingInputMode": "File",
            "MetricDefinitions": metrics,
        },
        HyperParameters={"epochs": "4", "eval_every": "2", **hyperparameters},
        InputDataConfig=[channel(split, local.uri(f"{split}/")) for split in ("train", "test")],
        OutputDataConfig={"S3OutputPath": local.uri("models")},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
        RoleArn=local.address.role_arn,
        Environment={"COLOUR": "blue"},
    )
    return ended(lambda: local.sagemaker.describe_training_job(TrainingJobName=name), "TrainingJobStatus")


def predict(local: LocalServer, model_uri: str) -> Any:
    """An answer of an endpoint, which is deleted again."""
    client = local.sagemaker
    container = {"Image": image_name("serve"), "ModelDataUrl": model_uri}
    client.create_model(ModelName=SCORE, PrimaryContainer=container, ExecutionRoleArn=local.address.role_arn)
    variant = {"VariantName": "all", "ModelName": SCORE, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    client.create_endpoint_config(EndpointConfigName=SCORE, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=SCORE, EndpointConfigName=SCORE)
    wait_until(lambda: client.describe_endpoint(EndpointName=SCORE), lambda it: it["EndpointStatus"] == "InService")
    answer = local.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=SCORE, ContentType="application/json", Body=json.dumps({"instances": [[0.5] * 5, [-0.5] * 5]})
    )
    client.delete_endpoint(EndpointName=SCORE)
    return json.load(answer["Body"])


def ended(describe: Callable[[], Any], status: str) -> dict[str, Any]:
    job: dict[str, Any] = wait_until(describe, lambda job: job[status] in OVER, seconds=300)
    return job


def lasting(described: Any) -> Any:
    """A description or answer without what every run has of its own: times, and the last digits."""
    if isinstance(described, dict):
        return {
            name: lasting(value)
            for name, value in described.items()
            if not name.endswith(("Time", "TimeInSeconds", "Timestamp")) and name != "ResponseMetadata"
        }
    if isinstance(described, list):
        return [lasting(item) for item in described]
    return round(described, 4) if isinstance(described, float) else described


def objects(local: LocalServer) -> dict[str, Any]:
    """Every object: arrays as numbers, archives as the files in them."""
    return {
        path.relative_to(local.bucket).as_posix(): _content(path) for path in local.bucket.rglob("*") if path.is_file()
    }


def _content(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path).round(6).tolist()
    if path.suffix == ".json":
        return _in_short(path.read_text())
    with tarfile.open(path) as archive:
        files = {item.name: archive.extractfile(item) for item in archive if item.isfile()}
        texts = {name: file.read().decode() for name, file in files.items() if file and name.endswith(".json")}
        return sorted(files), {name: _in_short(text) for name, text in texts.items()}


def _in_short(text: str) -> str:
    """Numbers without their last digits, and none for how long it took."""
    text = re.sub(r'"seconds": [\d.]+', "", text)
    return re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4f}", text)


def lines(local: LocalServer, group: str, job: str) -> dict[str, list[str]]:
    """What hosts printed, without times and addresses."""
    noise = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ |\d+\.\d+ s\b|tcp://\S+")
    return {host: [noise.sub("", line) for line in said] for host, said in local.output(group, job).items()}


def run(folder: Path, runtime: str) -> dict[str, Any]:
    """Everything that a client sees of the same work."""
    with started(folder, runtime=runtime) as local:
        assert local.address.runtime == runtime
        arrays(local)
        scaled = scale(local)
        trained = train(local, "train", seed="1")
        refused = train(local, "refused", epoch="1")
        return {
            "jobs": [lasting(job) for job in (scaled, trained, refused)],
            "answer": lasting(predict(local, trained["ModelArtifacts"]["S3ModelArtifacts"])),
            "objects": objects(local),
            "lines": [lines(local, "ProcessingJobs", "scale"), lines(local, "TrainingJobs", "train")],
        }


@pytest.mark.timeout(900)
def test_containers_and_processes_give_the_same(tmp_path: Path) -> None:
    in_containers, as_processes = (run(tmp_path / runtime, runtime) for runtime in ("docker", "process"))
    statuses = [job.get("TrainingJobStatus", "Completed") for job in in_containers["jobs"]]
    assert statuses == ["Completed", "Completed", "Failed"]
    for part, found in in_containers.items():
        assert as_processes[part] == found
