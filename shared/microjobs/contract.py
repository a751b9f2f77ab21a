"""Amazon SageMaker's contract with a container: paths, files and environment variables.

The local server and the tests write files with this module, and images read them with it. Therefore, the writer and the
reader of each file are next to each other. docs/maintaining/contract.md links AWS's pages. Standard library only.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from microjobs.errors import UserError
from microjobs.files import write_bytes

DEFAULT_ROOT = "/opt/ml"
BASE_DIR_VARIABLE = "SAGEMAKER_BASE_DIR"

MAX_FAILURE_CHARACTERS = 1024
"""Maximum number of characters of the failure file that become FailureReason."""
MAX_MESSAGE_BYTES = 1024
"""Maximum number of bytes of the message file that become ExitMessage."""
MIN_SECRET_BYTES = 32


class Layout:
    """Paths below the contract's root: `/opt/ml`, or the value of `SAGEMAKER_BASE_DIR`."""

    def __init__(self, root: Path = Path(DEFAULT_ROOT)) -> None:
        self.root = root
        self.input_config = root / "input" / "config"
        self.input_data = root / "input" / "data"
        self.model = root / "model"
        """Folder to which training writes its model, and in which hosting finds the extracted archive."""
        self.code = root / "code"
        self.checkpoints = root / "checkpoints"
        self.output = root / "output"
        self.output_data = self.output / "data"
        self.tensorboard = self.output / "tensorboard"
        """The default folder of TensorBoard's event files."""
        self.failure = self.output / "failure"
        self.message = self.output / "message"
        self.processing_config = root / "config"
        self.job_secret = root / "secret" / "job"
        self.job_certificate = root / "secret" / "certificate.pem"
        self.job_key = root / "secret" / "key.pem"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Layout":
        return cls(Path(environ.get(BASE_DIR_VARIABLE) or DEFAULT_ROOT))

    def with_existing_root(self) -> "Layout":
        """Return this layout. If its root is not a folder, return the default layout, because the platform reads the
        failure file from `/opt/ml`."""
        return self if self.root.is_dir() else Layout()

    def channel(self, name: str) -> Path:
        """Return the folder of an input channel of a training job."""
        return self.input_data / name

    def processing(self, name: str) -> Path:
        """Return the default `LocalPath` of a processing input or output."""
        return self.root / "processing" / name

    def resolve_local_path(self, path: str) -> Path:
        """Return the path below this root for a `LocalPath` below `/opt/ml`; return any other path unchanged."""
        pure_path = PurePosixPath(path)
        return self.root / pure_path.relative_to(DEFAULT_ROOT) if pure_path.is_relative_to(DEFAULT_ROOT) else Path(path)

    def to_contract_path(self, path: Path) -> str:
        """Return the path below `/opt/ml` for a path below this root; the inverse of `resolve_local_path`."""
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
    """Return the value of a request's text: the parsed value if the text is JSON, else the text.

    Clients use both forms: SDK v2 sends `str(value)`; its framework estimators and SDK v3 send JSON.
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


# --- inputdataconfig.json: one entry per channel; CHANNEL_MEMBERS maps the fields of Channel to members ---


@dataclass(frozen=True)
class Channel:
    """One channel of a training job's `InputDataConfig`."""

    input_mode: str = "File"
    distribution: str = "FullyReplicated"
    record_wrapper: str = "None"
    content_type: str | None = None


CHANNEL_MEMBERS = {
    "input_mode": "TrainingInputMode",
    "distribution": "S3DistributionType",
    "record_wrapper": "RecordWrapperType",
    "content_type": "ContentType",
}


def write_input_data_config(layout: Layout, channels: Mapping[str, Channel]) -> None:
    content = {
        name: {
            member: value for field, member in CHANNEL_MEMBERS.items() if (value := getattr(channel, field)) is not None
        }
        for name, channel in channels.items()
    }
    _write(layout.input_config / "inputdataconfig.json", content)


def read_input_data_config(layout: Layout) -> dict[str, Channel]:
    path = layout.input_config / "inputdataconfig.json"
    return {
        name: Channel(**{field: entry[member] for field, member in CHANNEL_MEMBERS.items() if member in entry})
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
    group_name: str = "homogeneousCluster"
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
    groups = resources.groups or (InstanceGroup(resources.group_name, resources.instance_type, resources.hosts),)
    content = {
        "current_host": resources.current_host,
        "current_instance_type": resources.instance_type,
        "current_group_name": resources.group_name,
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
    if not path.exists():  # without the file, `docker run` has started the image on one host
        return ResourceConfig()
    content = _read(path)
    return ResourceConfig(
        current_host=content["current_host"],
        hosts=tuple(sorted(content["hosts"], key=_natural_sort_key)),
        instance_type=content.get("current_instance_type", ""),
        group_name=content.get("current_group_name", "homogeneousCluster"),
        groups=tuple(
            InstanceGroup(group["instance_group_name"], group["instance_type"], tuple(group["hosts"]))
            for group in content.get("instance_groups") or ()
        ),
        network_interface=content.get("network_interface_name", "eth0"),
    )


def _natural_sort_key(host: str) -> tuple[str, int]:
    """Return a sort key that puts `algo-10` after `algo-9`. All hosts use this key, so they agree on the order."""
    stem, _, number = host.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (host, 0)


# --- processingjobconfig.json: the request ---


def write_processing_job_config(layout: Layout, request: Mapping[str, Any], arn: str) -> None:
    """Write a CreateProcessingJob request in the form in which containers get it."""
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


# --- checkpointconfig.json: exists only if the request has a CheckpointConfig ---


def write_checkpoint_config(layout: Layout, local_path: str) -> None:
    _write(layout.input_config / "checkpointconfig.json", {"LocalPath": local_path})


def read_checkpoint_folder(layout: Layout) -> Path:
    """Return the folder that the platform synchronizes with S3."""
    path = layout.input_config / "checkpointconfig.json"
    return layout.resolve_local_path(_read(path)["LocalPath"]) if path.exists() else layout.checkpoints


def checkpoints_are_kept(layout: Layout) -> bool:
    """Return whether checkpoints outlive the job: the request has a CheckpointConfig, or a folder is mounted."""
    return (layout.input_config / "checkpointconfig.json").exists() or layout.checkpoints.is_dir()


# --- failure and message: why the job failed, and how it ended ---


def write_failure(layout: Layout, reason: str) -> None:
    """Write the reason of a failure. The first reason is kept, because later ones may be consequences."""
    if not layout.failure.exists():
        # `write_bytes` is atomic: an interrupted write must not leave an empty file, which would count as a reason.
        write_bytes(layout.failure, reason[:MAX_FAILURE_CHARACTERS].encode(errors="backslashreplace"))


def parse_failure(content: bytes) -> str:
    """Return the text of a failure file that becomes FailureReason."""
    return content.decode(errors="replace").strip()[:MAX_FAILURE_CHARACTERS]


def read_failure(layout: Layout) -> str | None:
    return parse_failure(layout.failure.read_bytes()) if layout.failure.exists() else None


def write_message(layout: Layout, message: str) -> None:
    """Write the `ExitMessage` of a processing job."""
    write_bytes(layout.message, parse_message(message.encode(errors="backslashreplace")).encode())


def parse_message(content: bytes) -> str:
    """Return the text of a message file that becomes ExitMessage: its first kilobyte, without an incomplete character.

    Raises:
        UnicodeDecodeError: the content is not UTF-8. On AWS, the job then fails.
    """
    return content.decode().encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")


def read_message(layout: Layout) -> str | None:
    return parse_message(layout.message.read_bytes()) if layout.message.exists() else None


# --- secret/job: exists only if the platform creates it; AWS does not create it ---


def write_job_secret(layout: Layout, secret: str) -> None:
    """Write the secret with which the hosts of a job authenticate each other. Only the file's owner can read it."""
    _write_secret(layout.job_secret, secret.encode("ascii"))


def read_job_secret(layout: Layout) -> bytes:
    """Return the job's secret; empty if the file does not exist.

    Raises:
        UserError: the secret is too short.
    """
    if not layout.job_secret.exists():
        return b""
    secret = layout.job_secret.read_bytes().strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise UserError(
            f"{layout.job_secret} has {len(secret)} bytes: give every host of the job the same {MIN_SECRET_BYTES} "
            "random bytes or more, such as the output of `openssl rand -hex 32`, or no file"
        )
    return secret


# --- secret/certificate.pem, secret/key.pem: only in processing jobs of the local server ---


def write_job_certificate(layout: Layout, certificate: bytes, key: bytes) -> None:
    """Write the certificate with which Dask's processes authenticate each other, and its private key, both as PEM."""
    _write_secret(layout.job_certificate, certificate)
    _write_secret(layout.job_key, key)


def _write_secret(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)


# --- environment variables ---


def make_training_variables(job_name: str, job_arn: str, region: str) -> dict[str, str]:
    """Return the variables that a training job has in addition to the `Environment` of its request."""
    return {"TRAINING_JOB_NAME": job_name, "TRAINING_JOB_ARN": job_arn, "AWS_REGION": region}


BIND_TO_PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
MAX_PAYLOAD_VARIABLE = "SAGEMAKER_MAX_PAYLOAD_IN_MB"
MULTI_MODEL_VARIABLE = "SAGEMAKER_MULTI_MODEL"


def make_transform_variables(
    max_payload_mb: int | None, batch_strategy: str | None, max_concurrent_transforms: int | None
) -> dict[str, str]:
    """Return the variables for a transform job's containers. Arguments are None for members that the request omits."""
    values = {
        "SAGEMAKER_BATCH": "true",
        MAX_PAYLOAD_VARIABLE: max_payload_mb,
        "SAGEMAKER_BATCH_STRATEGY": batch_strategy,
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": max_concurrent_transforms,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def is_multi_model(environ: Mapping[str, str]) -> bool:
    """Return whether the container belongs to a multi-model endpoint, which loads models when requests name them."""
    return environ.get(MULTI_MODEL_VARIABLE, "").lower() == "true"


def read_hosting_variables(environ: Mapping[str, str]) -> tuple[int, int | None]:
    """Return the port to listen on, and the maximum payload in MB; None if the platform sets no maximum.

    Raises:
        UserError: a variable is not a number.
    """
    numbers = []
    for name in (BIND_TO_PORT_VARIABLE, MAX_PAYLOAD_VARIABLE):
        text = environ.get(name)
        try:
            numbers.append(int(text) if text else None)
        except ValueError as error:
            raise UserError(f"{name} is {text!r}: set it to a number") from error
    return numbers[0] or 8080, numbers[1]
