"""Tests that endpoints serve trained models, in containers and as processes."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.contract import Layout
from microjobs.predictor import Predictor
from tests.conftest import make_image_name
from tests.local.clients import (
    LocalServer,
    make_channel,
    make_processing_input,
    make_processing_output,
    make_unique_name,
)
from tests.local.test_hosting import deploy, endpoints, make_config

pytestmark = pytest.mark.timeout(600)

__all__ = ["endpoints"]  # pytest uses this name as a fixture

LAYOUT = Layout()
ROWS = np.array([[1.0, 2.0], [0.5, -1.0]])


def put_arrays(server: LocalServer) -> str:
    """Store two features and their sum in the bucket, and return the key of the folder."""
    name = make_unique_name("arrays")
    x = np.random.default_rng(0).normal(size=(64, 2))
    for split in ("train", "test"):
        folder = server.bucket / name / split
        folder.mkdir(parents=True)
        np.save(folder / f"x_{split}.npy", x)
        np.save(folder / f"y_{split}.npy", x.sum(axis=1))
    return name


def train_model(server: LocalServer, job: str, data: str) -> str:
    """Train the image's own model on the arrays in a folder, and return the S3 address of the artifacts."""
    name = make_unique_name("trained")
    server.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={"TrainingImage": make_image_name(job), "TrainingInputMode": "File"},
        HyperParameters={"epochs": "2"},
        InputDataConfig=[make_channel(split, server.uri(f"{data}/{split}")) for split in ("train", "test")],
        OutputDataConfig={"S3OutputPath": server.uri("models")},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 500},
        RoleArn=server.address.role_arn,
    )
    description = server.wait_for_end(name)
    assert description["TrainingJobStatus"] == "Completed", description
    return str(description["ModelArtifacts"]["S3ModelArtifacts"])


def deploy_artifacts(server: LocalServer, job: str, artifacts: str, endpoints: list[str]) -> str:
    """Deploy a model with an image of this repository, and return the name of the endpoint."""
    model = make_unique_name("trained")
    environment = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    container = {"Image": make_image_name(job), "ModelDataUrl": artifacts, "Environment": environment}
    role = server.address.role_arn
    server.sagemaker.create_model(ModelName=model, PrimaryContainer=container, ExecutionRoleArn=role)
    return deploy(server, make_config(server, model), endpoints)


def predict(server: LocalServer, name: str, instances: Any, **members: Any) -> Any:
    runtime, body = server.client("sagemaker-runtime"), json.dumps({"instances": instances, **members})
    response = runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="application/json")
    return json.loads(response["Body"].read())["predictions"]


def predict_locally(server: LocalServer, artifacts: str, folder: Path) -> Any:
    """Return the predictions of the ONNX file in the archive."""
    with tarfile.open(server.bucket / artifacts.removeprefix(server.uri()).lstrip("/")) as archive:
        archive.extractall(folder, filter="data")
    return Predictor(read_bundle(folder)).predict(ROWS)


@pytest.mark.parametrize("job", ["train-tensorflow", pytest.param("train-pytorch", marks=pytest.mark.pytorch)])
@pytest.mark.slow
def test_trained_model_is_served_by_its_own_image(
    job: str, any_runtime_server: LocalServer, endpoints: list[str], tmp_path: Path
) -> None:
    artifacts = train_model(any_runtime_server, job, put_arrays(any_runtime_server))
    name = deploy_artifacts(any_runtime_server, job, artifacts, endpoints)
    predictions = predict(any_runtime_server, name, ROWS.tolist())
    np.testing.assert_allclose(
        predictions, predict_locally(any_runtime_server, artifacts, tmp_path), rtol=1e-4, atol=1e-5
    )


# The fixture `endpoints` deletes the endpoints of `any_runtime_server`. Therefore, this test uses `any_runtime_server`,
# but with one runtime only.
@pytest.mark.parametrize("any_runtime_server", [pytest.param("server", marks=pytest.mark.engine)], indirect=True)
def test_endpoint_accepts_rows_of_the_table_that_preprocess_converted(
    any_runtime_server: LocalServer, endpoints: list[str]
) -> None:
    columns = {"age": {"type": "numeric", "missing": "median"}, "city": "one-hot", "id": "drop", "price": "target"}
    rows = [(20 + number, ("Bonn", "Oslo", "Rome")[number % 3], number, number / 10) for number in range(60)]
    data = make_unique_name("table")
    any_runtime_server.put({f"{data}/raw/columns.json": json.dumps(columns)})
    for split, split_rows in (("train", rows[::2]), ("test", [("", *rows[1][1:]), *rows[3::2]])):
        lines = [",".join(map(str, row)) for row in split_rows]
        any_runtime_server.put({f"{data}/raw/{split}.csv": "\n".join(["age,city,id,price", *lines, ""])})
    job = any_runtime_server.process(
        "",
        AppSpecification={
            "ImageUri": make_image_name("preprocess"),
            "ContainerArguments": ["--columns", "columns.json"],
        },
        ProcessingInputs=[
            make_processing_input("raw", any_runtime_server.uri(f"{data}/raw"), str(LAYOUT.processing("input")))
        ],
        ProcessingOutputConfig={
            "Outputs": [
                make_processing_output(split, any_runtime_server.uri(f"{data}/{split}"), str(LAYOUT.processing(split)))
                for split in ("train", "test")
            ]
        },
    )
    assert job["ProcessingJobStatus"] == "Completed", job
    name = deploy_artifacts(
        any_runtime_server, "serve", train_model(any_runtime_server, "train-tensorflow", data), endpoints
    )
    features = np.load(any_runtime_server.bucket / data / "test" / "x_test.npy")
    table = [{"age": None, "city": "Oslo"}, {"age": 23, "city": "Bonn"}]
    predictions = predict(any_runtime_server, name, table, signature_name="raw")
    np.testing.assert_allclose(predictions, predict(any_runtime_server, name, features[:2].tolist()), rtol=1e-5)
