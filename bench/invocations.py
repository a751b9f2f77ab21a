"""Requests through the local server, compared with requests to the container itself.

    uv run python bench/invocations.py [--seconds 2] [--rounds 7]

The container is the serve job with one worker. wrk sends signed requests over 8 connections for the rates and over one
connection for the latencies. boto3 sends one call after the other. Rounds alternate between the kinds of requests.
Prints the median of each, the ratio of its rate to the container's, the latency that it adds, and the processor time of
the local server (for the first row, of the container). Processor time depends less on other load.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from harness import describe_machine, print_table, run_interleaved
from revisions import read_cpu_seconds
from serve_servers import FEATURES, Workspace, list_session_members, make_bundle, require_programs, start_ours

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.state import State

NAME = "bench"
IMAGE = "microjobs/serve:dev"
CONNECTION_COUNT = 8
CALL_COUNT = 200
"""Number of calls per round, with boto3 and also directly to the container."""
CONTENT_TYPE = "application/json"
BODY = json.dumps({"instances": [[0.5] * FEATURES] * 10}).encode()
MILLISECONDS_BY_UNIT = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class BenchmarkRequest:
    """A request that wrk sends repeatedly."""

    method: str
    url: str
    process_ids: Sequence[int]
    """The IDs of the processes that serve the request."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def write_script(self, path: Path) -> None:
        body = "".join(f"\\{byte}" for byte in self.body)
        headers = "".join(f'wrk.headers["{name}"] = [==[{value}]==]\n' for name, value in self.headers.items())
        path.write_text(f'wrk.method = "{self.method}"\nwrk.body = "{body}"\n{headers}')


@dataclass(frozen=True)
class Sample:
    """The result of one round."""

    rate: float
    """Requests per second over several connections."""
    latency_milliseconds: float
    """Median latency over one connection."""
    processor_microseconds: float
    """Microseconds of processor time per request over several connections."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2, help="duration of each measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    require_programs("wrk", "taskset")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workspace = Workspace(folder, stack)
        model = make_bundle(workspace.root / "model")
        container = start_ours(workspace)
        home = Home(folder / "home")
        add_job(home)
        address = stack.enter_context(control.use_server(home, Config(port=0, runtime="process")))
        stack.callback(delete_endpoint, address)
        create_endpoint(address, home, model)
        url = f"http://127.0.0.1:{container.port}/invocations"
        direct = BenchmarkRequest(
            "POST", url, list_session_members(container.pid), {"Content-Type": CONTENT_TYPE}, BODY
        )
        requests = {"container": direct, **make_requests(address)}
        measure = partial(measure_request, folder / "request.lua")
        candidates = {name: partial(measure, request, options.seconds) for name, request in requests.items()}
        calls = {"container": make_direct_call(container.port), "boto3": make_client_call(address)}
        for request in requests.values():
            measure(request, 1)  # the first measurement warms the server up
        samples = run_interleaved(candidates, options.rounds)
        latencies = run_interleaved({name: partial(time_calls, call) for name, call in calls.items()}, options.rounds)
    report(samples, latencies, markdown=options.markdown)


def report(
    samples: Mapping[str, Sequence[Sample]], latencies: Mapping[str, Sequence[float]], *, markdown: bool
) -> None:
    rows = []
    base = samples["container"]
    for name, request_samples in samples.items():
        ratio = statistics.median(
            sample.rate / base_sample.rate for sample, base_sample in zip(request_samples, base, strict=True)
        )
        added_milliseconds = statistics.median(
            sample.latency_milliseconds - base_sample.latency_milliseconds
            for sample, base_sample in zip(request_samples, base, strict=True)
        )
        rate = statistics.median(sample.rate for sample in request_samples)
        processor_microseconds = statistics.median(sample.processor_microseconds for sample in request_samples)
        rows.append(
            (name, f"{rate:,.0f}", f"{ratio:.3f}", f"{added_milliseconds:.2f}", f"{processor_microseconds:.0f}")
        )
    pairs = zip(latencies["boto3"], latencies["container"], strict=True)
    added_milliseconds = statistics.median(latency - base_latency for latency, base_latency in pairs)
    rows.append(("InvokeEndpoint with boto3", "", "", f"{added_milliseconds:.2f}", ""))
    head = ("request", "requests/s", "ratio to the container", "ms added at the median", "processor µs")
    print_table(describe_machine(), head, rows, markdown=markdown)


# --- servers ---


def add_job(home: Home) -> None:
    """Store a finished training job for DescribeTrainingJob, which clients repeat while they wait for a job."""
    home.create()
    state = State(home.state)
    description = {
        "TrainingJobName": NAME,
        "TrainingJobStatus": "Completed",
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 100},
    }
    arn = f"arn:aws:sagemaker:us-east-1:000000000000:training-job/{NAME}"
    state.add("training-job", NAME, arn, "Completed", description, description)
    state.close()


def create_endpoint(address: control.Address, home: Home, model: Path) -> None:
    bucket = home.buckets / address.bucket
    with tarfile.open(bucket / "model.tar.gz", "w:gz") as archive:
        archive.add(model, arcname=".")
    client = make_client("sagemaker", address)
    container = {
        "Image": IMAGE,
        "ModelDataUrl": f"s3://{address.bucket}/model.tar.gz",
        "Environment": {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
    }
    variant = {"VariantName": "v", "ModelName": NAME, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    client.create_model(ModelName=NAME, PrimaryContainer=container, ExecutionRoleArn=address.role_arn)
    client.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    client.get_waiter("endpoint_in_service").wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 300})


def delete_endpoint(address: control.Address) -> None:
    make_client("sagemaker", address).delete_endpoint(EndpointName=NAME)


def make_client(service: Any, address: control.Address) -> Any:
    return boto3.client(
        service,
        endpoint_url=address.url,
        region_name=address.region,
        aws_access_key_id=address.access_key_id,
        aws_secret_access_key=address.secret_access_key,
    )


# --- requests ---


def make_requests(address: control.Address) -> Mapping[str, BenchmarkRequest]:
    """Return signed requests to the local server. A signature is valid for 15 minutes."""
    make_client("s3", address).put_object(Bucket=address.bucket, Key="key", Body=bytes(1000))
    json_type = "application/x-amz-json-1.1"
    describe = {"Content-Type": json_type, "X-Amz-Target": "SageMaker.DescribeTrainingJob"}
    job = json.dumps({"TrainingJobName": NAME}).encode()
    requests = {
        "InvokeEndpoint": (f"/endpoints/{NAME}/invocations", "sagemaker", {"Content-Type": CONTENT_TYPE}, BODY),
        "DescribeTrainingJob": ("/", "sagemaker", describe, job),
        "GetObject of 1 kB": (f"/{address.bucket}/key", "s3", {}, b""),
    }
    return {name: sign(address, *request) for name, request in requests.items()}


def sign(
    address: control.Address, path: str, service: str, headers: Mapping[str, str], body: bytes
) -> BenchmarkRequest:
    keys = Credentials(address.access_key_id, address.secret_access_key)
    method = "POST" if body else "GET"
    url = f"{address.url}{path}"
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, address.region)
    signer.add_auth(request)
    return BenchmarkRequest(method, url, [address.pid], dict(request.headers.items()), body)


def measure_request(script: Path, request: BenchmarkRequest, seconds: int) -> Sample:
    request.write_script(script)
    initial_seconds = sum(map(read_cpu_seconds, request.process_ids))
    rate, _ = run_wrk(script, request, CONNECTION_COUNT, seconds)
    cpu_seconds = sum(map(read_cpu_seconds, request.process_ids)) - initial_seconds
    _, latency_milliseconds = run_wrk(script, request, 1, seconds)
    return Sample(rate, latency_milliseconds, cpu_seconds / (rate * seconds) * 1e6)


def run_wrk(script: Path, request: BenchmarkRequest, connection_count: int, seconds: int) -> tuple[float, float]:
    """Return the requests per second, and the median latency in milliseconds."""
    command = ["wrk", "-t1", f"-c{connection_count}", f"-d{seconds}", "--latency", "-s", str(script), request.url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, median = re.search(r"Requests/sec: *([\d.]+)", output), re.search(r"50% +([\d.]+)(us|ms|s)", output)
    if "Non-2xx" in output or "Socket errors" in output or rate is None or median is None:
        sys.exit(f"requests to {request.url} failed:\n{output}")
    return float(rate[1]), float(median[1]) * MILLISECONDS_BY_UNIT[median[2]]


def make_direct_call(port: int) -> Callable[[], object]:
    connection = HTTPConnection("127.0.0.1", port)

    def call() -> bytes:
        connection.request("POST", "/invocations", BODY, {"Content-Type": CONTENT_TYPE})
        return connection.getresponse().read()

    return call


def make_client_call(address: control.Address) -> Callable[[], object]:
    client = make_client("sagemaker-runtime", address)

    def call() -> bytes:
        response = client.invoke_endpoint(EndpointName=NAME, ContentType=CONTENT_TYPE, Body=BODY)
        content: bytes = response["Body"].read()
        return content

    return call


def time_calls(call: Callable[[], object]) -> float:
    """Return the median time of a call in milliseconds."""
    times = []
    for _ in range(CALL_COUNT):
        start_time = time.perf_counter()
        call()
        times.append(time.perf_counter() - start_time)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
