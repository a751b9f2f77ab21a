"""A server for tests, its clients, and short requests."""

import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from botocore.config import Config as ClientConfig

from microjobs.contract import BASE_DIR_VARIABLE, DEFAULT_ROOT
from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from tests.conftest import REPOSITORY, make_image_name
from tests.forks import Fork
from tests.polling import wait_until

SHELL_IMAGE = "serve"
"""The smallest image of the repository. It has a shell and Python, so that jobs of tests can be scripts."""

ENVIRONMENTS = REPOSITORY / ".venv-jobs"
"""Folder of virtual environments for jobs on the process runtime. All test servers share this folder to save time."""

FINAL_STATUSES = ("Completed", "Failed", "Stopped")

ROOT = f"${{{BASE_DIR_VARIABLE}:-{DEFAULT_ROOT}}}"
"""The contract's root in a script that runs in containers and as a process."""


@dataclass(frozen=True)
class LocalServer:
    """A running server, and its boto3 clients."""

    home: Home
    address: control.Address

    def client(self, service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]  # any service
            endpoint_url=self.address.url,
            region_name=self.address.region,
            aws_access_key_id=self.address.access_key_id,
            aws_secret_access_key=self.address.secret_access_key,
            config=ClientConfig(retries={"total_max_attempts": 1}, read_timeout=120),
        )

    @cached_property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    @cached_property
    def logs(self) -> Any:
        return self.client("logs")

    @property
    def bucket(self) -> Path:
        """The default bucket's folder."""
        return self.home.buckets / self.address.bucket

    def uri(self, key: str = "") -> str:
        return f"s3://{self.address.bucket}/{key}"

    def put(self, files: Mapping[str, str]) -> None:
        """Write files into the folder of the default bucket, as a user may do."""
        for key, content in files.items():
            path = self.bucket / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    # --- jobs ---

    def train(self, script: str, **members: Any) -> dict[str, Any]:
        """Run a training job to its end."""
        name = self.start_training(script, **members)
        return self.wait_for_end(name)

    def start_training(self, script: str, **members: Any) -> str:
        self.sagemaker.create_training_job(**(request := make_training_request(self, script, **members)))
        return str(request["TrainingJobName"])

    def wait_for_end(self, name: str) -> dict[str, Any]:
        """Wait for the end of a training job; return its description."""
        describe = self.sagemaker.describe_training_job
        job: dict[str, Any] = wait_until(
            lambda: describe(TrainingJobName=name), lambda job: job["TrainingJobStatus"] in FINAL_STATUSES
        )
        return job

    def describe_training(self, name: str) -> dict[str, Any]:
        """Return the description of a training job."""
        description: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return description

    def wait_for_secondary_status(self, name: str, status: str) -> dict[str, Any]:
        """Wait until a training job has a SecondaryStatus; return its description."""
        job: dict[str, Any] = wait_until(
            lambda: self.describe_training(name), lambda job: job["SecondaryStatus"] == status
        )
        return job

    def wait_for_log(self, name: str, line: str) -> None:
        """Wait until a training job's first host has printed a line."""
        wait_until(lambda: self.read_logs("TrainingJobs", name), lambda lines: line in lines.get("algo-1", []))

    def read_archive(self, name: str, archive: str = "model.tar.gz") -> dict[str, str]:
        """Return the text of each file of a training job's archive, by name."""
        with tarfile.open(self.bucket / f"models/{name}/output/{archive}") as tar:
            return {
                item.name: file.read().decode() for item in tar if item.isfile() and (file := tar.extractfile(item))
            }

    def process(self, script: str, **members: Any) -> dict[str, Any]:
        """Run a processing job to its end."""
        name = self.start_processing(script, **members)
        describe = self.sagemaker.describe_processing_job
        job: dict[str, Any] = wait_until(
            lambda: describe(ProcessingJobName=name), lambda job: job["ProcessingJobStatus"] in FINAL_STATUSES
        )
        return job

    def start_processing(self, script: str, **members: Any) -> str:
        self.sagemaker.create_processing_job(**(request := make_processing_request(script, **members)))
        return str(request["ProcessingJobName"])

    def read_logs(self, group: str, job: str) -> dict[str, list[str]]:
        """Return the log lines that a job has now, by host. `group` is the end of the log group's name."""
        streams = self.read_log_streams(f"/aws/sagemaker/{group}", f"{job}/")
        return {name.removeprefix(f"{job}/").rpartition("-")[0]: lines for name, lines in streams.items()}

    def read_log_streams(self, group: str, prefix: str = "") -> dict[str, list[str]]:
        """Return the lines of a group's log streams, by the streams' names; empty if the group does not exist."""
        prefix_member = {"logStreamNamePrefix": prefix} if prefix else {}
        try:
            streams = self.logs.describe_log_streams(logGroupName=group, **prefix_member)["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:  # no host of this kind has written a line yet
            return {}
        names = [stream["logStreamName"] for stream in streams]
        return {name: self._read_lines(group, name) for name in names}

    def _read_lines(self, group: str, stream: str) -> list[str]:
        events = self.logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        return [event["message"] for event in events]


_numbers = iter(range(1, 1_000_000))


def make_unique_name(prefix: str) -> str:
    return f"{prefix}-{next(_numbers)}"


def make_training_request(server: LocalServer, script: str, instances: int = 1, **members: Any) -> dict[str, Any]:
    """Return a CreateTrainingJob request whose job is a shell script."""
    algorithm = {
        "TrainingImage": make_image_name(SHELL_IMAGE),
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["/bin/sh", "-c"],
        "ContainerArguments": [script],
    }
    return {
        "TrainingJobName": make_unique_name("train"),
        "AlgorithmSpecification": algorithm | members.pop("algorithm", {}),
        "RoleArn": server.address.role_arn,
        "OutputDataConfig": {"S3OutputPath": server.uri("models")},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 100},
        **members,
    }


def make_channel(name: str, uri: str, distribution: str = "FullyReplicated") -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": distribution}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def make_processing_request(script: str, instances: int = 1, **members: Any) -> dict[str, Any]:
    """Return a CreateProcessingJob request whose job is a shell script."""
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1}
    return {
        "ProcessingJobName": make_unique_name("process"),
        "AppSpecification": {
            "ImageUri": make_image_name(SHELL_IMAGE),
            "ContainerEntrypoint": ["/bin/sh", "-c"],
            "ContainerArguments": [script],
        },
        "ProcessingResources": {"ClusterConfig": cluster},
        "RoleArn": "arn:aws:iam::000000000000:role/microjobs",
        **members,
    }


def make_processing_input(name: str, uri: str, path: str, distribution: str = "FullyReplicated") -> dict[str, Any]:
    source = {"S3Uri": uri, "LocalPath": path, "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": {**source, "S3DataDistributionType": distribution}}


def make_processing_output(name: str, uri: str, path: str, mode: str = "EndOfJob") -> dict[str, Any]:
    return {"OutputName": name, "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": mode}}


def create_home_with_shared_environments(home: Home) -> None:
    """Create the folders of a home, whose environments are those of all test servers."""
    home.create()
    ENVIRONMENTS.mkdir(exist_ok=True)
    if not home.environments.exists():
        home.environments.symlink_to(ENVIRONMENTS)


def fork_server(home: Home, config: Config, *, stops_when_unused: bool) -> Fork:
    """Start a server as `control` does, but as a fork: a new interpreter needs 0.6 s of CPU time for the imports."""
    assert not stops_when_unused
    command = ["-m", "microjobs_orchestrator.local", *config.to_flags()]
    return Fork(command, {**os.environ, "MICROJOBS_HOME": str(home.root)}, log=home.server_log, starts_session=True)


@contextmanager
def run_server(folder: Path, **settings: Any) -> Iterator[LocalServer]:
    """Run a server in its own process until the end of the block."""
    home = Home(folder)
    create_home_with_shared_environments(home)
    with patch.object(control, "_spawn", fork_server):
        address = control.start(home, Config(port=0, **settings))
    try:
        yield LocalServer(home, address)
    finally:
        control.stop(home)
