"""The kinds of hosting, and the proof of each kind: deploy, call, update under load, read metrics and captured data.

The programs `hosting_boto3.py`, `hosting_v2.py` and `hosting_v3.py` prove all kinds, each one with another client.
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
"""Names of variants. The first one is the name that the SageMaker SDK v2 chooses."""
INSTANCES = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
CSV = {"ContentType": "text/csv", "Accept": "text/csv"}
ROW = b"1,2,3"
ENVIRONMENT = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}
RESPONSES = ("6.0", "12.0")
"""The response of the models `one` and `two` to `ROW`."""
CLIENTS = 2
PAUSE_SECONDS = 0.02

Members = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of hosting, with two versions of its models: an update replaces the first one by the second one."""

    name: str
    archives: Sequence[Sequence[str]] = (("one",), ("two",))
    """For each version, the archives of the containers of its model."""
    responses: Sequence[str] = RESPONSES
    """For each version, the response to a request."""
    operation: str = "InvokeEndpoint"
    container: Members = field(default_factory=dict)
    """Further members of each container."""
    model: Members = field(default_factory=dict)
    """Further members of CreateModel."""
    variant: Members = field(default_factory=lambda: INSTANCES)
    config: Members = field(default_factory=dict)
    """Further members of CreateEndpointConfig."""
    target: Members = field(default_factory=dict)
    """Members of a request that choose what responds."""
    copies: int = 0
    """The copies of the inference component; 0: the endpoint has no inference components."""
    captures: bool = True
    """Whether AWS supports data capture for this kind."""
    has_shadow: bool = False
    """Whether the model of the other version is a shadow variant."""


KINDS = (
    Kind("real-time"),
    Kind(
        "response-stream",
        archives=(("words-1",), ("words-2",)),
        responses=("one word ", "two words "),
        operation="InvokeEndpointWithResponseStream",
    ),
    Kind(
        "multi-model",
        archives=(("models-1/",), ("models-2/",)),
        container={"Mode": "MultiModel"},
        target={"TargetModel": "model.tar.gz"},
    ),
    Kind("serial", archives=(("scale", "one"), ("scale", "two")), responses=("60.0", "120.0")),
    Kind(
        "direct",
        archives=(("scale", "one"), ("scale", "two")),
        model={"InferenceExecutionConfig": {"Mode": "Direct"}},
        target={"TargetContainerHostname": "container-2"},
    ),
    Kind("components", copies=2, captures=False),
    Kind("shadow", has_shadow=True),
    Kind("serverless", variant={"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 5}}, captures=False),
    Kind("asynchronous", operation="InvokeEndpointAsync", captures=False),
)


@dataclass(frozen=True)
class Place:
    """The image, the role and the bucket of a program."""

    image: str
    role: str
    uri: str
    """The S3 prefix of the archives."""

    def capture_config(self) -> dict[str, Any]:
        return {
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": f"{self.uri}/captured",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
        }

    def find_archive(self, archive: str) -> str:
        """Return the URI of an archive, or of a prefix of archives, whose name ends with a slash."""
        return f"{self.uri}/{archive}" if archive.endswith("/") else f"{self.uri}/{archive}.tar.gz"

    def make_model(self, kind: Kind, version: int, name: str) -> dict[str, Any]:
        """Return the CreateModel request of a version."""
        containers = [
            {
                "Image": self.image,
                "ModelDataUrl": self.find_archive(archive),
                "Environment": ENVIRONMENT,
                **kind.container,
                **({"ContainerHostname": f"container-{number}"} if len(kind.archives[version]) > 1 else {}),
            }
            for number, archive in enumerate(kind.archives[version], 1)
        ]
        return {"ModelName": name, "Containers": containers, "ExecutionRoleArn": self.role, **kind.model}

    def make_config(self, kind: Kind, name: str, models: Sequence[str]) -> dict[str, Any]:
        """Return a CreateEndpointConfig request. The first model serves; the last one is that of a shadow variant."""
        serving = {} if kind.copies else {"ModelName": models[0]}
        request = {
            "EndpointConfigName": name,
            "ProductionVariants": [{"VariantName": VARIANT, **serving, **kind.variant}],
            **({"ExecutionRoleArn": self.role} if kind.copies else {}),
            **({"DataCaptureConfig": self.capture_config()} if kind.captures else {}),
            **kind.config,
        }
        if kind.has_shadow:
            request["ShadowProductionVariants"] = [{"VariantName": SHADOW, "ModelName": models[-1], **kind.variant}]
        if kind.operation == "InvokeEndpointAsync":
            request["AsyncInferenceConfig"] = {"OutputConfig": {"S3OutputPath": f"{self.uri}/answers"}}
        return request


class Client(Protocol):
    """Deploys, updates and calls endpoints. The name of an endpoint is that of its kind, with a prefix."""

    place: Place

    def name(self, kind: Kind) -> str: ...

    def deploy(self, kind: Kind) -> None:
        """Deploy the first version; return when it serves."""

    def update(self, kind: Kind) -> None:
        """Update to the second version; return when it serves."""

    def call(self, kind: Kind) -> str:
        """Return the response to one request, which is sent once. Any thread may call this method."""

    def read_captures(self, kind: Kind) -> Mapping[str, Sequence[Members]]:
        """Return the captured records of an endpoint, by variant."""

    def delete(self, kind: Kind) -> None:
        """Delete the endpoint; return when it is deleted."""


class Load:
    """Clients that send one request after the other, until each of them has received the response of both versions."""

    def __init__(self, call: Callable[[], str], final: str) -> None:
        self.runs: list[list[str]] = [[] for _ in range(CLIENTS)]
        """The responses, in order, by client."""
        self._call = call
        self._final = final
        self._is_updated = threading.Event()
        self._is_stopped = threading.Event()

    @contextmanager
    def run(self) -> Iterator[None]:
        """Send requests during the block, and after it until the new version has responded. Raise errors of requests.

        The block begins when each client has received a response.
        """
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._send, responses) for responses in self.runs]
            try:
                wait_until(lambda: all(self.runs) or any(client.done() for client in clients))
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
            if self._is_updated.is_set() and responses[-1] == self._final:
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
    now = datetime.now(timezone.utc)  # noqa: UP017  the SDK also runs on Python 3.10
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


def prove(client: Client, cloudwatch: Any, kind: Kind) -> dict[str, Any]:
    """Deploy a kind, update it under load, read its metrics and captured data, and delete it; return the findings."""
    began, name = time.monotonic(), client.name(kind)
    client.deploy(kind)
    load = Load(lambda: client.call(kind), kind.responses[1])
    with load.run():
        client.update(kind)
    requests = sum(map(len, load.runs))
    dimensions = {"InferenceComponentName": name} if kind.copies else {"EndpointName": name, "VariantName": VARIANT}
    wait_until(lambda: count_invocations(cloudwatch, **dimensions) >= requests)
    invocations = count_invocations(cloudwatch, **dimensions)
    client.delete(kind)
    print(f"{name}: {requests} requests in {time.monotonic() - began:.1f} s", file=sys.stderr)
    return {
        "responses": [[response for response, _ in groupby(responses)] for responses in load.runs],
        "uncounted": requests - invocations,
        "uncaptured": requests - len(client.read_captures(kind).get(VARIANT, ())) if kind.captures else None,
        "outputs": list_outputs(client.read_captures(kind)) if kind.captures else None,
    }


def list_outputs(captures: Mapping[str, Sequence[Members]]) -> dict[str, list[str]]:
    """Return the different captured responses of each variant, sorted."""
    outputs = {
        variant: {record["captureData"].get("endpointOutput", {"data": ""})["data"].strip() for record in records}
        for variant, records in captures.items()
    }
    return {variant: sorted(texts) for variant, texts in outputs.items()}


def parse_captures(name: str, files: Mapping[str, str]) -> dict[str, list[Members]]:
    """Return the records of an endpoint by variant, from the text of each captured object by its key."""
    records: dict[str, list[Members]] = {}
    for key, text in files.items():
        variant = key.partition(f"/captured/{name}/")[2].partition("/")[0]
        records.setdefault(variant, []).extend(json.loads(line) for line in text.splitlines())
    return records


def prove_all(client: Client, cloudwatch: Any) -> None:
    """Prove the kinds, two at a time, and print the findings by kind as the last line."""
    with ThreadPoolExecutor(2) as pool:
        findings = pool.map(lambda kind: prove(client, cloudwatch, kind), KINDS)
        results = {kind.name: found for kind, found in zip(KINDS, findings, strict=True)}
    print("\n" + json.dumps(results))
