"""Amazon SageMaker's contract with a container: paths, files and environment variables.

The local server and the tests write files with this module, and images read them with it, so that the writer and the
reader of each file are next to each other. docs/maintaining/contract.md links AWS's pages. Standard library only.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from microjobs.files import write_whole

DEFAULT_ROOT = "/opt/ml"
BASE_DIR = "SAGEMAKER_BASE_DIR"

FAILURE_LIMIT = 1024
"""Characters of the failure file that become FailureReason."""
MESSAGE_LIMIT = 1024
"""Bytes of the message file that become ExitMessage."""


@dataclass(frozen=True)
class Layout:
    """Paths below the contract's root: `/opt/ml`, or the value of `SAGEMAKER_BASE_DIR`."""

    root: Path = Path(DEFAULT_ROOT)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Layout":
        return cls(Path(environ.get(BASE_DIR) or DEFAULT_ROOT))

    def or_default(self) -> "Layout":
        """Return the default layout if this root is not a folder: the platform reads a failure file only there."""
        return self if self.root.is_dir() else Layout()

    @property
    def input_config(self) -> Path:
        return self.root / "input" / "config"

    @property
    def input_data(self) -> Path:
        return self.root / "input" / "data"

    def channel(self, name: str) -> Path:
        """Return the folder of an input channel of a training job."""
        return self.input_data / name

    @property
    def model(self) -> Path:
        """Folder to which training writes its model, and in which hosting finds the extracted archive."""
        return self.root / "model"

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def output_data(self) -> Path:
        return self.output / "data"

    @property
    def failure(self) -> Path:
        return self.output / "failure"

    @property
    def message(self) -> Path:
        return self.output / "message"

    @property
    def processing_config(self) -> Path:
        return self.root / "config"

    @property
    def job_secret(self) -> Path:
        return self.root / "secret" / "job"

    def processing(self, name: str) -> Path:
        """Return the default `LocalPath` of a processing input or output."""
        return self.root / "processing" / name

    def local(self, path: str) -> Path:
        """Return the path below this root for a `LocalPath` of a request, which is always below `/opt/ml`."""
        inside = PurePosixPath(path)
        return self.root / inside.relative_to(DEFAULT_ROOT) if inside.is_relative_to(DEFAULT_ROOT) else Path(path)

    def spell(self, path: Path) -> str:
        """Return the `LocalPath` in a request for a path below this root; the inverse of `local`."""
        return str(PurePosixPath(DEFAULT_ROOT) / path.relative_to(self.root))


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# --- hyperparameters.json: {name: string} ---


def encode_hyperparameter(value: object) -> str:
    """Return a value as requests contain it: text unchanged, other values as JSON, like SageMaker SDK v3."""
    return value if isinstance(value, str) else json.dumps(value)


def decode_hyperparameter(text: str) -> Any:
    """Return the value of a request's text: parsed if it is JSON, else the text.

    Clients use both: SDK v2 sends `str(value)`; its framework estimators and SDK v3 send JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def write_hyperparameters(layout: Layout, values: Mapping[str, object]) -> None:
    content = {name: encode_hyperparameter(value) for name, value in values.items()}
    _write(layout.input_config / "hyperparameters.json", content)


def read_hyperparameters(layout: Layout) -> dict[str, str]:
    """Return the hyperparameters as strings; empty if the request has none."""
    path = layout.input_config / "hyperparameters.json"
    return {str(name): str(value) for name, value in _read(path).items()} if path.exists() else {}


# --- inputdataconfig.json: one entry per channel ---


@dataclass(frozen=True)
class Channel:
    """One channel of a training job's `InputDataConfig`."""

    input_mode: str = "File"
    distribution: str = "FullyReplicated"
    record_wrapper: str = "None"
    content_type: str | None = None


def write_input_data_config(layout: Layout, channels: Mapping[str, Channel]) -> None:
    def entry(channel: Channel) -> dict[str, str]:
        content_type = {} if channel.content_type is None else {"ContentType": channel.content_type}
        return content_type | {
            "TrainingInputMode": channel.input_mode,
            "S3DistributionType": channel.distribution,
            "RecordWrapperType": channel.record_wrapper,
        }

    _write(layout.input_config / "inputdataconfig.json", {name: entry(channel) for name, channel in channels.items()})


def read_input_data_config(layout: Layout) -> dict[str, Channel]:
    path = layout.input_config / "inputdataconfig.json"
    return {
        name: Channel(
            input_mode=entry.get("TrainingInputMode", "File"),
            distribution=entry.get("S3DistributionType", "FullyReplicated"),
            record_wrapper=entry.get("RecordWrapperType", "None"),
            content_type=entry.get("ContentType"),
        )
        for name, entry in (_read(path) if path.exists() else {}).items()
    }


# --- resourceconfig.json: the hosts of the job ---


@dataclass(frozen=True)
class InstanceGroup:
    name: str
    instance_type: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class ResourceConfig:
    """The hosts of a job. Processing jobs only have `current_host` and `hosts`."""

    current_host: str = "algo-1"
    hosts: tuple[str, ...] = ("algo-1",)
    instance_type: str = ""
    group: str = "homogeneousCluster"
    groups: tuple[InstanceGroup, ...] = ()
    network_interface: str = "eth0"

    @property
    def first_host(self) -> str:
        return self.hosts[0]

    @property
    def is_first(self) -> bool:
        return self.current_host == self.first_host

    @property
    def rank(self) -> int:
        return self.hosts.index(self.current_host)


def write_training_resource_config(layout: Layout, resources: ResourceConfig) -> None:
    groups = resources.groups or (InstanceGroup(resources.group, resources.instance_type, resources.hosts),)
    content = {
        "current_host": resources.current_host,
        "current_instance_type": resources.instance_type,
        "current_group_name": resources.group,
        "hosts": resources.hosts,
        "instance_groups": [
            {"instance_group_name": group.name, "instance_type": group.instance_type, "hosts": group.hosts}
            for group in groups
        ],
        "network_interface_name": resources.network_interface,
        "topology": None,
    }
    _write(layout.input_config / "resourceconfig.json", content)


def read_training_resource_config(layout: Layout) -> ResourceConfig:
    return _read_resource_config(layout.input_config / "resourceconfig.json")


def write_processing_resource_config(layout: Layout, resources: ResourceConfig) -> None:
    content = {"current_host": resources.current_host, "hosts": resources.hosts}
    _write(layout.processing_config / "resourceconfig.json", content)


def read_processing_resource_config(layout: Layout) -> ResourceConfig:
    return _read_resource_config(layout.processing_config / "resourceconfig.json")


def _read_resource_config(path: Path) -> ResourceConfig:
    if not path.exists():  # the image was started by `docker run`, on one host
        return ResourceConfig()
    content = _read(path)
    return ResourceConfig(
        current_host=content["current_host"],
        hosts=tuple(sorted(content["hosts"], key=_natural)),
        instance_type=content.get("current_instance_type", ""),
        group=content.get("current_group_name", "homogeneousCluster"),
        groups=tuple(
            InstanceGroup(group["instance_group_name"], group["instance_type"], tuple(group["hosts"]))
            for group in content.get("instance_groups") or ()
        ),
        network_interface=content.get("network_interface_name", "eth0"),
    )


def _natural(host: str) -> tuple[str, int]:
    """Return a sort key that puts `algo-10` after `algo-9`: all hosts have the same order, whatever the file has."""
    stem, _, number = host.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (host, 0)


# --- processingjobconfig.json: the request ---


def write_processing_job_config(layout: Layout, request: Mapping[str, Any], arn: str) -> None:
    """Write a CreateProcessingJob request as containers get it."""
    application = dict(request["AppSpecification"])
    content = {
        "ProcessingJobArn": arn,
        "ProcessingJobName": request["ProcessingJobName"],
        "AppSpecification": {"ContainerEntrypoint": None, "ContainerArguments": None} | application,
        "Environment": dict(request.get("Environment", {})),
        "ProcessingInputs": list(request.get("ProcessingInputs", [])),
        "ProcessingOutputConfig": request.get("ProcessingOutputConfig", {"Outputs": [], "KmsKeyId": None}),
        "ProcessingResources": request["ProcessingResources"],
        "RoleArn": request["RoleArn"],
        "StoppingCondition": request.get("StoppingCondition", {"MaxRuntimeInSeconds": 86400}),
    }
    _write(layout.processing_config / "processingjobconfig.json", content)


def read_processing_job_config(layout: Layout) -> dict[str, Any]:
    """Return the request; empty if the image was not started as a processing job."""
    path = layout.processing_config / "processingjobconfig.json"
    content: dict[str, Any] = _read(path) if path.exists() else {}
    return content


# --- checkpointconfig.json: exists only if the request has a CheckpointConfig ---


def write_checkpoint_config(layout: Layout, local_path: str) -> None:
    _write(layout.input_config / "checkpointconfig.json", {"LocalPath": local_path})


def read_checkpoint_folder(layout: Layout) -> Path:
    """Return the folder that the platform synchronizes with S3."""
    path = layout.input_config / "checkpointconfig.json"
    return layout.local(_read(path)["LocalPath"]) if path.exists() else layout.checkpoints


def checkpoints_are_kept(layout: Layout) -> bool:
    """Return whether checkpoints outlive the job: by the request, or because a folder is mounted for them."""
    return (layout.input_config / "checkpointconfig.json").exists() or layout.checkpoints.is_dir()


# --- failure and message: why the job failed, and how it ended ---


def write_failure(layout: Layout, reason: str) -> None:
    """Write the reason of a failure. The first reason is kept, because later ones may be consequences."""
    if not layout.failure.exists():  # all or nothing: after an empty file, the supervisor would not write its reason
        write_whole(layout.failure, reason[:FAILURE_LIMIT].encode(errors="backslashreplace"))


def parse_failure(content: bytes) -> str:
    """Return the text of a failure file that becomes FailureReason."""
    return content.decode(errors="replace").strip()[:FAILURE_LIMIT]


def read_failure(layout: Layout) -> str | None:
    return parse_failure(layout.failure.read_bytes()) if layout.failure.exists() else None


def write_message(layout: Layout, message: str) -> None:
    """Write the `ExitMessage` of a processing job."""
    write_whole(layout.message, parse_message(message.encode(errors="backslashreplace")).encode())


def parse_message(content: bytes) -> str:
    """Return the text of a message file that becomes ExitMessage: its first kilobyte, without a part of a character.

    Raises:
        UnicodeDecodeError: it is not UTF-8. AWS fails such a job.
    """
    return content.decode().encode()[:MESSAGE_LIMIT].decode(errors="ignore")


def read_message(layout: Layout) -> str | None:
    return parse_message(layout.message.read_bytes()) if layout.message.exists() else None


# --- environment variables ---


@dataclass(frozen=True)
class TrainingEnvironment:
    """Variables that a training job has in addition to the `Environment` of its request."""

    job_name: str = ""
    job_arn: str = ""
    region: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        own = {"TRAINING_JOB_NAME": self.job_name, "TRAINING_JOB_ARN": self.job_arn, "AWS_REGION": self.region}
        return {**self.extra, **own}


@dataclass(frozen=True)
class HostingEnvironment:
    """Variables for a hosting container; all but the ports are for Batch Transform."""

    port: int = 8080
    safe_port_range: str | None = None
    batch: bool = False
    max_payload_mb: int | None = None
    batch_strategy: str | None = None
    max_concurrent_transforms: int | None = None

    def variables(self) -> dict[str, str]:
        values: Sequence[tuple[str, object]] = (
            ("SAGEMAKER_BIND_TO_PORT", self.port if self.port != 8080 else None),
            ("SAGEMAKER_SAFE_PORT_RANGE", self.safe_port_range),
            ("SAGEMAKER_BATCH", "true" if self.batch else None),
            ("SAGEMAKER_MAX_PAYLOAD_IN_MB", self.max_payload_mb),
            ("SAGEMAKER_BATCH_STRATEGY", self.batch_strategy),
            ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", self.max_concurrent_transforms),
        )
        return {name: str(value) for name, value in values if value is not None}

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "HostingEnvironment":
        def number(name: str) -> int | None:
            text = environ.get(name)
            return int(text) if text else None

        return cls(
            port=number("SAGEMAKER_BIND_TO_PORT") or 8080,
            safe_port_range=environ.get("SAGEMAKER_SAFE_PORT_RANGE"),
            batch=environ.get("SAGEMAKER_BATCH", "").lower() == "true",
            max_payload_mb=number("SAGEMAKER_MAX_PAYLOAD_IN_MB"),
            batch_strategy=environ.get("SAGEMAKER_BATCH_STRATEGY"),
            max_concurrent_transforms=number("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"),
        )
