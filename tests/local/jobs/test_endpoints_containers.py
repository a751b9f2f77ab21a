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
from tests.local.clients import LocalServer, make_unique_name, run_server
from tests.polling import wait_until

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def summing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a model that sums its three features."""
    folder = tmp_path_factory.mktemp("bundle")
    write_linear_bundle(folder / "model", [1.0] * 3, 0.0)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(folder / "model", ".")
    return folder / "model.tar.gz"


def make_model(server: LocalServer, archive: Path, **members: Any) -> str:
    name = make_unique_name("model")
    (server.bucket / f"{name}.tar.gz").write_bytes(archive.read_bytes())
    container = {"Image": make_image_name("serve"), "ModelDataUrl": server.uri(f"{name}.tar.gz")}
    server.sagemaker.create_model(
        ModelName=name, PrimaryContainer=container, ExecutionRoleArn=server.address.role_arn, **members
    )
    return name


def deploy(server: LocalServer, model: str) -> dict[str, Any]:
    name = make_unique_name("endpoint")
    variant = {"VariantName": "main", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    server.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    server.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return wait_for_endpoint(server, name)


def wait_for_endpoint(server: LocalServer, name: str) -> dict[str, Any]:
    description: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_endpoint(EndpointName=name),
        lambda description: description["EndpointStatus"] in ("InService", "Failed"),
    )
    return description


def predict(server: LocalServer, endpoint: str, body: str = '{"instances": [[1, 2, 3]]}') -> Any:
    runtime = server.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="application/json")
    assert response["InvokedProductionVariant"] == "main"
    return json.load(response["Body"])


def delete(server: LocalServer, endpoint: str) -> None:
    server.sagemaker.delete_endpoint_config(EndpointConfigName=endpoint)  # the SDK deletes the resources in this order
    server.sagemaker.delete_endpoint(EndpointName=endpoint)
    server.sagemaker.get_waiter("endpoint_deleted").wait(
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


def test_endpoint_responds_and_is_deleted(
    server: LocalServer, summing_model: Path, engine: docker.DockerClient
) -> None:
    description = deploy(server, make_model(server, summing_model))
    name = description["EndpointName"]
    assert description["EndpointStatus"] == "InService"
    assert predict(server, name) == {"predictions": [[6.0]]}
    (stream,) = server.logs.describe_log_streams(logGroupName=f"/aws/sagemaker/Endpoints/{name}")["logStreams"]
    assert stream["logStreamName"].startswith("main/i-")
    delete(server, name)
    assert list_containers(engine, name) == []


def test_invalid_request_is_a_model_error(server: LocalServer, summing_model: Path) -> None:
    name = deploy(server, make_model(server, summing_model))["EndpointName"]
    with pytest.raises(ClientError, match=r"Received client error \(400\) from primary") as caught:
        predict(server, name, "{")
    assert caught.value.response["OriginalStatusCode"] == 400  # type: ignore[typeddict-item]
    delete(server, name)


def test_failure_reason_explains_invalid_model(server: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("1")
    with tarfile.open(tmp_path / "odd.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "weights", "weights")
    description = deploy(server, make_model(server, tmp_path / "odd.tar.gz"))
    assert description["EndpointStatus"] == "Failed"
    assert (
        "did not pass the ping health check. The container ended before GET /ping answered 200. Exit code: 2."
        in description["FailureReason"]
    )
    assert "has no model.onnx or code/inference.py" in description["FailureReason"]
    delete(server, description["EndpointName"])


def test_isolated_container_responds(server: LocalServer, summing_model: Path) -> None:
    name = deploy(server, make_model(server, summing_model, EnableNetworkIsolation=True))["EndpointName"]
    assert predict(server, name) == {"predictions": [[6.0]]}
    delete(server, name)


def test_killed_container_is_restarted(server: LocalServer, summing_model: Path, engine: docker.DockerClient) -> None:
    name = deploy(server, make_model(server, summing_model))["EndpointName"]
    container = find_container(engine, name)
    container.kill()
    wait_until(lambda: [item.id for item in list_containers(engine, name)], lambda ids: ids and ids != [container.id])
    wait_until(lambda: _is_responding(server, name), bool)
    delete(server, name)


def _is_responding(server: LocalServer, name: str) -> bool:
    try:
        return bool(predict(server, name) == {"predictions": [[6.0]]})
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


def test_objects_are_transformed_on_two_hosts(server: LocalServer, summing_model: Path) -> None:
    server.put({"csv/a.csv": "1,2,3\n4,5,6", "csv/deep/b.csv": "1,1,1\n", "csv/c.csv": "0,0,oops\n"})
    job = transform(server, make_model(server, summing_model), "csv/")
    assert job["TransformJobStatus"] == "Failed"
    assert server.uri("csv/c.csv") + ": bad HTTP status received from algorithm: 400" in job["FailureReason"]
    output = server.bucket / job["TransformJobName"]
    assert {str(path.relative_to(output)): path.read_text() for path in output.rglob("*") if path.is_file()} == {
        "a.csv.out": "6.0\n15.0\n",
        "deep/b.csv.out": "3.0\n",
    }


def transform(server: LocalServer, model: str, prefix: str) -> dict[str, Any]:
    name = make_unique_name("transform")
    server.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": server.uri(prefix)}},
            "SplitType": "Line",
            "ContentType": "text/csv",
        },
        TransformOutput={"S3OutputPath": server.uri(name), "Accept": "text/csv", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2},
    )
    description: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_transform_job(TransformJobName=name),
        lambda description: description["TransformJobStatus"] in ("Completed", "Failed"),
    )
    return description
