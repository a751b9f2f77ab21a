"""Where jobs run. A workflow knows nothing else of it: not whether it talks to AWS or to this machine."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.images import local_image

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

    from microjobs_orchestrator.local.control import Address
    from microjobs_orchestrator.local.home import Home

SERVICES = ("sagemaker", "sagemaker-runtime", "s3", "logs")

POLL_LOCAL = 0.25
"""Seconds between two looks at a job on this machine."""


Members = Mapping[str, Any]
Complete = Callable[[str, str, Members], Members]

DAY = 86_400


def as_it_is(_run: str, _operation: str, request: Members) -> Members:
    """Nothing is added to a request."""
    return request


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """What requests have of a backend: names and sizes, no connection to it."""

    bucket: str
    prefix: str = ""
    """Of all keys in the bucket; ends with `/` if there is one."""
    role: str
    image: Callable[[str], str]
    """The image of a job of this repository, by the job's name."""
    instance_type: str = "ml.m5.large"
    instance_types: Mapping[str, str] = field(default_factory=dict)
    """Of the steps that have another one."""
    endpoint_instances: int = 1
    max_seconds: int = DAY
    """How long a job may run, and an endpoint may take to be in service."""
    complete: Complete = as_it_is
    """Run, operation and request give the request with what this backend wants of all: tags, a network, keys."""

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def instances(self, step: str, count: int = 1) -> dict[str, Any]:
        """A step's instances, as requests spell them."""
        return {"InstanceType": self.instance_types.get(step, self.instance_type), "InstanceCount": count}


@dataclass(frozen=True, kw_only=True)
class Backend(RequestContext):
    """A site with clients that reach it, and its manners."""

    title: str
    """For people, such as `docker on this machine`."""
    why: str
    """Why it is this backend."""
    sagemaker: "SageMakerClient"
    runtime: "SageMakerRuntimeClient"
    s3: "S3Client"
    logs: "CloudWatchLogsClient"
    poll: float = POLL_LOCAL
    poll_longest: float = 4 * POLL_LOCAL
    """Between two looks at a job that runs long."""
    price: Callable[[str], float | None] | None = None
    """Dollars an instance of a type costs an hour, None if that is not known; no function where nothing costs."""
    needs_images: bool = False
    """Whether the jobs' images must be here before a run."""
    buckets: Path | None = None
    """The folder that holds the buckets, if they are folders."""

    def folder(self, uri: str) -> Path | None:
        """Where an S3 address lies on this machine, if it does."""
        return None if self.buckets is None else self.buckets / uri.removeprefix("s3://")


@contextmanager
def local_backend(home: "Home", runtime: str = "auto") -> Iterator[Backend]:
    """The backend of this folder's server; if none runs, of one that runs as long as the block.

    Raises:
        UsageError: a server runs that has another runtime.
        ServerError: the server does not start.
    """
    from microjobs_orchestrator.local import config, control

    home.make()
    # Any free port: who wants a known one starts a server that stays.
    chosen = config.changed(config.read(), port=0, runtime=None if runtime == "auto" else runtime)
    with control.serving(home, chosen) as address:
        if runtime not in ("auto", address.runtime):
            raise UsageError(
                f"a server with runtime {address.runtime} runs for {home.root}, and this run needs runtime {runtime}: "
                "end the server with `microjobs local down`, or leave out --runtime"
            )
        yield connect_local(address, home.buckets)


def connect_local(address: "Address", buckets: Path) -> Backend:
    """A local server's backend."""
    session = boto3.Session(address.access_key_id, address.secret_access_key, region_name=address.region)
    settings = {
        "endpoint_url": address.url,
        # An endpoint may take a minute to answer, as on AWS.
        "config": Config(connect_timeout=5, read_timeout=70, retries={"mode": "standard", "max_attempts": 3}),
    }
    clients: Any = {name: session.client(name, **settings) for name in SERVICES}  # type: ignore[call-overload]
    return Backend(
        title=f"{address.runtime} on this machine",
        why=address.why,
        sagemaker=clients["sagemaker"],
        runtime=clients["sagemaker-runtime"],
        s3=clients["s3"],
        logs=clients["logs"],
        bucket=address.bucket,
        role=address.role_arn,
        image=local_image,
        buckets=buckets,
        needs_images=address.runtime == "docker",
    )
