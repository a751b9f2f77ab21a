"""A trained model is served by the image that trained it, through the API, in containers and as processes."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.predictor import Predictor
from tests.conftest import image_name
from tests.local.clients import LocalServer, channel, unique
from tests.local.test_hosting import deploy, endpoints, make_config

pytestmark = pytest.mark.timeout(600)

__all__ = ["endpoints"]  # a fixture

ROWS = np.array([[1.0, 2.0], [0.5, -1.0]])


def train(local: LocalServer, job: str) -> str:
    """Train the image's own model on two features, and return the S3 address of the artifacts."""
    name = unique("trained")
    x = np.random.default_rng(0).normal(size=(64, 2))
    for split in ("train", "test"):
        folder = local.bucket / name / split
        folder.mkdir(parents=True)
        np.save(folder / f"x_{split}.npy", x)
        np.save(folder / f"y_{split}.npy", x.sum(axis=1))
    local.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={"TrainingImage": image_name(job), "TrainingInputMode": "File"},
        HyperParameters={"epochs": "2"},
        InputDataConfig=[channel(split, local.uri(f"{name}/{split}")) for split in ("train", "test")],
        OutputDataConfig={"S3OutputPath": local.uri("models")},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 500},
        RoleArn=local.address.role_arn,
    )
    described = local.wait_for_end(name)
    assert described["TrainingJobStatus"] == "Completed", described
    return str(described["ModelArtifacts"]["S3ModelArtifacts"])


def predict_locally(local: LocalServer, artifacts: str, folder: Path) -> Any:
    """Return the predictions of the ONNX file in the archive."""
    with tarfile.open(local.bucket / artifacts.removeprefix(local.uri()).lstrip("/")) as archive:
        archive.extractall(folder, filter="data")
    return Predictor(read_bundle(folder)).predict(ROWS)


@pytest.mark.parametrize("job", ["train-tensorflow", pytest.param("train-pytorch", marks=pytest.mark.pytorch)])
def test_trained_model_is_served_by_its_own_image(
    job: str, anywhere: LocalServer, endpoints: list[str], tmp_path: Path
) -> None:
    artifacts = train(anywhere, job)
    model = unique("trained")
    environment = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    container = {"Image": image_name(job), "ModelDataUrl": artifacts, "Environment": environment}
    role = anywhere.address.role_arn
    anywhere.sagemaker.create_model(ModelName=model, PrimaryContainer=container, ExecutionRoleArn=role)
    name = deploy(anywhere, make_config(anywhere, model), endpoints)
    body = json.dumps({"instances": ROWS.tolist()})
    runtime = anywhere.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="application/json")
    predictions = json.loads(response["Body"].read())["predictions"]
    np.testing.assert_allclose(predictions, predict_locally(anywhere, artifacts, tmp_path), rtol=1e-4, atol=1e-5)
