"""The image of the local server, started with testcontainers and reached over a published port."""

import base64
import functools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from testcontainers.core.container import DockerContainer

from microjobs.contract import Layout
from microjobs_orchestrator import images
from tests.conftest import (
    REPOSITORY,
    REQUIRE_ENGINE_VARIABLE,
    build_image_from_base,
    get_base_image_name,
    make_image_name,
)
from tests.local.clients import ROOT
from tests.polling import wait_until
from tests.ports import find_free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

KEYS = {
    "MICROJOBS_ACCESS_KEY_ID": "TESTKEY000000000001",
    "MICROJOBS_SECRET_ACCESS_KEY": "secret-of-this-test-" + "x" * 20,
}
SOCKET = "/var/run/docker.sock"
HOME = f"/var/lib/microjobs/{os.getpid()}"
"""The home folder of servers that use the engine. Servers with the same home delete each other's containers."""


@pytest.fixture(scope="module", autouse=True)
def _require_image() -> None:
    if not os.environ.get(REQUIRE_ENGINE_VARIABLE) and make_image_name("local") not in images.read_image_labels():
        pytest.skip("the server's image is not built: make build/local")


@contextmanager
def run_image(*arguments: str, environment: dict[str, str] = KEYS, uses_engine: bool = False) -> Iterator[Any]:
    """Start the image with arguments; yield the container."""
    container = DockerContainer(make_image_name("local")).with_exposed_ports(4577)
    container = container.with_command(list(arguments))
    for name, value in environment.items():
        container = container.with_env(name, value)
    if packages := os.environ.get("LOCAL_PACKAGES"):  # the process runtime needs the folder's wheels and CA bundle
        container = container.with_volume_mapping(packages, "/packages").with_env("LOCAL_PACKAGES", "/packages")
    if uses_engine:
        container = container.with_volume_mapping(SOCKET, SOCKET, "rw").with_env("MICROJOBS_HOME", HOME)
    with container as started_container:
        try:
            yield started_container
        finally:
            # the server is stopped first: testcontainers would kill it, and its jobs would remain
            started_container.get_wrapped_container().stop(timeout=60)


def find_address(container: Any) -> str:
    return f"http://{container.get_container_host_ip()}:{container.get_exposed_port(4577)}"


def make_client(container: Any, service: str, keys: dict[str, str] = KEYS) -> Any:
    key, secret = keys.values()
    session = boto3.Session(key, secret, region_name="us-east-1")
    return session.client(service, endpoint_url=find_address(container))  # type: ignore[call-overload]  # any service


def wait_for_server(container: Any) -> None:
    wait_until(lambda: container.exec(["microjobs", "local", "status"]).exit_code, lambda code: code == 0, seconds=60)


def run_processing_job(container: Any, image: str, command: str) -> dict[str, Any]:
    """Run a processing job whose shell command copies its input; check the copy, and return the job's description."""
    s3, sagemaker = make_client(container, "s3"), make_client(container, "sagemaker")
    bucket = "sagemaker-us-east-1-000000000000"
    s3.put_object(Bucket=bucket, Key="in/name", Body=b"content")
    source = {"S3Uri": f"s3://{bucket}/in", "LocalPath": str(Layout().processing("in")), "S3DataType": "S3Prefix"}
    target = {"S3Uri": f"s3://{bucket}/out", "LocalPath": str(Layout().processing("out")), "S3UploadMode": "EndOfJob"}
    sagemaker.create_processing_job(
        ProcessingJobName="job",
        AppSpecification={"ImageUri": image, "ContainerEntrypoint": ["sh", "-c"], "ContainerArguments": [command]},
        ProcessingInputs=[{"InputName": "in", "S3Input": {**source, "S3InputMode": "File"}}],
        ProcessingOutputConfig={"Outputs": [{"OutputName": "out", "S3Output": target}]},
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
        RoleArn="arn:aws:iam::000000000000:role/any",
    )
    while (job := sagemaker.describe_processing_job(ProcessingJobName="job"))["ProcessingJobStatus"] == "InProgress":
        time.sleep(0.2)
    assert job["ProcessingJobStatus"] == "Completed", job["FailureReason"]
    assert s3.get_object(Bucket=bucket, Key="out/name")["Body"].read() == b"content"
    return dict(job)


COPY_COMMAND = f"cp {ROOT}/processing/in/name {ROOT}/processing/out/name"


def test_server_with_the_socket_of_the_engine_runs_images_of_a_user() -> None:
    with (
        build_image_from_base(get_base_image_name()) as image,
        run_image("--all-addresses", uses_engine=True) as container,
    ):
        wait_for_server(container)
        run_processing_job(container, image, COPY_COMMAND)
        assert "runtime docker" in container.exec(["microjobs", "local", "status"]).output.decode()
        assert serve_once(find_address(container)) == b"answer"


def test_jobs_run_as_processes_without_an_engine() -> None:
    with run_image("--all-addresses", "--runtime=process") as container:
        wait_for_server(container)
        run_processing_job(container, make_image_name("serve"), COPY_COMMAND)
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            make_client(container, "sts", {**KEYS, "MICROJOBS_SECRET_ACCESS_KEY": "y" * 40}).get_caller_identity()


def test_server_listens_on_loopback_by_default() -> None:
    with run_image() as container:
        wait_for_server(container)
        with pytest.raises(Exception, match="onnect"):
            make_client(container, "sts").get_caller_identity()


def test_host_header_must_be_an_address_or_a_configured_name() -> None:
    with run_image("--all-addresses", "--runtime=process", "--host-name=sagemaker.test") as container:
        wait_for_server(container)
        statuses = container.exec(["python", "-c", REQUESTING_PROGRAM]).output.decode().split()
    assert statuses == ["200", "200", "403", "403"]


REQUESTING_PROGRAM = """
from http.client import HTTPConnection
for host in ("sagemaker.test", "10.1.2.3", "other.test", "10.1.2.3.other.test"):
    connection = HTTPConnection("127.0.0.1", 4577)
    connection.request("GET", "/health", headers={"Host": host})
    print(connection.getresponse().status)
"""


@pytest.mark.parametrize("keys", [{"MICROJOBS_ACCESS_KEY_ID": "TESTKEY000000000001"}, dict.fromkeys(KEYS, "test")])
def test_incomplete_or_weak_credentials_are_refused(keys: dict[str, str]) -> None:
    with run_image("--all-addresses", "--runtime=process", environment=keys) as container:
        docker_container = container.get_wrapped_container()
        assert docker_container.wait()["StatusCode"] == 1
        assert "set both MICROJOBS_ACCESS_KEY_ID and MICROJOBS_SECRET_ACCESS_KEY" in docker_container.logs().decode()


def test_documented_program_prints_an_empty_list(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "using" / "server-image.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "program.py").write_text(program.replace("microjobs/local:dev", make_image_name("local")))
    command = [sys.executable, "program.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


def test_documented_services_reach_each_other(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "using" / "server-image.md").read_text(encoding="utf-8")
    (compose,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    compose = compose.replace("microjobs/local:dev", make_image_name("local")).replace(
        "my-application", make_image_name("local")
    )
    program = 'import boto3; print(boto3.client("sagemaker").list_models()["Models"])'
    (tmp_path / "compose.yml").write_text(compose + f"    entrypoint: [python, -c, '{program}']\n")
    project = ["docker", "compose", "--project-name", f"microjobs-test-{os.getpid()}"]
    try:
        run = [*project, "run", "--rm", "application"]
        result = subprocess.run(
            run, cwd=tmp_path, env={**os.environ, **KEYS}, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr
    finally:
        down = [*project, "down", "--volumes"]
        subprocess.run(down, cwd=tmp_path, env={**os.environ, **KEYS}, capture_output=True, check=True)


def test_server_in_dockers_host_network_serves_endpoints() -> None:
    name, port = f"microjobs-test-{os.getpid()}-host-network", find_free_port()
    command = ["docker", "run", "--rm", "--detach", "--network=host", f"--volume={SOCKET}:{SOCKET}", f"--name={name}"]
    variables = [option for key in KEYS for option in ("--env", key)]
    run = [*command, *variables, f"--env=MICROJOBS_HOME={HOME}", make_image_name("local"), f"--port={port}"]
    subprocess.run(run, env={**os.environ, **KEYS}, check=True)
    try:
        status = ["docker", "exec", name, "microjobs", "local", "status"]
        wait_until(lambda: subprocess.run(status, check=False).returncode, lambda code: code == 0)
        assert serve_once(f"http://127.0.0.1:{port}") == b"answer"
    finally:
        subprocess.run(["docker", "stop", "--time=60", name], check=True, capture_output=True)


SERVE_PROGRAM = """#!/usr/bin/env python3
import signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"answer")
    do_POST = do_GET

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
HTTPServer(("", 8080), Handler).serve_forever()
"""


def serve_once(address: str) -> bytes:
    """Create an endpoint with an image that answers each request with `answer`; return the result of an invocation."""
    key, secret = KEYS.values()
    session, role = boto3.Session(key, secret, region_name="us-east-1"), "arn:aws:iam::000000000000:role/any"
    sagemaker = session.client("sagemaker", endpoint_url=address)
    encoded = base64.b64encode(SERVE_PROGRAM.encode()).decode()
    write = f"RUN echo {encoded} | base64 -d > /usr/bin/serve && chmod 755 /usr/bin/serve"
    with build_image_from_base(get_base_image_name(), write) as image:
        sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": image})
        variant: Any = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
        describe = functools.partial(sagemaker.describe_endpoint, EndpointName="e")
        endpoint = wait_until(describe, lambda endpoint: endpoint["EndpointStatus"] != "Creating")
        assert endpoint["EndpointStatus"] == "InService", endpoint["FailureReason"]
        runtime = session.client("sagemaker-runtime", endpoint_url=address)
        result: bytes = runtime.invoke_endpoint(EndpointName="e", Body=b"1")["Body"].read()
        sagemaker.delete_endpoint(EndpointName="e")
    return result
