"""The kinds of things that run on SageMaker. The API spells all operations on them alike, so that a kind is a word."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.failures import UsageError

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

Members = Mapping[str, Any]

ABSENT = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")
"""What AWS says of a name that is well-formed and not there, or of one that cannot be stopped any more."""

JOB_STATUSES = ("InProgress", "Completed", "Failed", "Stopping", "Stopped")


@dataclass(frozen=True)
class Kind:
    """A kind of resource with a name, a status and a log."""

    word: str
    """As the API spells it: `TrainingJob` of `CreateTrainingJob` and `TrainingJobName`."""
    title: str
    logs: str
    """The log group; an endpoint has one of its own below it."""
    ended: str
    """The member of Describe and List that says when it ended."""
    going: tuple[str, ...] = ("InProgress", "Stopping")
    good: str = "Completed"
    statuses: tuple[str, ...] = JOB_STATUSES

    @property
    def name(self) -> str:
        """The request member that holds the name."""
        return f"{self.word}Name"

    @property
    def status(self) -> str:
        return f"{self.word}Status"

    def log_group(self, name: str) -> str:
        return f"{self.logs}/{name}" if self is ENDPOINT else self.logs

    def log_prefix(self, name: str) -> str:
        """What the names of its log streams start with: those of its hosts, or of its training jobs' hosts."""
        if self is ENDPOINT:
            return ""
        return f"{name}-" if self is TUNING else f"{name}/"

    @property
    def arn_type(self) -> str:
        """The resource type in its ARN: `training-job`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.word).lower()

    def create(self, client: "SageMakerClient", request: Members) -> None:
        self._method(client, "Create")(**request)

    def _method(self, client: "SageMakerClient", verb: str) -> Callable[..., Any]:
        """The client's method for an operation, such as `describe_training_job`."""
        method: Callable[..., Any] = getattr(client, f"{verb}-{self.arn_type}".replace("-", "_").lower())
        return method

    def describe(self, client: "SageMakerClient", name: str) -> Members | None:
        """The description, or None if there is no such thing."""
        from botocore.exceptions import ClientError  # takes as long as all the rest of `microjobs ps`

        try:
            answer: Members = self._method(client, "Describe")(**{self.name: name})
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return None
            raise
        return answer

    def stop(self, client: "SageMakerClient", name: str) -> bool:
        """Ask it to stop (an endpoint is deleted); False if there is nothing to be stopped."""
        from botocore.exceptions import ClientError

        try:
            self._method(client, "Delete" if self is ENDPOINT else "Stop")(**{self.name: name})
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return False
            raise
        return True


PROCESSING = Kind("ProcessingJob", "processing", "/aws/sagemaker/ProcessingJobs", "ProcessingEndTime")
TRAINING = Kind(
    "TrainingJob", "training", "/aws/sagemaker/TrainingJobs", "TrainingEndTime", statuses=(*JOB_STATUSES, "Deleting")
)
TUNING = Kind(
    "HyperParameterTuningJob",
    "tuning",
    "/aws/sagemaker/TrainingJobs",
    "HyperParameterTuningEndTime",
    statuses=(*JOB_STATUSES, "Deleting", "DeleteFailed"),
)
TRANSFORM = Kind("TransformJob", "transform", "/aws/sagemaker/TransformJobs", "TransformEndTime")
ENDPOINT = Kind(
    "Endpoint",
    "endpoint",
    "/aws/sagemaker/Endpoints",
    "",
    going=("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"),
    good="InService",
    statuses=(
        "OutOfService",
        "Creating",
        "Updating",
        "SystemUpdating",
        "RollingBack",
        "InService",
        "Deleting",
        "Failed",
        "UpdateRollbackFailed",
    ),
)

SECONDARY_STATUSES = (
    "Starting",
    "Pending",
    "LaunchingMLInstances",
    "PreparingTrainingStack",
    "Downloading",
    "DownloadingTrainingImage",
    "Training",
    "Uploading",
    "Updating",
    "Restarting",
    "Interrupted",
    "MaxRuntimeExceeded",
    "MaxWaitTimeExceeded",
)
"""Of training jobs, besides those that are also statuses."""

KINDS = (PROCESSING, TRAINING, TUNING, TRANSFORM, ENDPOINT)


def not_found(name: str, where: str = "") -> UsageError:
    """The error for a name that no job and no endpoint has."""
    return UsageError(f"no job or endpoint{where} is called {name}: `microjobs ps` lists them")
