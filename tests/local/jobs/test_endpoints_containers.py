"""Endpoints and transform jobs through the API, with the image serve in containers."""

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
from tests.bundles import linear_bundle
from tests.conftest import image_name
from tests.local.clients import LocalServer, running_server, unique, wait_until

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def summing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a model that sums its three features."""
    folder = tmp_path_factory.mktemp("bundle")
    linear_bundle(folder / "model", [1.0] * 3, 0.0)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(folder / "model", ".")
    return folder / "model.tar.gz"


def make_model(local: LocalServer, archive: Path, **members: Any) -> str:
    name = unique("model")
    (local.bucket / f"{name}.tar.gz").write_bytes(archive.read_bytes())
    container = {"Image": image_name("serve"), "ModelDataUrl": local.uri(f"{name}.tar.gz")}
    local.sagemaker.create_model(
        ModelName=name, PrimaryContainer=container, ExecutionRoleArn=local.address.role_arn, **members
    )
    return name


def deploy(local: LocalServer, model: str) -> dict[str, Any]:
    name = unique("endpoint")
    variant = {"VariantName": "main", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    local.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    local.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return wait_for_endpoint(local, name)


def wait_for_endpoint(local: LocalServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = wait_until(
        lambda: local.sagemaker.describe_endpoint(EndpointName=name),
        lambda found: found["EndpointStatus"] in ("InService", "Failed"),
    )
    return found


def predict(local: LocalServer, endpoint: str, body: str = '{"instances": [[1, 2, 3]]}') -> Any:
    runtime = local.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="application/json")
    assert answer["InvokedProductionVariant"] == "main"
    return json.load(answer["Body"])


def delete(local: LocalServer, endpoint: str) -> None:
    local.sagemaker.delete_endpoint_config(EndpointConfigName=endpoint)  # the order of the SDK
    local.sagemaker.delete_endpoint(EndpointName=endpoint)
    local.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=endpoint, WaiterConfig={"Delay": 1, "MaxAttempts": 40}
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


def container(engine: docker.DockerClient, endpoint: str) -> Container:
    (found,) = containers(engine, endpoint)
    return found


def containers(engine: docker.DockerClient, endpoint: str) -> list[Container]:
    # A container of an earlier start may disappear during the request.
    return engine.containers.list(all=True, ignore_removed=True, filters={"name": f"-{endpoint}-main-"})


def test_endpoint_responds_and_is_deleted(local: LocalServer, summing: Path, engine: docker.DockerClient) -> None:
    found = deploy(local, make_model(local, summing))
    name = found["EndpointName"]
    assert found["EndpointStatus"] == "InService"
    assert predict(local, name) == {"predictions": [[6.0]]}
    (stream,) = local.logs.describe_log_streams(logGroupName=f"/aws/sagemaker/Endpoints/{name}")["logStreams"]
    assert stream["logStreamName"].startswith("main/i-")
    delete(local, name)
    assert containers(engine, name) == []


def test_invalid_request_is_a_model_error(local: LocalServer, summing: Path) -> None:
    name = deploy(local, make_model(local, summing))["EndpointName"]
    with pytest.raises(ClientError, match=r"Received client error \(400\) from primary") as caught:
        predict(local, name, "{")
    assert caught.value.response["OriginalStatusCode"] == 400  # type: ignore[typeddict-item]
    delete(local, name)


def test_failure_reason_explains_invalid_model(local: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("1")
    with tarfile.open(tmp_path / "odd.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "weights", "weights")
    found = deploy(local, make_model(local, tmp_path / "odd.tar.gz"))
    assert found["EndpointStatus"] == "Failed"
    assert (
        "did not pass the ping health check. The container ended before GET /ping answered 200. Exit code: 2."
        in found["FailureReason"]
    )
    assert "it is not a model bundle" in found["FailureReason"]
    delete(local, found["EndpointName"])


def test_isolated_container_responds(local: LocalServer, summing: Path) -> None:
    name = deploy(local, make_model(local, summing, EnableNetworkIsolation=True))["EndpointName"]
    assert predict(local, name) == {"predictions": [[6.0]]}
    delete(local, name)


def test_killed_container_is_restarted(local: LocalServer, summing: Path, engine: docker.DockerClient) -> None:
    name = deploy(local, make_model(local, summing))["EndpointName"]
    killed = container(engine, name)
    killed.kill()
    wait_until(lambda: [item.id for item in containers(engine, name)], lambda ids: ids and ids != [killed.id])
    wait_until(lambda: _responds(local, name), bool, 30)
    delete(local, name)


def _responds(local: LocalServer, name: str) -> bool:
    try:
        return bool(predict(local, name) == {"predictions": [[6.0]]})
    except ClientError:
        return False


def test_endpoint_outlives_its_server(tmp_path: Path, summing: Path, engine: docker.DockerClient) -> None:
    with running_server(tmp_path, runtime="docker") as first:
        name = deploy(first, make_model(first, summing))["EndpointName"]
        before = container(engine, name).id
        os.kill(first.address.pid, signal.SIGKILL)
        time.sleep(0.1)
        second = LocalServer(first.home, control.start(first.home, Config(port=0, runtime="docker")))
        wait_until(lambda: _responds(second, name), bool, 30)
        assert container(engine, name).id == before
        control.stop(first.home)
        assert containers(engine, name) == []
        third = LocalServer(first.home, control.start(first.home, Config(port=0, runtime="docker")))
        wait_until(lambda: _responds(third, name), bool, 30)
        delete(third, name)


def test_objects_are_transformed_on_two_hosts(local: LocalServer, summing: Path) -> None:
    local.put({"csv/a.csv": "1,2,3\n4,5,6", "csv/deep/b.csv": "1,1,1\n", "csv/c.csv": "0,0,oops\n"})
    job = transform(local, make_model(local, summing), "csv/")
    assert job["TransformJobStatus"] == "Failed"
    assert local.uri("csv/c.csv") + ": bad HTTP status received from algorithm: 400" in job["FailureReason"]
    written = local.bucket / job["TransformJobName"]
    assert {str(path.relative_to(written)): path.read_text() for path in written.rglob("*") if path.is_file()} == {
        "a.csv.out": "6.0\n15.0\n",
        "deep/b.csv.out": "3.0\n",
    }


def transform(local: LocalServer, model: str, prefix: str) -> dict[str, Any]:
    name = unique("transform")
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
    found: dict[str, Any] = wait_until(
        lambda: local.sagemaker.describe_transform_job(TransformJobName=name),
        lambda found: found["TransformJobStatus"] in ("Completed", "Failed"),
    )
    return found
