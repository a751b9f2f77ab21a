"""Tests of endpoints and transform jobs with the image serve, in containers and as processes."""

import contextlib
import io
import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.resources.models.serving import ADDITIONAL_DATA_FOLDER
from tests.conftest import make_image_name
from tests.local.clients import FINAL_STATUSES, LocalServer, make_unique_name, run_server
from tests.local.resources.examples.models import put_linear_model, put_program
from tests.polling import wait_until

ROW = b"1,2,3\n"
CLIENT_COUNT = 4

ADDITIONAL_DATA_PROGRAM = f"""def model_fn(folder):
    with open("{ADDITIONAL_DATA_FOLDER}/words/list.txt") as file:
        return file.read()
def transform_fn(model, body, content_type, accept): return model, accept
"""


def make_model(server: LocalServer, weight: float) -> str:
    """Create a model that multiplies three features by a weight and returns their sum; return its name."""
    name = make_unique_name("model")
    put_linear_model(server, f"{name}.tar.gz", weight)
    container = {"Image": make_image_name("serve"), "ModelDataUrl": server.uri(f"{name}.tar.gz")}
    server.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=server.address.role_arn)
    return name


def make_config(server: LocalServer, model: str, count: int = 1, **members: Any) -> str:
    variant = {"VariantName": "main", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    name = make_unique_name("config")
    server.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **members)
    return name


def wait_for_endpoint(server: LocalServer, name: str) -> dict[str, Any]:
    description: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_endpoint(EndpointName=name),
        lambda description: description["EndpointStatus"] in ("InService", "Failed"),
    )
    return description


@pytest.fixture
def endpoints(any_runtime_server: LocalServer) -> Iterator[list[str]]:
    """A list for the names of endpoints that a test creates. They are deleted after the test."""
    names: list[str] = []
    yield names
    for name in names:
        any_runtime_server.sagemaker.delete_endpoint(EndpointName=name)


def deploy(server: LocalServer, config: str, endpoints: list[str]) -> str:
    name = make_unique_name("endpoint")
    endpoints.append(name)
    server.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    description = wait_for_endpoint(server, name)
    assert description["EndpointStatus"] == "InService", description.get("FailureReason")
    return name


def invoke_until_stop(server: LocalServer, name: str, stop: threading.Event) -> list[str]:
    """Invoke the endpoint until `stop` is set, and return the responses. The client does not retry after an error."""
    runtime = server.client("sagemaker-runtime")
    responses = []
    while not stop.is_set():
        response = runtime.invoke_endpoint(EndpointName=name, Body=ROW, ContentType="text/csv", Accept="text/csv")
        responses.append(response["Body"].read().decode().strip())
    return responses


CODE_FILES = {
    "mine.py": "import helper\ndef model_fn(folder): return 1\ndef transform_fn(m, b, c, a): return helper.WORD, c\n",
    "helper.py": "WORD = 'from S3'\n",
}


def make_model_with_code(server: LocalServer, **members: Any) -> str:
    """Create a model as the SDK does for an entry point: the code is in S3, and not in the model archive."""
    archive, name = io.BytesIO(), make_unique_name("code")
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file, text in CODE_FILES.items():
            info = tarfile.TarInfo(file)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    server.s3.put_object(Bucket=server.address.bucket, Key=f"{name}/sourcedir.tar.gz", Body=archive.getvalue())
    environment = {
        "SAGEMAKER_PROGRAM": "mine.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": server.uri(f"{name}/sourcedir.tar.gz"),
        "SAGEMAKER_REGION": "us-east-1",
    }
    container = {"Image": make_image_name("serve"), "Environment": environment}
    role = server.address.role_arn
    server.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role, **members)
    return name


def test_program_reads_additional_model_data(any_runtime_server: LocalServer, endpoints: list[str]) -> None:
    name = make_unique_name("additional")
    put_program(any_runtime_server, f"{name}.tar.gz", ADDITIONAL_DATA_PROGRAM)
    any_runtime_server.put({f"{name}/list.txt": "many words"})
    source = {"S3Uri": any_runtime_server.uri(f"{name}/"), "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {
        "Image": make_image_name("serve"),
        "ModelDataUrl": any_runtime_server.uri(f"{name}.tar.gz"),
        "AdditionalModelDataSources": [{"ChannelName": "words", "S3DataSource": source}],
    }
    role = any_runtime_server.address.role_arn
    any_runtime_server.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
    endpoint = deploy(any_runtime_server, make_config(any_runtime_server, name), endpoints)
    runtime = any_runtime_server.client("sagemaker-runtime")
    response = runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x", ContentType="text/csv")
    assert response["Body"].read() == b"many words"


def test_code_in_s3_is_served(any_runtime_server: LocalServer, endpoints: list[str]) -> None:
    name = deploy(
        any_runtime_server, make_config(any_runtime_server, make_model_with_code(any_runtime_server)), endpoints
    )
    response = any_runtime_server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=b"x", ContentType="text/csv"
    )
    assert response["Body"].read() == b"from S3"


WORDS_PROGRAM = """
import time

def model_fn(folder):
    return ["one ", "two ", "three"]

def predict_fn(body, model):
    yield from model
    if b"fail" in body:
        raise ValueError("no more words")
    while b"forever" in body:
        time.sleep(0.05)
        yield "again "

def input_fn(body, content_type):
    return body
"""


def make_words_model(server: LocalServer) -> str:
    """Create a model that answers with a response stream; return its name."""
    name = make_unique_name("words")
    put_program(server, f"{name}.tar.gz", WORDS_PROGRAM)
    container = {"Image": make_image_name("serve"), "ModelDataUrl": server.uri(f"{name}.tar.gz")}
    server.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=server.address.role_arn)
    return name


def test_handler_that_yields_streams_its_response(any_runtime_server: LocalServer, endpoints: list[str]) -> None:
    name = deploy(any_runtime_server, make_config(any_runtime_server, make_words_model(any_runtime_server)), endpoints)

    def stream(body: bytes) -> Generator[bytes, None, None]:
        response = any_runtime_server.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
            EndpointName=name, Body=body, ContentType="text/plain", Accept="text/plain"
        )
        assert response["ContentType"] == "text/plain"
        with contextlib.closing(response["Body"]) as events:
            yield from (event["PayloadPart"]["Bytes"] for event in events)

    assert b"".join(stream(b"all")) == b"one two three"
    with contextlib.closing(stream(b"forever")) as endless_stream:
        data = b""
        while b"again again" not in data:
            data += next(endless_stream)
    with pytest.raises(EventStreamError, match="StreamBroken"):
        list(stream(b"fail"))
    assert b"".join(stream(b"all")) == b"one two three"


@pytest.mark.engine
def test_error_explains_that_network_isolation_forbids_fetching_code(server: LocalServer) -> None:
    config, name = (
        make_config(server, make_model_with_code(server, EnableNetworkIsolation=True)),
        make_unique_name("endpoint"),
    )
    server.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    description = wait_for_endpoint(server, name)
    server.sagemaker.delete_endpoint(EndpointName=name)
    assert description["EndpointStatus"] == "Failed"
    assert "Code in S3 needs a network, which EnableNetworkIsolation forbids" in description["FailureReason"]


def test_update_loses_no_request(any_runtime_server: LocalServer, endpoints: list[str]) -> None:
    name = deploy(any_runtime_server, make_config(any_runtime_server, make_model(any_runtime_server, 1.0)), endpoints)
    new_config, stop = make_config(any_runtime_server, make_model(any_runtime_server, 2.0)), threading.Event()
    with ThreadPoolExecutor(CLIENT_COUNT) as pool:
        clients = [pool.submit(invoke_until_stop, any_runtime_server, name, stop) for _ in range(CLIENT_COUNT)]
        try:
            assert any_runtime_server.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new_config)[
                "EndpointArn"
            ]
            assert wait_for_endpoint(any_runtime_server, name)["EndpointConfigName"] == new_config
        finally:
            threading.Timer(1.0, stop.set).start()  # the old container ends within this second, while requests are sent
        results = [client.result() for client in clients]
    for responses in results:
        assert list(dict.fromkeys(responses)) == ["6.0", "12.0"]
        assert responses == sorted(responses, key=float)
    assert sum(map(len, results)) > 50


@pytest.mark.slow
def test_rolling_update_loses_no_request(any_runtime_server: LocalServer, endpoints: list[str]) -> None:
    name = deploy(
        any_runtime_server, make_config(any_runtime_server, make_model(any_runtime_server, 1.0), count=2), endpoints
    )
    new_config, stop = make_config(any_runtime_server, make_model(any_runtime_server, 2.0), count=2), threading.Event()
    policy = {"MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 1}
    with ThreadPoolExecutor(CLIENT_COUNT) as pool:
        clients = [pool.submit(invoke_until_stop, any_runtime_server, name, stop) for _ in range(CLIENT_COUNT)]
        try:
            any_runtime_server.sagemaker.update_endpoint(
                EndpointName=name, EndpointConfigName=new_config, DeploymentConfig={"RollingUpdatePolicy": policy}
            )
            description = wait_for_endpoint(any_runtime_server, name)
        finally:
            threading.Timer(1.0, stop.set).start()  # the old containers end within this second, while requests are sent
        results = [client.result() for client in clients]
    assert (description["EndpointConfigName"], description["ProductionVariants"][0]["CurrentInstanceCount"]) == (
        new_config,
        2,
    )
    for responses in results:
        assert (responses[0], responses[-1]) == ("6.0", "12.0")
        assert responses != sorted(responses, key=float)  # in the first step, old and new containers respond


def test_failed_update_keeps_the_old_configuration(any_runtime_server: LocalServer, endpoints: list[str]) -> None:
    name = deploy(
        any_runtime_server,
        old_config := make_config(any_runtime_server, make_model(any_runtime_server, 1.0)),
        endpoints,
    )
    broken_model = make_model(any_runtime_server, 1.0)
    (any_runtime_server.bucket / f"{broken_model}.tar.gz").unlink()
    any_runtime_server.sagemaker.update_endpoint(
        EndpointName=name, EndpointConfigName=make_config(any_runtime_server, broken_model)
    )
    description = wait_for_endpoint(any_runtime_server, name)
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", old_config)
    assert "Could not find model data" in description["FailureReason"]


def test_asynchronous_responses_and_failures_become_objects(
    any_runtime_server: LocalServer, endpoints: list[str]
) -> None:
    output = {"S3OutputPath": any_runtime_server.uri("answers"), "S3FailurePath": any_runtime_server.uri("failures")}
    config = {"OutputConfig": output, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2}}
    name = deploy(
        any_runtime_server,
        make_config(any_runtime_server, make_model(any_runtime_server, 1.0), AsyncInferenceConfig=config),
        endpoints,
    )
    description = any_runtime_server.sagemaker.describe_endpoint(EndpointName=name)
    assert description["AsyncInferenceConfig"] == config
    any_runtime_server.put({"rows.csv": "1,2,3\n4,5,6\n", "bad.csv": "oops\n"})
    runtime = any_runtime_server.client("sagemaker-runtime")

    def invoke(**members: Any) -> Any:
        return runtime.invoke_endpoint_async(EndpointName=name, ContentType="text/csv", Accept="text/csv", **members)

    good_response, bad_response = (
        invoke(InputLocation=any_runtime_server.uri("rows.csv")),
        invoke(InputLocation=any_runtime_server.uri("bad.csv")),
    )
    inline_response = invoke(Body=b"1,1,1\n", InferenceId="mine")
    assert good_response["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert inline_response["InferenceId"] == "mine"
    assert read_object(any_runtime_server, good_response["OutputLocation"]).split() == ["6.0", "15.0"]
    assert read_object(any_runtime_server, inline_response["OutputLocation"]).split() == ["3.0"]
    assert "oops" in read_object(any_runtime_server, bad_response["FailureLocation"])


@pytest.mark.slow
def test_asynchronous_invocations_survive_a_killed_server(tmp_path: Path) -> None:
    with run_server(tmp_path, runtime="process") as server:
        config = {
            "OutputConfig": {"S3OutputPath": server.uri("answers")},
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
        }
        name = deploy(server, make_config(server, make_model(server, 1.0), AsyncInferenceConfig=config), [])
        invoke = partial(server.client("sagemaker-runtime").invoke_endpoint_async, EndpointName=name)
        # The bodies are so large that some requests are in progress when the server is killed.
        bodies = [b"%d,1,1\n" % row * 15_000 for row in range(64)]
        responses = [invoke(Body=body, ContentType="text/csv", Accept="text/csv") for body in bodies]
        os.kill(server.address.pid, signal.SIGKILL)
        time.sleep(0.1)
        assert len(list(server.bucket.glob("answers/*"))) < len(responses)
        next_server = LocalServer(server.home, control.start(server.home, Config(port=0, runtime="process")))
        for row, response in enumerate(responses):
            assert read_object(next_server, response["OutputLocation"]).split() == [str(row + 2.0)] * 15_000


def read_object(server: LocalServer, uri: str) -> str:
    """Wait for an object and return its text."""
    location = dict(zip(("Bucket", "Key"), uri.removeprefix("s3://").split("/", 1), strict=True))
    server.s3.get_waiter("object_exists").wait(**location, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    content: bytes = server.s3.get_object(**location)["Body"].read()
    return content.decode()


def test_records_are_filtered_and_joined(any_runtime_server: LocalServer) -> None:
    any_runtime_server.put({"joined/a.csv": "first,1,2,3\nsecond,4,5,6\n"})
    job = transform(any_runtime_server, "text/csv", InputFilter="$[1:]", JoinSource="Input", OutputFilter="$[0,-1]")
    assert job["TransformJobStatus"] == "Completed"
    assert (
        read_object(any_runtime_server, any_runtime_server.uri(f"{job['TransformJobName']}/a.csv.out"))
        == "first,6.0\nsecond,15.0\n"
    )


def test_json_lines_are_filtered_and_joined(any_runtime_server: LocalServer) -> None:
    any_runtime_server.put({"joined/a.csv": '{"id": 1, "features": [1, 2, 3]}\n'})
    filters = {"InputFilter": "$.features", "OutputFilter": "$['id','SageMakerOutput']"}
    job = transform(any_runtime_server, "application/jsonlines", JoinSource="Input", **filters)
    assert job["TransformJobStatus"] == "Completed", job["FailureReason"]
    (line,) = read_object(
        any_runtime_server, any_runtime_server.uri(f"{job['TransformJobName']}/a.csv.out")
    ).splitlines()
    results = json.loads(line)
    assert results.keys() == {"id", "SageMakerOutput"}
    assert "6.0" in json.dumps(results["SageMakerOutput"])


def transform(server: LocalServer, content_type: str, **processing: str) -> dict[str, Any]:
    name = make_unique_name("transform")
    server.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=make_model(server, 1.0),
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": server.uri("joined/")}},
            "SplitType": "Line",
            "ContentType": content_type,
        },
        TransformOutput={"S3OutputPath": server.uri(name), "Accept": content_type, "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        DataProcessing=processing,
    )
    description: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_transform_job(TransformJobName=name),
        lambda description: description["TransformJobStatus"] in FINAL_STATUSES,
    )
    return description
