"""The parts of a server with a fake runtime, and shortcuts that call its operations with default members."""

import socket
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.lifecycle.context import Context, Settings
from microjobs_orchestrator.local.lifecycle.registry import Registry, RunnableMaker
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.operations import EndpointConfigOperations, EndpointOperations
from microjobs_orchestrator.local.resources.models.client import Client
from microjobs_orchestrator.local.resources.models.operations import ModelOperations
from microjobs_orchestrator.local.resources.processing.operations import ProcessingJobOperations
from microjobs_orchestrator.local.resources.transform.job import TransformJob
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.resources.transform.operations import TransformJobOperations
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.state import State
from tests.local.jobs.fake_programs import FakePrograms
from tests.local.jobs.fakes import FakeHost, FakeRuntime, ImageBehaviour
from tests.polling import wait_until

TIMEOUT_SECONDS = 60.0

MakeClient = Callable[[Callable[[socket.socket], None]], Client]

ONE_VARIANT: Mapping[str, Mapping[str, Any]] = {"main": {}}


@dataclass
class ServerParts:
    """The parts of a server that jobs use, and shortcuts for tests."""

    home: Home
    runtime: FakeRuntime
    context: Context
    registry: Registry

    @classmethod
    def from_home(cls, home: Home, runtime: FakeRuntime) -> "ServerParts":
        """Return the parts of a server that starts with a home, which an earlier server may have used."""
        store, settings = ObjectStore(home), Settings("http://127.0.0.1:1")
        state, logs, metrics = State(home.state), LogStore(home.logs), MetricStore(home.metrics)
        context = Context(home, state, store, logs, metrics, runtime, settings, FakePrograms())
        return cls(home, runtime, context, Registry(context))

    def close(self) -> None:
        self.registry.shut_down()
        self.context.programs.close()
        self.context.store.close()
        self.context.state.close()
        self.context.metrics.close()

    def restart(self, additional_makers: Mapping[str, RunnableMaker] | None = None) -> "ServerParts":
        """Start another server with the same home and containers. If the test has not shut this server down, the other
        server starts as if this server had been killed."""
        parts = ServerParts.from_home(self.home, self.runtime)
        makers: dict[str, RunnableMaker] = {ENDPOINT.arn_type: Endpoint, TRANSFORM_JOB.arn_type: TransformJob}
        parts.registry.recover({**makers, **(additional_makers or {})})
        return parts

    # --- resources ---

    @property
    def endpoints(self) -> EndpointOperations:
        return EndpointOperations(self.context, self.registry)

    @property
    def processing_jobs(self) -> ProcessingJobOperations:
        return ProcessingJobOperations(self.context, self.registry)

    @property
    def transform_jobs(self) -> TransformJobOperations:
        return TransformJobOperations(self.context, self.registry)

    def put(self, key: str, content: bytes) -> str:
        """Store an object in the bucket `bucket`; return its URI."""
        path = self.home.buckets / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"s3://bucket/{key}"

    def make_model(self, name: str = "m", image: str = "model", **container: Any) -> None:
        """Create a model. `container` has the members of its container, and `isolated` for EnableNetworkIsolation."""
        members = {"EnableNetworkIsolation": container.pop("isolated")} if "isolated" in container else {}
        request = {"ModelName": name, "PrimaryContainer": {"Image": image, **container}, **members}
        ModelOperations(self.context, self.registry).create(request)

    def make_multi_container_model(self, *images: str, name: str = "m", mode: str = "Serial", **members: Any) -> None:
        """Create a model with one container per image, or with the `Containers` in `members`."""
        names = [f"container-{number}" if mode == "Direct" else "" for number in range(1, len(images) + 1)]
        containers = [
            {"Image": image, **({"ContainerHostname": name} if name else {})}
            for image, name in zip(images, names, strict=True)
        ]
        config = {"Mode": mode}
        request = {"ModelName": name, "Containers": containers, "InferenceExecutionConfig": config, **members}
        ModelOperations(self.context, self.registry).create(request)

    def make_config(
        self,
        name: str = "c",
        /,
        asynchronous: Mapping[str, Any] | None = None,
        config_members: Mapping[str, Any] = MappingProxyType({}),
        **variants: Mapping[str, Any],
    ) -> None:
        """Create a configuration. `variants` maps names to members; the default is one variant with the model `m`.

        Args:
            asynchronous: the member AsyncInferenceConfig.
            config_members: additional members of the request.
        """
        variant_items = [
            {"VariantName": variant, "ModelName": "m", "InstanceType": "ml.m5.large", **members}
            for variant, members in (variants or ONE_VARIANT).items()
        ]
        members = {} if asynchronous is None else {"AsyncInferenceConfig": asynchronous}
        request = {"EndpointConfigName": name, "ProductionVariants": variant_items, **members, **config_members}
        EndpointConfigOperations(self.context, self.registry).create(request)

    def start_endpoint(self, name: str = "e", config: str = "c") -> None:
        request = {"EndpointName": name, "EndpointConfigName": config}
        self.endpoints.create(request)

    def deploy(self, **variants: Mapping[str, Any]) -> dict[str, Any]:
        """Create endpoint `e` of configuration `c`; return its description when it is InService or Failed."""
        self.make_config(**variants)
        self.start_endpoint()
        return self.wait_for_endpoint()

    def update_endpoint(self, config: str, **members: Any) -> None:
        self.endpoints.update({"EndpointName": "e", "EndpointConfigName": config, **members})

    def delete_endpoint(self) -> None:
        self.endpoints.delete({"EndpointName": "e"})

    def start_transform(self, **members: Any) -> None:
        self.transform_jobs.create(make_transform_request(**members))

    def transform(self, **members: Any) -> dict[str, Any]:
        """Run transform job `t`; return its description when it has ended."""
        self.start_transform(**members)
        return self.wait_for_transform()

    def wait_for_transform(self) -> dict[str, Any]:
        description: dict[str, Any] = wait_until(
            lambda: dict(self.context.state.get(TRANSFORM_JOB.arn_type, "t").description),  # type: ignore[union-attr]
            lambda description: description["TransformJobStatus"] in ("Completed", "Failed", "Stopped"),
        )
        wait_until(lambda: self.registry.find("transform-job/t") is None)
        return description

    # --- results ---

    def read_outputs(self) -> dict[str, bytes]:
        """Return the contents of the objects below `out/`, by their keys without this prefix."""
        objects = self.context.store.list("bucket", "out/")
        return {item.key.removeprefix("out/"): item.path.read_bytes() for item in objects}

    def describe_endpoint(self, name: str = "e") -> dict[str, Any]:
        record = self.context.state.get(ENDPOINT.arn_type, name)
        return dict(record.description) if record else {"EndpointStatus": "gone"}

    def wait_for_endpoint(self, name: str = "e") -> dict[str, Any]:
        transitional_statuses = ("Creating", "Updating", "Deleting")
        description: dict[str, Any] = wait_until(
            lambda: self.describe_endpoint(name),
            lambda description: description["EndpointStatus"] not in transitional_statuses,
        )
        return description

    def read_log(self, group: str) -> dict[str, list[str]]:
        """Return the lines of a group's streams, by the names of the streams."""
        streams = self.context.logs.streams(group)
        return {name: [event.message for event in stream.events()] for name, stream in streams.items()}

    @property
    def running_hosts(self) -> list[FakeHost]:
        return [host for hosts in list(self.runtime.hosts.values()) for host in hosts if not host.has_ended]


def make_transform_request(source: str = "s3://bucket/in/", host_count: int = 1, **members: Any) -> dict[str, Any]:
    """Return the request for the transform job `t`. The job sends the objects below `in/` to the model `m`, and stores
    the responses below `out`.

    Args:
        members: members of the request, of TransformInput, or of TransformOutput.
    """
    input_names, output_names = ("ContentType", "SplitType", "CompressionType"), ("Accept", "AssembleWith")
    inputs: dict[str, Any] = {name: members.pop(name) for name in input_names if name in members}
    outputs: dict[str, Any] = {name: members.pop(name) for name in output_names if name in members}
    data = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}
    return {
        "TransformJobName": "t",
        "ModelName": "m",
        "TransformInput": {"DataSource": data, **inputs},
        "TransformOutput": {"S3OutputPath": "s3://bucket/out", **outputs},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": host_count},
        **members,
    }


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[ServerParts]:
    """The parts of a server, with the bucket `bucket` and the image `model`."""
    home = Home(tmp_path / "home")
    home.create()
    home.credentials()  # the server also creates the credentials before it runs jobs
    (home.buckets / "bucket").mkdir()
    server_parts = ServerParts.from_home(home, FakeRuntime())
    yield server_parts
    server_parts.close()
    server_parts.runtime.close()


@pytest.fixture
def model(parts: ServerParts) -> ImageBehaviour:
    """The behaviour of the image `model`; creates the model `m` with this image."""
    parts.make_model()
    return parts.runtime.behaviours["model"]


@pytest.fixture
def put_archive(parts: ServerParts, tmp_path: Path) -> Callable[..., str]:
    """A function that stores a model archive with some members and files, and returns its URI."""

    def make(*members: tarfile.TarInfo, **files: str) -> str:
        folder = tmp_path / "model"
        folder.mkdir()
        with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
            for name, content in files.items():
                (folder / name).write_text(content)
                tar.add(folder / name, name)
            for member in members:
                tar.addfile(member)
        return parts.put("models/model.tar.gz", (tmp_path / "model.tar.gz").read_bytes())

    return make


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """A function that starts a server and returns a client of the server. The argument is a function that the server
    calls with the connection for each request, and that sends the response."""
    listener = socket.create_server(("127.0.0.1", 0))
    clients = []

    def start(answer: Callable[[socket.socket], None]) -> Client:
        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    while connection.recv(1000):
                        answer(connection)

        threading.Thread(target=accept, daemon=True).start()
        clients.append(Client(partial(socket.create_connection, listener.getsockname())))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
