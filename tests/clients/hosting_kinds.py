"""The kinds of hosting, and the check of each kind: deploy, call, update under load, read metrics and captured data.

The programs `hosting_boto3.py`, `hosting_v2.py` and `hosting_v3.py` check all kinds, each with a different client.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import Any, Protocol

VARIANT, SHADOW = "AllTraffic", "shadow"
"""Names of the production variant and of the shadow variant. The SageMaker SDK v2 always uses the first name."""
INSTANCE_MEMBERS = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
CSV = {"ContentType": "text/csv", "Accept": "text/csv"}
ROW = b"1,2,3"
ENVIRONMENT = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}
RESPONSES = ("6.0", "12.0")
"""The responses of the models `one` and `two` to the request `ROW`."""
CLIENT_COUNT = 2
PAUSE_SECONDS = 0.02

Members = Mapping[str, Any]


@dataclass(frozen=True)
class HostingKind:
    """A kind of hosting, with two versions of its models. An update replaces the first version by the second one."""

    name: str
    archives: Sequence[Sequence[str]] = (("one",), ("two",))
    """The archives of the containers of a model, by version of the model."""
    responses: Sequence[str] = RESPONSES
    """The response to a request, by version of the model."""
    operation: str = "InvokeEndpoint"
    container: Members = field(default_factory=dict)
    """Additional members of each container."""
    model: Members = field(default_factory=dict)
    """Additional members of CreateModel."""
    variant: Members = field(default_factory=lambda: INSTANCE_MEMBERS)
    """Additional members of the production variant, and of the shadow variant."""
    config: Members = field(default_factory=dict)
    """Additional members of CreateEndpointConfig."""
    target: Members = field(default_factory=dict)
    """Members of a request that select its target."""
    copies: int = 0
    """The number of copies of the inference component; 0 if the endpoint has no inference components."""
    supports_capture: bool = True
    """Whether AWS supports data capture for this kind."""
    has_shadow: bool = False
    """Whether the endpoint has a shadow variant with the model of the other version."""


KINDS = (
    HostingKind("real-time"),
    HostingKind(
        "response-stream",
        archives=(("words-1",), ("words-2",)),
        responses=("one word ", "two words "),
        operation="InvokeEndpointWithResponseStream",
    ),
    HostingKind(
        "multi-model",
        archives=(("models-1/",), ("models-2/",)),
        container={"Mode": "MultiModel"},
        target={"TargetModel": "model.tar.gz"},
    ),
    HostingKind("serial", archives=(("scale", "one"), ("scale", "two")), responses=("60.0", "120.0")),
    HostingKind(
        "direct",
        archives=(("scale", "one"), ("scale", "two")),
        model={"InferenceExecutionConfig": {"Mode": "Direct"}},
        target={"TargetContainerHostname": "container-2"},
    ),
    HostingKind("components", copies=2, supports_capture=False),
    HostingKind("shadow", has_shadow=True),
    HostingKind(
        "serverless",
        variant={"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 5}},
        supports_capture=False,
    ),
    HostingKind("asynchronous", operation="InvokeEndpointAsync", supports_capture=False),
)


@dataclass(frozen=True)
class Settings:
    """The image, the role and the S3 prefix that a program uses."""

    image: str
    role: str
    uri: str
    """The S3 prefix of the archives, of captured data, and of asynchronous requests and responses."""

    def make_capture_config(self) -> dict[str, Any]:
        return {
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": f"{self.uri}/captured",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
        }

    def make_archive_uri(self, archive: str) -> str:
        """Return the URI of an archive, or of a prefix of archives. The name of a prefix ends with a slash."""
        return f"{self.uri}/{archive}" if archive.endswith("/") else f"{self.uri}/{archive}.tar.gz"

    def make_model(self, kind: HostingKind, version: int, name: str) -> dict[str, Any]:
        """Return the CreateModel request of a version."""
        containers = [
            {
                "Image": self.image,
                "ModelDataUrl": self.make_archive_uri(archive),
                "Environment": ENVIRONMENT,
                **kind.container,
                **({"ContainerHostname": f"container-{number}"} if len(kind.archives[version]) > 1 else {}),
            }
            for number, archive in enumerate(kind.archives[version], 1)
        ]
        return {"ModelName": name, "Containers": containers, "ExecutionRoleArn": self.role, **kind.model}

    def make_config(self, kind: HostingKind, name: str, models: Sequence[str]) -> dict[str, Any]:
        """Return a CreateEndpointConfig request.

        The first model answers requests. The last model is the model of the shadow variant, if the kind has one.
        """
        model_members = {} if kind.copies else {"ModelName": models[0]}
        request = {
            "EndpointConfigName": name,
            "ProductionVariants": [{"VariantName": VARIANT, **model_members, **kind.variant}],
            **({"ExecutionRoleArn": self.role} if kind.copies else {}),
            **({"DataCaptureConfig": self.make_capture_config()} if kind.supports_capture else {}),
            **kind.config,
        }
        if kind.has_shadow:
            request["ShadowProductionVariants"] = [{"VariantName": SHADOW, "ModelName": models[-1], **kind.variant}]
        if kind.operation == "InvokeEndpointAsync":
            request["AsyncInferenceConfig"] = {"OutputConfig": {"S3OutputPath": f"{self.uri}/answers"}}
        return request


class Client(Protocol):
    """A client that deploys, updates and calls endpoints.

    The name of an endpoint consists of the client's prefix and the kind.
    """

    settings: Settings

    def make_name(self, kind: HostingKind) -> str: ...

    def deploy(self, kind: HostingKind) -> None:
        """Deploy the first version; return when it serves."""

    def update(self, kind: HostingKind) -> None:
        """Update to the second version; return when it serves."""

    def call(self, kind: HostingKind) -> str:
        """Send one request without retries, and return its response. Any thread may call this method."""

    def read_captures(self, kind: HostingKind) -> Mapping[str, Sequence[Members]]:
        """Return the captured records of an endpoint, by variant."""

    def delete(self, kind: HostingKind) -> None:
        """Delete the endpoint; return when it is deleted."""


class Load:
    """Clients that send one request after the other, until each of them has received responses of both versions."""

    def __init__(self, call: Callable[[], str], final_response: str) -> None:
        self.responses_by_client: list[list[str]] = [[] for _ in range(CLIENT_COUNT)]
        """The responses, in order, by client."""
        self._call = call
        self._final_response = final_response
        self._is_updated = threading.Event()
        self._is_stopped = threading.Event()

    @contextmanager
    def run(self) -> Iterator[None]:
        """Send requests during the block, and after it until the new version has responded. Raise errors of requests.

        The block begins when each client has received a response.
        """
        with ThreadPoolExecutor(CLIENT_COUNT) as pool:
            clients = [pool.submit(self._send, responses) for responses in self.responses_by_client]
            try:
                wait_until(lambda: all(self.responses_by_client) or any(client.done() for client in clients))
                yield
                self._is_updated.set()
            finally:
                if not self._is_updated.is_set():
                    self._is_stopped.set()
            for client in clients:
                client.result()

    def _send(self, responses: list[str]) -> None:
        while not self._is_stopped.is_set():
            responses.append(self._call())
            if self._is_updated.is_set() and responses[-1] == self._final_response:
                return
            time.sleep(PAUSE_SECONDS)


def wait_until(call: Callable[[], Any], seconds: float = 120) -> Any:
    """Call a function until its result is true; return the result."""
    deadline = time.monotonic() + seconds
    while not (result := call()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {call}"
        time.sleep(0.1)
    return result


def count_invocations(cloudwatch: Any, **dimensions: str) -> float:
    """Return the number of requests in the metric Invocations."""
    now = datetime.now(timezone.utc)  # noqa: UP017  the SDK's programs also run on Python 3.10
    points = cloudwatch.get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="Invocations",
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=2),
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]
    return float(sum(point["Sum"] for point in points))


def check_kind(client: Client, cloudwatch: Any, kind: HostingKind) -> dict[str, Any]:
    """Deploy a kind, update it under load, read its metrics and captured data, and delete it; return the findings."""
    start_time, name = time.monotonic(), client.make_name(kind)
    client.deploy(kind)
    load = Load(lambda: client.call(kind), kind.responses[1])
    with load.run():
        client.update(kind)
    request_count = sum(map(len, load.responses_by_client))
    dimensions = {"InferenceComponentName": name} if kind.copies else {"EndpointName": name, "VariantName": VARIANT}
    wait_until(lambda: count_invocations(cloudwatch, **dimensions) >= request_count)
    invocation_count = count_invocations(cloudwatch, **dimensions)
    client.delete(kind)
    captures = client.read_captures(kind) if kind.supports_capture else {}
    print(f"{name}: {request_count} requests in {time.monotonic() - start_time:.1f} s", file=sys.stderr)
    return {
        "responses": [[response for response, _ in groupby(responses)] for responses in load.responses_by_client],
        "uncounted": request_count - invocation_count,
        "uncaptured": request_count - len(captures.get(VARIANT, ())) if kind.supports_capture else None,
        "outputs": list_outputs(captures) if kind.supports_capture else None,
    }


def list_outputs(captures: Mapping[str, Sequence[Members]]) -> dict[str, list[str]]:
    """Return the different captured responses of each variant, sorted."""
    outputs = {
        variant: {record["captureData"].get("endpointOutput", {"data": ""})["data"].strip() for record in records}
        for variant, records in captures.items()
    }
    return {variant: sorted(texts) for variant, texts in outputs.items()}


def parse_captures(name: str, files: Mapping[str, str]) -> dict[str, list[Members]]:
    """Return the captured records of the endpoint `name`, by variant. `files` has the texts of the objects, by key."""
    records: dict[str, list[Members]] = {}
    for key, text in files.items():
        variant = key.partition(f"/captured/{name}/")[2].partition("/")[0]
        records.setdefault(variant, []).extend(json.loads(line) for line in text.splitlines())
    return records


def check_all_kinds(client: Client, cloudwatch: Any) -> None:
    """Check the kinds, two at a time, and print the findings by kind as the last line."""
    with ThreadPoolExecutor(2) as pool:
        findings = pool.map(lambda kind: check_kind(client, cloudwatch, kind), KINDS)
        results = {kind.name: finding for kind, finding in zip(KINDS, findings, strict=True)}
    print("\n" + json.dumps(results))
