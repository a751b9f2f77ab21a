"""Tests of data capture, shadow variants and serverless variants, in containers and as processes."""

import itertools
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from tests.conftest import make_image_name
from tests.local.clients import LocalServer, make_unique_name, run_server
from tests.local.resources.examples.models import put_program
from tests.local.test_hosting import ROW, make_model, wait_for_endpoint
from tests.polling import wait_until

SLOW_PROGRAM = """import time
def model_fn(folder): return 1
def transform_fn(model, body, content_type, accept):
    time.sleep(1)
    return "slow", accept
"""
SERVERLESS = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}


def make_variant(model: str, name: str = "main", **members: Any) -> dict[str, Any]:
    return {"VariantName": name, "ModelName": model, **members}


def make_capture_config(server: LocalServer) -> dict[str, Any]:
    return {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": server.uri("captured"),
        "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
    }


def deploy(server: LocalServer, **config: Any) -> str:
    """Create a configuration and an endpoint of the same name; return the name when it is InService."""
    name = make_unique_name("variants")
    server.sagemaker.create_endpoint_config(EndpointConfigName=name, **config)
    server.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    description = wait_for_endpoint(server, name)
    assert description["EndpointStatus"] == "InService", description.get("FailureReason")
    return name


def predict(server: LocalServer, name: str, **members: Any) -> str:
    runtime = server.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(
        EndpointName=name, Body=ROW, ContentType="text/csv", Accept="text/csv", **members
    )
    return str(response["Body"].read().decode().strip())


def read_captures(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the captured input and output of one exchange per variant, by the name of the variant."""
    return {
        path.relative_to(folder).parts[0]: tuple(
            json.loads(path.read_text())["captureData"][member]["data"].strip()
            for member in ("endpointInput", "endpointOutput")
        )
        for path in folder.rglob("*.jsonl")
    }


@pytest.mark.slow
def test_captured_data_have_the_responses_of_both_variants(any_runtime_server: LocalServer) -> None:
    instances: dict[str, Any] = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    name = deploy(
        any_runtime_server,
        ProductionVariants=[make_variant(make_model(any_runtime_server, 1.0), **instances)],
        ShadowProductionVariants=[make_variant(make_model(any_runtime_server, 2.0), "shadow", **instances)],
        DataCaptureConfig=make_capture_config(any_runtime_server),
    )
    assert predict(any_runtime_server, name) == "6.0"
    folder, expected = (
        any_runtime_server.bucket / "captured" / name,
        {"main": ("1,2,3", "6.0"), "shadow": ("1,2,3", "12.0")},
    )
    assert wait_until(lambda: read_captures(folder), lambda captures: len(captures) == 2) == expected
    description = any_runtime_server.sagemaker.describe_endpoint(EndpointName=name)
    assert description["DataCaptureConfig"]["CaptureStatus"] == "Started"
    assert description["ShadowProductionVariants"][0]["VariantName"] == "shadow"
    any_runtime_server.sagemaker.delete_endpoint(EndpointName=name)


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.mark.engine
def test_serverless_container_starts_with_a_request_and_stops(tmp_path: Path, engine: docker.DockerClient) -> None:
    def list_containers(name: str) -> list[Any]:
        return engine.containers.list(all=True, ignore_removed=True, filters={"name": f"-{name}-main-"})

    with run_server(tmp_path, runtime="docker", serverless_idle_seconds=2) as server:
        name = deploy(server, ProductionVariants=[make_variant(make_model(server, 1.0), ServerlessConfig=SERVERLESS)])
        (container,) = list_containers(name)
        assert container.attrs["HostConfig"]["Memory"] == 1 << 30
        wait_until(lambda: not list_containers(name), bool)
        assert predict(server, name) == "6.0"
        assert len(list_containers(name)) == 1
        wait_until(lambda: not list_containers(name), bool)
        assert server.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"


def make_slow_model(server: LocalServer) -> str:
    """Create a model that needs a second for each response; return its name."""
    name = make_unique_name("slow")
    put_program(server, f"{name}.tar.gz", SLOW_PROGRAM)
    container = {"Image": make_image_name("serve"), "ModelDataUrl": server.uri(f"{name}.tar.gz")}
    server.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=server.address.role_arn)
    return name


@pytest.mark.slow
def test_serverless_requests_beyond_the_concurrency_get_429(any_runtime_server: LocalServer) -> None:
    name = deploy(
        any_runtime_server,
        ProductionVariants=[make_variant(make_slow_model(any_runtime_server), ServerlessConfig=SERVERLESS)],
    )
    with ThreadPoolExecutor() as pool:
        responses = [pool.submit(predict, any_runtime_server, name) for _ in range(2)]
        errors = [error for response in responses if (error := response.exception()) is not None]
    (error,) = errors
    assert isinstance(error, ClientError)
    assert error.response["Error"]["Code"] == "ThrottlingException"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    any_runtime_server.sagemaker.delete_endpoint(EndpointName=name)


@pytest.mark.slow
def test_variants_resume_and_captures_are_complete_after_the_server_is_killed(tmp_path: Path) -> None:
    instances: dict[str, Any] = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    with run_server(tmp_path, runtime="process") as server:
        model = make_model(server, 1.0)
        capture_endpoint = deploy(
            server,
            ProductionVariants=[make_variant(model, **instances)],
            ShadowProductionVariants=[make_variant(model, "shadow", **instances)],
            DataCaptureConfig=make_capture_config(server),
        )
        serverless_endpoint = deploy(server, ProductionVariants=[make_variant(model, ServerlessConfig=SERVERLESS)])
        folder = server.bucket / "captured"
        with ThreadPoolExecutor() as pool:
            clients = [
                pool.submit(predict_until_error, server, name)
                for name in (capture_endpoint, capture_endpoint, serverless_endpoint)
            ]
            wait_until(
                lambda: list_variants(folder / capture_endpoint), lambda variants: variants == {"main", "shadow"}
            )
            os.kill(server.address.pid, signal.SIGKILL)
            assert all(client.result() > 0 for client in clients)
        files_before = set((folder / capture_endpoint / "shadow").rglob("*.jsonl"))
        next_server = LocalServer(server.home, control.start(server.home, Config(port=0, runtime="process")))
        for name in (capture_endpoint, serverless_endpoint):
            wait_until(partial(is_responding, next_server, name), bool)
        wait_until(lambda: set((folder / capture_endpoint / "shadow").rglob("*.jsonl")) - files_before, bool)
        lines = [line for path in folder.rglob("*.jsonl") for line in path.read_text().splitlines()]
        assert {json.loads(line)["captureData"]["endpointOutput"]["data"].strip() for line in lines} == {"6.0"}


def list_variants(folder: Path) -> set[str]:
    """Return the variants whose captured data are in a folder."""
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*.jsonl")}


def predict_until_error(server: LocalServer, name: str) -> int:
    """Invoke an endpoint until the server is killed; return the number of responses."""
    for count in itertools.count():
        try:
            predict(server, name)
        except (BotoCoreError, ClientError):
            return count
    raise AssertionError


def is_responding(server: LocalServer, name: str) -> bool:
    try:
        return predict(server, name) == "6.0"
    except ClientError:
        return False
