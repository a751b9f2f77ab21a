"""Endpoints and transform jobs through the API, in containers and as processes, with the image serve."""

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
from tests.conftest import image_name
from tests.local.clients import FINAL_STATUSES, LocalServer, running_server, unique, wait_until
from tests.local.resources.examples.models import put_linear_model, put_program

ROW = b"1,2,3\n"
CLIENTS = 4

READ_ADDITIONAL_DATA = f"""def model_fn(folder):
    with open("{ADDITIONAL_DATA_FOLDER}/words/list.txt") as file:
        return file.read()
def transform_fn(model, body, content_type, accept): return model, accept
"""


def make_model(local: LocalServer, weight: float) -> str:
    """Create a model that multiplies three features by a weight and returns their sum; return its name."""
    name = unique("model")
    put_linear_model(local, f"{name}.tar.gz", weight)
    container = {"Image": image_name("serve"), "ModelDataUrl": local.uri(f"{name}.tar.gz")}
    local.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=local.address.role_arn)
    return name


def make_config(local: LocalServer, model: str, **members: Any) -> str:
    variant = {"VariantName": "main", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    name = unique("config")
    local.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **members)
    return name


def wait_for_endpoint(local: LocalServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = wait_until(
        lambda: local.sagemaker.describe_endpoint(EndpointName=name),
        lambda found: found["EndpointStatus"] in ("InService", "Failed"),
    )
    return found


@pytest.fixture
def endpoints(anywhere: LocalServer) -> Iterator[list[str]]:
    """A list for the names of endpoints that a test creates. They are deleted after the test."""
    names: list[str] = []
    yield names
    for name in names:
        anywhere.sagemaker.delete_endpoint(EndpointName=name)


def deploy(local: LocalServer, config: str, endpoints: list[str]) -> str:
    name = unique("endpoint")
    endpoints.append(name)
    local.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    description = wait_for_endpoint(local, name)
    assert description["EndpointStatus"] == "InService", description.get("FailureReason")
    return name


def invoke_until(local: LocalServer, name: str, stop: threading.Event) -> list[str]:
    """Invoke the endpoint until `stop` is set, and return the responses. The client does not retry after an error."""
    runtime = local.client("sagemaker-runtime")
    responses = []
    while not stop.is_set():
        response = runtime.invoke_endpoint(EndpointName=name, Body=ROW, ContentType="text/csv", Accept="text/csv")
        responses.append(response["Body"].read().decode().strip())
    return responses


CODE = {
    "mine.py": "import helper\ndef model_fn(folder): return 1\ndef transform_fn(m, b, c, a): return helper.WORD, c\n",
    "helper.py": "WORD = 'from S3'\n",
}


def make_model_with_code(local: LocalServer, **members: Any) -> str:
    """Create a model as the SDK does for an entry point: the code is in S3, and not in the model archive."""
    content, name = io.BytesIO(), unique("code")
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for file, text in CODE.items():
            info = tarfile.TarInfo(file)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    local.s3.put_object(Bucket=local.address.bucket, Key=f"{name}/sourcedir.tar.gz", Body=content.getvalue())
    environment = {
        "SAGEMAKER_PROGRAM": "mine.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": local.uri(f"{name}/sourcedir.tar.gz"),
        "SAGEMAKER_REGION": "us-east-1",
    }
    container = {"Image": image_name("serve"), "Environment": environment}
    role = local.address.role_arn
    local.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role, **members)
    return name


def test_program_reads_additional_model_data(anywhere: LocalServer, endpoints: list[str]) -> None:
    name = unique("additional")
    put_program(anywhere, f"{name}.tar.gz", READ_ADDITIONAL_DATA)
    anywhere.put({f"{name}/list.txt": "many words"})
    source = {"S3Uri": anywhere.uri(f"{name}/"), "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {
        "Image": image_name("serve"),
        "ModelDataUrl": anywhere.uri(f"{name}.tar.gz"),
        "AdditionalModelDataSources": [{"ChannelName": "words", "S3DataSource": source}],
    }
    role = anywhere.address.role_arn
    anywhere.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
    endpoint = deploy(anywhere, make_config(anywhere, name), endpoints)
    runtime = anywhere.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x", ContentType="text/csv")
    assert answer["Body"].read() == b"many words"


def test_code_in_s3_is_served(anywhere: LocalServer, endpoints: list[str]) -> None:
    name = deploy(anywhere, make_config(anywhere, make_model_with_code(anywhere)), endpoints)
    answer = anywhere.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=b"x", ContentType="text/csv")
    assert answer["Body"].read() == b"from S3"


WORDS = """
import time

def model_fn(folder):
    return ["one ", "two ", "three"]

def predict_fn(order, model):
    yield from model
    if b"fail" in order:
        raise ValueError("no more words")
    while b"forever" in order:
        time.sleep(0.05)
        yield "again "

def input_fn(body, content_type):
    return body
"""


def make_words_model(local: LocalServer) -> str:
    """Create a model that answers with a response stream; return its name."""
    name = unique("words")
    put_program(local, f"{name}.tar.gz", WORDS)
    container = {"Image": image_name("serve"), "ModelDataUrl": local.uri(f"{name}.tar.gz")}
    local.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=local.address.role_arn)
    return name


def test_handler_that_yields_streams_its_response(anywhere: LocalServer, endpoints: list[str]) -> None:
    name = deploy(anywhere, make_config(anywhere, make_words_model(anywhere)), endpoints)

    def stream(order: bytes) -> Generator[bytes, None, None]:
        response = anywhere.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
            EndpointName=name, Body=order, ContentType="text/plain", Accept="text/plain"
        )
        assert response["ContentType"] == "text/plain"
        with contextlib.closing(response["Body"]) as events:
            yield from (event["PayloadPart"]["Bytes"] for event in events)

    assert b"".join(stream(b"all")) == b"one two three"
    with contextlib.closing(stream(b"forever")) as endless:
        received = b""
        while b"again again" not in received:
            received += next(endless)
    with pytest.raises(EventStreamError, match="StreamBroken"):
        list(stream(b"fail"))
    assert b"".join(stream(b"all")) == b"one two three"


@pytest.mark.engine
def test_error_explains_that_network_isolation_forbids_fetching_code(local: LocalServer) -> None:
    config, name = make_config(local, make_model_with_code(local, EnableNetworkIsolation=True)), unique("endpoint")
    local.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    found = wait_for_endpoint(local, name)
    local.sagemaker.delete_endpoint(EndpointName=name)
    assert found["EndpointStatus"] == "Failed"
    assert "Code in S3 needs a network, which EnableNetworkIsolation forbids" in found["FailureReason"]


def test_update_loses_no_request(anywhere: LocalServer, endpoints: list[str]) -> None:
    name = deploy(anywhere, make_config(anywhere, make_model(anywhere, 1.0)), endpoints)
    new, stop = make_config(anywhere, make_model(anywhere, 2.0)), threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(invoke_until, anywhere, name, stop) for _ in range(CLIENTS)]
        try:
            assert anywhere.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new)["EndpointArn"]
            assert wait_for_endpoint(anywhere, name)["EndpointConfigName"] == new
        finally:
            threading.Timer(1.0, stop.set).start()  # the old container ends within this second
        results = [client.result() for client in clients]
    for responses in results:
        assert list(dict.fromkeys(responses)) == ["6.0", "12.0"]
        assert responses == sorted(responses, key=float)
    assert sum(map(len, results)) > 50


def test_failed_update_keeps_the_old_configuration(anywhere: LocalServer, endpoints: list[str]) -> None:
    name = deploy(anywhere, old := make_config(anywhere, make_model(anywhere, 1.0)), endpoints)
    broken = make_model(anywhere, 1.0)
    (anywhere.bucket / f"{broken}.tar.gz").unlink()
    anywhere.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=make_config(anywhere, broken))
    found = wait_for_endpoint(anywhere, name)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", old)
    assert "Could not find model data" in found["FailureReason"]


def test_asynchronous_responses_and_failures_become_objects(anywhere: LocalServer, endpoints: list[str]) -> None:
    output = {"S3OutputPath": anywhere.uri("answers"), "S3FailurePath": anywhere.uri("failures")}
    config = {"OutputConfig": output, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2}}
    name = deploy(anywhere, make_config(anywhere, make_model(anywhere, 1.0), AsyncInferenceConfig=config), endpoints)
    described = anywhere.sagemaker.describe_endpoint(EndpointName=name)
    assert described["AsyncInferenceConfig"] == config
    anywhere.put({"rows.csv": "1,2,3\n4,5,6\n", "bad.csv": "oops\n"})
    runtime = anywhere.client("sagemaker-runtime")

    def invoke(**members: Any) -> Any:
        return runtime.invoke_endpoint_async(EndpointName=name, ContentType="text/csv", Accept="text/csv", **members)

    good, bad = invoke(InputLocation=anywhere.uri("rows.csv")), invoke(InputLocation=anywhere.uri("bad.csv"))
    inline = invoke(Body=b"1,1,1\n", InferenceId="mine")
    assert good["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert inline["InferenceId"] == "mine"
    assert read(anywhere, good["OutputLocation"]).split() == ["6.0", "15.0"]
    assert read(anywhere, inline["OutputLocation"]).split() == ["3.0"]
    assert "oops" in read(anywhere, bad["FailureLocation"])


def test_queue_survives_a_killed_server(tmp_path: Path) -> None:
    with running_server(tmp_path, runtime="process") as first:
        config = {
            "OutputConfig": {"S3OutputPath": first.uri("answers")},
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
        }
        name = deploy(first, make_config(first, make_model(first, 1.0), AsyncInferenceConfig=config), [])
        invoke = partial(first.client("sagemaker-runtime").invoke_endpoint_async, EndpointName=name)
        bodies = [
            b"%d,1,1\n" % row * 15_000 for row in range(64)
        ]  # large enough to be in progress when the server is killed
        answers = [invoke(Body=body, ContentType="text/csv", Accept="text/csv") for body in bodies]
        os.kill(first.address.pid, signal.SIGKILL)
        time.sleep(0.1)
        assert len(list(first.bucket.glob("answers/*"))) < len(answers)
        second = LocalServer(first.home, control.start(first.home, Config(port=0, runtime="process")))
        for row, answer in enumerate(answers):
            assert read(second, answer["OutputLocation"]).split() == [str(row + 2.0)] * 15_000


def read(local: LocalServer, uri: str) -> str:
    """Wait for an object and return its text."""
    location = dict(zip(("Bucket", "Key"), uri.removeprefix("s3://").split("/", 1), strict=True))
    local.s3.get_waiter("object_exists").wait(**location, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    content: bytes = local.s3.get_object(**location)["Body"].read()
    return content.decode()


def test_records_are_filtered_and_joined(anywhere: LocalServer) -> None:
    anywhere.put({"joined/a.csv": "first,1,2,3\nsecond,4,5,6\n"})
    job = transform(anywhere, "text/csv", InputFilter="$[1:]", JoinSource="Input", OutputFilter="$[0,-1]")
    assert job["TransformJobStatus"] == "Completed"
    assert read(anywhere, anywhere.uri(f"{job['TransformJobName']}/a.csv.out")) == "first,6.0\nsecond,15.0\n"


def test_json_lines_are_filtered_and_joined(anywhere: LocalServer) -> None:
    anywhere.put({"joined/a.csv": '{"id": 1, "features": [1, 2, 3]}\n'})
    filters = {"InputFilter": "$.features", "OutputFilter": "$['id','SageMakerOutput']"}
    job = transform(anywhere, "application/jsonlines", JoinSource="Input", **filters)
    assert job["TransformJobStatus"] == "Completed", job["FailureReason"]
    (line,) = read(anywhere, anywhere.uri(f"{job['TransformJobName']}/a.csv.out")).splitlines()
    found = json.loads(line)
    assert found.keys() == {"id", "SageMakerOutput"}
    assert "6.0" in json.dumps(found["SageMakerOutput"])


def transform(local: LocalServer, content_type: str, **processing: str) -> dict[str, Any]:
    name = unique("transform")
    local.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=make_model(local, 1.0),
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": local.uri("joined/")}},
            "SplitType": "Line",
            "ContentType": content_type,
        },
        TransformOutput={"S3OutputPath": local.uri(name), "Accept": content_type, "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        DataProcessing=processing,
    )
    found: dict[str, Any] = wait_until(
        lambda: local.sagemaker.describe_transform_job(TransformJobName=name),
        lambda found: found["TransformJobStatus"] in FINAL_STATUSES,
    )
    return found
