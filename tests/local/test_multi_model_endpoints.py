"""Tests of multi-model endpoints with the image serve, in containers and as processes."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import make_image_name
from tests.local.clients import LocalServer, make_unique_name
from tests.local.resources.examples.models import put_linear_model, put_program
from tests.local.test_hosting import make_config, wait_for_endpoint

PROGRAM = "def model_fn(folder): return 7\ndef transform_fn(model, body, type_, accept): return str(model), accept\n"


class MultiModelEndpoint:
    """An endpoint with the models below a prefix of its own."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.name = make_unique_name("many")
        self._runtime = server.client("sagemaker-runtime")
        prefix = server.uri(f"{self.name}/")
        container = {"Image": make_image_name("serve"), "Mode": "MultiModel", "ModelDataUrl": prefix}
        role = server.address.role_arn
        server.sagemaker.create_model(ModelName=self.name, PrimaryContainer=container, ExecutionRoleArn=role)
        server.sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=make_config(server, self.name))
        description = wait_for_endpoint(server, self.name)
        assert description["EndpointStatus"] == "InService", description.get("FailureReason")

    def put(self, target: str, weight: float) -> None:
        """Store a model that multiplies three features by a weight and returns their sum."""
        put_linear_model(self.server, f"{self.name}/{target}", weight)

    def put_program(self, target: str, file: str, text: str) -> None:
        """Store a model that consists of a Python file."""
        put_program(self.server, f"{self.name}/{target}", text, file)

    def invoke(self, target: str) -> str:
        response = self._runtime.invoke_endpoint(
            EndpointName=self.name, TargetModel=target, Body=b"1,2,3", ContentType="text/csv", Accept="text/csv"
        )
        return str(response["Body"].read().decode().strip())

    def read_error(self, target: str) -> Any:
        with pytest.raises(ClientError) as error:
            self.invoke(target)
        return error.value.response

    def delete(self) -> None:
        self.server.sagemaker.delete_endpoint(EndpointName=self.name)


@pytest.fixture
def endpoint(any_runtime_server: LocalServer) -> Iterator[MultiModelEndpoint]:
    new_endpoint = MultiModelEndpoint(any_runtime_server)
    yield new_endpoint
    new_endpoint.delete()


def test_models_of_a_prefix_are_served_replaced_and_refused(endpoint: MultiModelEndpoint) -> None:
    endpoint.put("one.tar.gz", 1.0)
    endpoint.put("folder/two.tar.gz", 2.0)
    endpoint.put_program("code.tar.gz", "inference.py", PROGRAM)
    with ThreadPoolExecutor(6) as pool:
        targets = ["one.tar.gz", "folder/two.tar.gz", "code.tar.gz"] * 2
        assert list(pool.map(endpoint.invoke, targets)) == ["6.0", "12.0", "7"] * 2
    endpoint.put("one.tar.gz", 3.0)
    assert endpoint.invoke("one.tar.gz") == "18.0"

    endpoint.put_program("broken.tar.gz", "other.py", "x = 1")
    error = endpoint.read_error("broken.tar.gz")
    assert (error["Error"]["Code"], error["OriginalStatusCode"]) == ("ModelError", 400)
    assert "the model cannot be loaded" in error["OriginalMessage"]
    assert endpoint.read_error("missing.tar.gz")["Error"]["Code"] == "ValidationError"
    description = endpoint.server.sagemaker.describe_model(ModelName=endpoint.name)["PrimaryContainer"]
    assert (description["Mode"], description["ModelDataUrl"]) == (
        "MultiModel",
        endpoint.server.uri(f"{endpoint.name}/"),
    )


def test_update_under_load_loses_no_request(process_server: LocalServer) -> None:
    endpoint, stop = MultiModelEndpoint(process_server), threading.Event()
    predictions = {f"{number}.tar.gz": str(6.0 * number) for number in (1, 2, 3)}
    for target, prediction in predictions.items():
        endpoint.put(target, float(prediction) / 6.0)

    def invoke_until_stop() -> int:
        count = 0
        while not stop.is_set():
            assert {target: endpoint.invoke(target) for target in predictions} == predictions
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(invoke_until_stop) for _ in range(4)]
        try:
            config = make_config(process_server, endpoint.name)
            process_server.sagemaker.update_endpoint(EndpointName=endpoint.name, EndpointConfigName=config)
            assert wait_for_endpoint(process_server, endpoint.name)["EndpointConfigName"] == config
        finally:
            stop.set()
        assert all(client.result() > 3 for client in clients)
    endpoint.delete()
