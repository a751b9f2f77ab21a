"""The backend that runs jobs: the local server, or AWS. A workflow does not know which one it uses."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.images import get_local_image_name
from microjobs_orchestrator.runs.kinds import Kind, Members

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

    from microjobs_orchestrator.local.control import Address
    from microjobs_orchestrator.local.home import Home

SERVICES = ("sagemaker", "sagemaker-runtime", "s3", "logs")
LOCAL_POLL_INTERVAL = 0.25

CompleteRequest = Callable[[str, Kind, Members], Members]
"""A function that takes a run's name, a kind and a request. It returns the request to send, with tags, a network and
keys if necessary."""


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """The values of a backend that its requests contain. They need no connection to the backend."""

    bucket: str
    prefix: str = ""
    """The prefix of all keys in the bucket; ends with `/` unless it is empty."""
    role: str
    find_image_uri: Callable[[str], str]
    """A function that returns the image URI of a job of this repository."""
    instance_type: str = "ml.m5.large"
    instance_types: Mapping[str, str] = field(default_factory=dict)
    """Instance types of single steps, by step."""
    endpoint_instances: int = 1
    max_seconds: int = 86_400
    """The time limit of a job, and of an endpoint's creation."""
    complete_request: CompleteRequest = lambda _run, _kind, request: request

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def make_instance_members(self, step: str, count: int = 1) -> dict[str, Any]:
        """Return the members that define a step's instances."""
        return {"InstanceType": self.instance_types.get(step, self.instance_type), "InstanceCount": count}


@dataclass(frozen=True, kw_only=True)
class Backend(RequestContext):
    """A backend: the values for its requests, its clients, and how often to poll it."""

    title: str
    """The name for the user, such as `this machine, runtime docker`."""
    reason: str
    """The reason for the choice of this backend; for AWS, the region and the role. Messages show it after the title."""
    sagemaker: "SageMakerClient"
    runtime: "SageMakerRuntimeClient"
    s3: "S3Client"
    logs: "CloudWatchLogsClient"
    poll_interval: float = LOCAL_POLL_INTERVAL
    """Seconds between two Describe calls for a job."""
    max_poll_interval: float = 4 * LOCAL_POLL_INTERVAL
    """Maximum seconds between two Describe calls for a job that has run for a long time."""
    find_price: Callable[[str], float | None] | None = None
    """A function that returns the dollars per hour of an instance type, or None if the price is unknown. The member is
    None if nothing costs money."""
    needs_images: bool = False
    """Whether jobs run in images of this machine."""
    buckets: Path | None = None
    """The folder on this machine that contains the buckets, one folder per bucket."""


@contextmanager
def open_local_backend(home: "Home", runtime: str = "auto") -> Iterator[Backend]:
    """Yield the backend of a home's server. If no server runs, start one that ends after the block.

    Raises:
        UsageError: a server with another runtime runs.
        ServerError: the server does not start.
    """
    from microjobs_orchestrator.local import config, control

    home.create()
    # The server gets any free port: users who want a fixed port start a server themselves.
    settings = config.merge_flags(config.load(), port=0, runtime=None if runtime == "auto" else runtime)
    with control.use_server(home, settings) as address:
        if runtime not in ("auto", address.runtime):
            raise UsageError(
                f"a server with runtime {address.runtime} runs for {home.root}, and this run needs runtime {runtime}: "
                "end the server with `microjobs local down`, or omit --runtime"
            )
        yield connect_local(address, home.buckets)


def connect_local(address: "Address", buckets: Path) -> Backend:
    """Return the backend of a running local server."""
    session = boto3.Session(address.access_key_id, address.secret_access_key, region_name=address.region)
    settings = {
        "endpoint_url": address.url,
        # The timeout is long, because an endpoint may take a minute to answer, as on AWS.
        "config": Config(connect_timeout=5, read_timeout=70, retries={"mode": "standard", "max_attempts": 3}),
    }
    clients: Any = {name: session.client(name, **settings) for name in SERVICES}  # type: ignore[call-overload]
    return Backend(
        title=f"this machine, runtime {address.runtime}",
        reason=address.why,
        sagemaker=clients["sagemaker"],
        runtime=clients["sagemaker-runtime"],
        s3=clients["s3"],
        logs=clients["logs"],
        bucket=address.bucket,
        role=address.role_arn,
        find_image_uri=get_local_image_name,
        buckets=buckets,
        needs_images=address.runtime == "docker",
    )
