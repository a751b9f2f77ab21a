"""Trains and serves with the image of this project, on a local server."""

import json
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from microjobs.local import LocalServer

PROJECT = Path(__file__).parent.parent
INSTANCES = {"InstanceType": "ml.m5.large", "InstanceCount": 1}


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """Build the image, as for AWS, and remove it after the tests.

    The environment variable `PYTHON_IMAGE` can name another base image.
    """
    name = f"line:test-{uuid.uuid4().hex}"
    build = ["docker", "build", "--quiet", "--build-arg", "PYTHON_IMAGE", "--tag", name, str(PROJECT)]
    subprocess.run(build, check=True)
    yield name
    subprocess.run(["docker", "rmi", "--force", name], check=True)


@pytest.fixture(scope="session")
def microjobs_settings() -> dict[str, Any]:
    return {"runtime": "docker"}  # without an engine, fail instead of choosing the process runtime


def train(server: LocalServer, image: str, rows: str, **hyperparameters: str) -> dict[str, Any]:
    """Run a training job to its end; return its description."""
    sagemaker, bucket = boto3.client("sagemaker"), f"s3://{server.bucket}"
    boto3.client("s3").put_object(Bucket=server.bucket, Key="data/train.csv", Body=rows.encode())
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{bucket}/data"}
    sagemaker.create_training_job(
        TrainingJobName="line",
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        HyperParameters=hyperparameters,
        InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        OutputDataConfig={"S3OutputPath": f"{bucket}/models"},
        ResourceConfig={**INSTANCES, "VolumeSizeInGB": 1},
        RoleArn=server.role_arn,
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    return wait(lambda: sagemaker.describe_training_job(TrainingJobName="line"), "TrainingJobStatus")


def wait(describe: Callable[[], dict[str, Any]], status_member: str) -> dict[str, Any]:
    """Wait until a job or an endpoint has a final status; return its description."""
    while (description := describe())[status_member] in ("InProgress", "Creating"):
        time.sleep(0.1)
    return description


def read_line(server: LocalServer, job: dict[str, Any]) -> dict[str, float]:
    archive = server.bucket_folder / job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{server.bucket}/")
    with tarfile.open(archive) as tar:
        return json.load(tar.extractfile("line.json"))


def test_training_fits_the_line(microjobs: LocalServer, image: str) -> None:
    job = train(microjobs, image, "0,1\n1,3\n2,5\n")
    assert read_line(microjobs, job) == pytest.approx({"slope": 2, "intercept": 1})


def test_line_can_go_through_the_origin(microjobs: LocalServer, image: str) -> None:
    job = train(microjobs, image, "1,2\n2,4\n", through_origin="true")
    assert read_line(microjobs, job) == pytest.approx({"slope": 2, "intercept": 0})


def test_too_few_rows_are_reported(microjobs: LocalServer, image: str) -> None:
    job = train(microjobs, image, "0,1\n")
    assert job["TrainingJobStatus"] == "Failed"
    assert "channel train has 1 rows; a line needs two" in job["FailureReason"]


def test_endpoint_predicts(microjobs: LocalServer, image: str) -> None:
    artifacts = train(microjobs, image, "0,1\n1,3\n2,5\n")["ModelArtifacts"]["S3ModelArtifacts"]
    sagemaker, container = boto3.client("sagemaker"), {"Image": image, "ModelDataUrl": artifacts}
    sagemaker.create_model(ModelName="line", PrimaryContainer=container, ExecutionRoleArn=microjobs.role_arn)
    variant = {"VariantName": "main", "ModelName": "line", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="line", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="line", EndpointConfigName="line")
    endpoint = wait(lambda: sagemaker.describe_endpoint(EndpointName="line"), "EndpointStatus")
    assert endpoint["EndpointStatus"] == "InService", endpoint["FailureReason"]
    runtime = boto3.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(EndpointName="line", ContentType="text/csv", Body=b"10\n-1\n")
    assert [float(y) for y in response["Body"].read().split()] == pytest.approx([21, -1])
