"""Endpoints and transform jobs through the API, with containers of the image `serve`."""

import json
import os
import signal
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from botocore.exceptions import ClientError
from docker.models.containers import Container

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from tests.bundles import write_linear_bundle
from tests.conftest import make_image_name
from tests.local.clients import LocalServer, make_unique_name, run_server, wait_until

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def summing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a model that sums its three features."""
    folder = tmp_path_factory.mktemp("bundle")
    write_linear_bundle(folder / "model", [1.0] * 3, 0.0)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(folder / "model", ".")
    return folder / "model.tar.gz"


def make_model(local: LocalServer, archive: Path, **members: Any) -> str:
    name = make_unique_name("model")
    (local.bucket / f"{name}.tar.gz").write_bytes(archive.read_bytes())
    container = {"Image": make_image_name("serve"), "ModelDataUrl": local.uri(f"{name}.tar.gz")}
    local.sagemaker.create_model(
        ModelName=name, PrimaryContainer=container, ExecutionRoleArn=local.address.role_arn, **members
    )
    return name


def deploy(local: LocalServer, model: str) -> dict[str, Any]:
    name = make_unique_name("endpoint")
    variant = {"VariantName": "main", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    local.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    local.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return wait_for_endpoint(local, name)


def wait_for_endpoint(local: LocalServer, name: str) -> dict[str, Any]:
    description: dict[str, Any] = wait_until(
        lambda: local.sagemaker.describe_endpoint(EndpointName=name),
        lambda description: description["EndpointStatus"] in ("InService", "Failed"),
    )
    return description


def predict(local: LocalServer, endpoint: str, body: str = '{"instances": [[1, 2, 3]]}') -> Any:
    runtime = local.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="application/json")
    assert response["InvokedProductionVariant"] == "main"
    return json.load(response["Body"])


def delete(local: LocalServer, endpoint: str) -> None:
    local.sagemaker.delete_endpoint_config(EndpointConfigName=endpoint)  # the SDK deletes the resources in this order
    local.sagemaker.delete_endpoint(EndpointName=endpoint)
    local.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=endpoint, WaiterConfig={"Delay": 1, "MaxAttempts": 40}
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


def find_container(engine: docker.DockerClient, endpoint: str) -> Container:
    (container,) = list_containers(engine, endpoint)
    return container


def list_containers(engine: docker.DockerClient, endpoint: str) -> list[Container]:
    # `ignore_removed`, because a container of an earlier start may disappear during the request.
    return engine.containers.list(all=True, ignore_removed=True, filters={"name": f"-{endpoint}-main-"})


def test_endpoint_responds_and_is_deleted(local: LocalServer, summing_model: Path, engine: docker.DockerClient) -> None:
    description = deploy(local, make_model(local, summing_model))
    name = description["EndpointName"]
    assert description["EndpointStatus"] == "InService"
    assert predict(local, name) == {"predictions": [[6.0]]}
    (stream,) = local.logs.describe_log_streams(logGroupName=f"/aws/sagemaker/Endpoints/{name}")["logStreams"]
    assert stream["logStreamName"].startswith("main/i-")
    delete(local, name)
    assert list_containers(engine, name) == []


def test_invalid_request_is_a_model_error(local: LocalServer, summing_model: Path) -> None:
    name = deploy(local, make_model(local, summing_model))["EndpointName"]
    with pytest.raises(ClientError, match=r"Received client error \(400\) from primary") as caught:
        predict(local, name, "{")
    assert caught.value.response["OriginalStatusCode"] == 400  # type: ignore[typeddict-item]
    delete(local, name)


def test_failure_reason_explains_invalid_model(local: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("1")
    with tarfile.open(tmp_path / "odd.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "weights", "weights")
    description = deploy(local, make_model(local, tmp_path / "odd.tar.gz"))
    assert description["EndpointStatus"] == "Failed"
    assert (
        "did not pass the ping health check. The container ended before GET /ping answered 200. Exit code: 2."
        in description["FailureReason"]
    )
    assert "has no model.onnx or code/inference.py" in description["FailureReason"]
    delete(local, description["EndpointName"])


def test_isolated_container_responds(local: LocalServer, summing_model: Path) -> None:
    name = deploy(local, make_model(local, summing_model, EnableNetworkIsolation=True))["EndpointName"]
    assert predict(local, name) == {"predictions": [[6.0]]}
    delete(local, name)


def test_killed_container_is_restarted(local: LocalServer, summing_model: Path, engine: docker.DockerClient) -> None:
    name = deploy(local, make_model(local, summing_model))["EndpointName"]
    container = find_container(engine, name)
    container.kill()
    wait_until(lambda: [item.id for item in list_containers(engine, name)], lambda ids: ids and ids != [container.id])
    wait_until(lambda: _is_responding(local, name), bool)
    delete(local, name)


def _is_responding(local: LocalServer, name: str) -> bool:
    try:
        return bool(predict(local, name) == {"predictions": [[6.0]]})
    except ClientError:
        return False


def test_endpoint_outlives_its_server(tmp_path: Path, summing_model: Path, engine: docker.DockerClient) -> None:
    with run_server(tmp_path, runtime="docker") as killed_server:
        home, config = killed_server.home, Config(port=0, runtime="docker")
        name = deploy(killed_server, make_model(killed_server, summing_model))["EndpointName"]
        container_id = find_container(engine, name).id
        os.kill(killed_server.address.pid, signal.SIGKILL)
        time.sleep(0.1)
        stopped_server = LocalServer(home, control.start(home, config))
        wait_until(lambda: _is_responding(stopped_server, name), bool)
        assert find_container(engine, name).id == container_id
        control.stop(home)
        assert list_containers(engine, name) == []
        last_server = LocalServer(home, control.start(home, config))
        wait_until(lambda: _is_responding(last_server, name), bool)
        delete(last_server, name)


def test_objects_are_transformed_on_two_hosts(local: LocalServer, summing_model: Path) -> None:
    local.put({"csv/a.csv": "1,2,3\n4,5,6", "csv/deep/b.csv": "1,1,1\n", "csv/c.csv": "0,0,oops\n"})
    job = transform(local, make_model(local, summing_model), "csv/")
    assert job["TransformJobStatus"] == "Failed"
    assert local.uri("csv/c.csv") + ": bad HTTP status received from algorithm: 400" in job["FailureReason"]
    output = local.bucket / job["TransformJobName"]
    assert {str(path.relative_to(output)): path.read_text() for path in output.rglob("*") if path.is_file()} == {
        "a.csv.out": "6.0\n15.0\n",
        "deep/b.csv.out": "3.0\n",
    }


def transform(local: LocalServer, model: str, prefix: str) -> dict[str, Any]:
    name = make_unique_name("transform")
    local.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": local.uri(prefix)}},
            "SplitType": "Line",
            "ContentType": "text/csv",
        },
        TransformOutput={"S3OutputPath": local.uri(name), "Accept": "text/csv", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2},
    )
    description: dict[str, Any] = wait_until(
        lambda: local.sagemaker.describe_transform_job(TransformJobName=name),
        lambda description: description["TransformJobStatus"] in ("Completed", "Failed"),
    )
    return description
