"""Tests of inference pipelines with the project's own images, in containers and as processes."""

import io
import json
import os
import signal
import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from tests.bundles import write_linear_bundle
from tests.conftest import REPOSITORY, build_image_from_base, get_base_image_name, make_image_name
from tests.local.clients import FINAL_STATUSES, LocalServer, make_unique_name, run_server
from tests.local.resources.examples.models import put_linear_model
from tests.local.test_hosting import make_config, wait_for_endpoint
from tests.local.test_hosting_variants import make_capture_config
from tests.polling import wait_until

SECTION = (REPOSITORY / "docs/using/hosting.md").read_text().partition("## Inference pipelines")[2]
SCALE_PROGRAM = SECTION.split("```python\n")[2].partition("```")[0]
"""The handlers of the first container, from the documentation."""


SCALER_HOSTNAMES = ("scale",)


def put_models(server: LocalServer, prefix: str) -> None:
    """Store the archives of a program that multiplies features by 10, and of a model that adds three features."""
    folder = server.home.root / "bundles" / make_unique_name("bundle")
    write_linear_bundle(folder / "predict", [1.0] * 3, 0.0)
    (folder / "scale/code").mkdir(parents=True)
    (folder / "scale/code/inference.py").write_text(SCALE_PROGRAM)
    for name in ("scale", "predict"):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            tar.add(folder / name, ".")
        key = f"{prefix}/{name}.tar.gz"
        server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=archive.getvalue())


def make_model(
    server: LocalServer,
    mode: str = "Serial",
    scaler_job: str = "serve",
    scaler_hostnames: Sequence[str] = SCALER_HOSTNAMES,
    *,
    has_many_models: bool = False,
) -> str:
    """Create a model with one container per scaler, and the container `predict`; return its name.

    Args:
        scaler_job: the job whose image the scalers have.
        has_many_models: whether requests choose the model of `predict`. If so, the models are below a prefix with the
            returned name.
    """
    name = make_unique_name("chain")
    put_models(server, name)
    containers = [
        {
            "ContainerHostname": hostname,
            "Image": make_image_name(job),
            "ModelDataUrl": server.uri(f"{name}/{archive}.tar.gz"),
            "Environment": {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"},
        }
        for hostname, archive, job in (
            *((hostname, "scale", scaler_job) for hostname in scaler_hostnames),
            ("predict", "predict", "serve"),
        )
    ]
    if has_many_models:
        containers[-1] |= {"Mode": "MultiModel", "ModelDataUrl": server.uri(f"{name}/")}
    config, role = {"Mode": mode}, server.address.role_arn
    server.sagemaker.create_model(
        ModelName=name, Containers=containers, InferenceExecutionConfig=config, ExecutionRoleArn=role
    )
    return name


class ChainEndpoint:
    """An endpoint whose model has several containers, and its client."""

    def __init__(self, server: LocalServer, model: str, **config: Any) -> None:
        self.server = server
        self.name = make_unique_name("chain")
        server.sagemaker.create_endpoint(
            EndpointName=self.name, EndpointConfigName=make_config(server, model, **config)
        )
        description = wait_for_endpoint(server, self.name)
        assert description["EndpointStatus"] == "InService", description.get("FailureReason")

    def invoke(self, body: bytes = b"1,2,3", **members: Any) -> str:
        runtime = self.server.client("sagemaker-runtime")
        request = {"EndpointName": self.name, "Body": body, "ContentType": "text/csv", "Accept": "text/csv"}
        return str(runtime.invoke_endpoint(**request, **members)["Body"].read().decode().strip())

    def delete(self) -> None:
        self.server.sagemaker.delete_endpoint(EndpointName=self.name)


@pytest.fixture
def serial_chain(any_runtime_server: LocalServer) -> Iterator[ChainEndpoint]:
    chain = ChainEndpoint(any_runtime_server, make_model(any_runtime_server))
    yield chain
    chain.delete()


def test_chain_serves_and_errors_name_their_container(serial_chain: ChainEndpoint) -> None:
    server = serial_chain.server
    assert serial_chain.invoke() == "60.0"
    with pytest.raises(ClientError, match=r"Received client error \(400\) from predict"):
        serial_chain.invoke(b"1,2")
    group = f"/aws/sagemaker/Endpoints/{serial_chain.name}"
    streams = server.logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert sorted(stream["logStreamName"].split("/")[2] for stream in streams) == ["predict", "scale"]


def test_target_model_responds_after_another_container(any_runtime_server: LocalServer) -> None:
    model = make_model(any_runtime_server, has_many_models=True)
    put_linear_model(any_runtime_server, f"{model}/double.tar.gz", 2.0)
    chain = ChainEndpoint(any_runtime_server, model)
    assert [chain.invoke(TargetModel=f"{name}.tar.gz") for name in ("predict", "double")] == ["60.0", "120.0"]
    with pytest.raises(ClientError, match=r"ModelError.*Received client error .* from predict"):
        chain.invoke(b"1,2", TargetModel="predict.tar.gz")
    chain.delete()


@pytest.mark.slow
def test_update_under_load_loses_no_request(process_server: LocalServer) -> None:
    chain, stop = (
        ChainEndpoint(
            process_server, make_model(process_server), DataCaptureConfig=make_capture_config(process_server)
        ),
        threading.Event(),
    )
    longer_config = make_config(process_server, make_model(process_server, scaler_hostnames=("scale", "again")))

    def invoke_until_stop() -> list[str]:
        responses = []
        while not stop.is_set():
            responses.append(chain.invoke())
        return responses

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(invoke_until_stop) for _ in range(3)]
        try:
            process_server.sagemaker.update_endpoint(EndpointName=chain.name, EndpointConfigName=longer_config)
            assert wait_for_endpoint(process_server, chain.name)["EndpointConfigName"] == longer_config
        finally:
            stop.set()
        responses = [response for client in clients for response in client.result()]
    assert chain.invoke() == "600.0"
    assert set(responses) <= {"60.0", "600.0"}
    assert count_samples(chain, "scale") == count_samples(chain, "predict") == len(responses) + 1
    assert count_samples(chain, "again") == responses.count("600.0") + 1
    exchanges = wait_until(lambda: read_exchanges(process_server, chain.name), bool)
    assert set(exchanges) == {("1,2,3", "60.0")}  # the new configuration captures nothing
    assert len(exchanges) <= responses.count("60.0")
    chain.delete()


def read_exchanges(server: LocalServer, endpoint: str) -> list[tuple[str, str]]:
    """Return the captured input and output of each exchange with an endpoint."""
    files = (server.bucket / "captured" / endpoint).rglob("*.jsonl")
    records = [json.loads(line)["captureData"] for file in files for line in file.read_text().splitlines()]
    return [(record["endpointInput"]["data"], record["endpointOutput"]["data"].strip()) for record in records]


def count_samples(chain: ChainEndpoint, container: str) -> float:
    """Return the number of a container's responses in the metric ContainerLatency."""
    dimensions = {"EndpointName": chain.name, "VariantName": "main", "ContainerName": container}
    now = datetime.now(UTC)
    points = chain.server.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="ContainerLatency",
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=2),
        Period=60,
        Statistics=["SampleCount"],
    )
    return float(sum(point["SampleCount"] for point in points["Datapoints"]))


def test_request_chooses_its_container(any_runtime_server: LocalServer) -> None:
    chain = ChainEndpoint(any_runtime_server, make_model(any_runtime_server, mode="Direct"))
    assert chain.invoke(TargetContainerHostname="scale") == "10.0,20.0,30.0"
    assert chain.invoke(TargetContainerHostname="predict") == "6.0"
    with pytest.raises(ClientError, match=r"ValidationError.*its containers are scale, predict"):
        chain.invoke()
    chain.delete()


def test_objects_are_transformed_by_all_containers(any_runtime_server: LocalServer) -> None:
    server, name = any_runtime_server, make_unique_name("transform")
    server.put({f"{name}/in/a.csv": "1,2,3\n4,5,6\n", f"{name}/in/b.csv": "1,1,1\n"})
    server.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=make_model(server),
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": server.uri(f"{name}/in/")}},
            "SplitType": "Line",
            "ContentType": "text/csv",
        },
        TransformOutput={"S3OutputPath": server.uri(f"{name}/out"), "Accept": "text/csv", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2},
    )
    job = wait_until(
        lambda: server.sagemaker.describe_transform_job(TransformJobName=name),
        lambda job: job["TransformJobStatus"] in FINAL_STATUSES,
    )
    assert job["TransformJobStatus"] == "Completed", job["FailureReason"]
    outputs = {path.name: path.read_text() for path in (server.bucket / name / "out").iterdir()}
    assert outputs == {"a.csv.out": "60.0\n150.0\n", "b.csv.out": "30.0\n"}


@pytest.mark.engine
def test_container_that_ignores_its_port_fails_the_endpoint_soon(server: LocalServer) -> None:
    label = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"
    program = "exec python3 -m http.server 8080"
    with build_image_from_base(
        get_base_image_name(), f'LABEL {label}="true"', f'ENTRYPOINT ["sh", "-c", "{program}"]'
    ) as image:
        name = make_unique_name("ignorant")
        server.sagemaker.create_model(
            ModelName=name, Containers=[{"Image": image}, {"Image": image}], ExecutionRoleArn=server.address.role_arn
        )
        server.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=make_config(server, name))
        reason = wait_for_endpoint(server, name)["FailureReason"]
        server.sagemaker.delete_endpoint(EndpointName=name)
    assert "The container-1 container" in reason
    assert "It listens on port 8080" in reason
    assert "SAGEMAKER_BIND_TO_PORT" in reason


@pytest.mark.engine
def test_chain_of_two_images_outlives_its_server(tmp_path: Path) -> None:
    with run_server(tmp_path, runtime="docker") as server:
        chain = ChainEndpoint(server, make_model(server, scaler_job="preprocess"))
        assert chain.invoke() == "60.0"
        os.kill(server.address.pid, signal.SIGKILL)
        chain.server = LocalServer(server.home, control.start(server.home, Config(port=0, runtime="docker")))
        wait_for_endpoint(chain.server, chain.name)
        assert chain.invoke() == "60.0"
        chain.delete()
