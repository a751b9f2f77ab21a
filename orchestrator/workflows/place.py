"""Where jobs run. A workflow knows nothing else of it: not whether it talks to AWS or to this machine."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

    from orchestrator.local.server import Address

POLL_LOCAL = 0.25
"""Seconds between two looks at a job on this machine."""


@dataclass(frozen=True)
class Place:
    """Clients, names and manners of one place."""

    title: str
    """For people, such as `docker on this machine`."""
    sagemaker: "SageMakerClient"
    runtime: "SageMakerRuntimeClient"
    s3: "S3Client"
    logs: "CloudWatchLogsClient"
    bucket: str
    role: str
    image: Callable[[str], str]
    """The image of a job of this repository, by the job's name."""
    instance_type: str = "ml.m5.large"
    poll: float = POLL_LOCAL
    buckets: Path | None = None
    """The folder that holds the buckets, if they are folders."""

    def folder(self, uri: str) -> Path | None:
        """Where an S3 address lies on this machine, if it does."""
        return None if self.buckets is None else self.buckets / uri.removeprefix("s3://")


def local_image(job: str) -> str:
    """The name that `make build` gives a job's image."""
    return f"{os.environ.get('REGISTRY') or 'microjobs'}/{job}:{os.environ.get('TAG') or 'dev'}"


def on_this_machine(address: "Address", buckets: Path) -> Place:
    """The local server's place."""
    from orchestrator.local import server

    return Place(
        title=f"{address.runtime} on this machine",
        sagemaker=server.client(address, "sagemaker"),
        runtime=server.client(address, "sagemaker-runtime"),
        s3=server.client(address, "s3"),
        logs=server.client(address, "logs"),
        bucket=address.bucket,
        role=address.role_arn,
        image=local_image,
        buckets=buckets,
    )
