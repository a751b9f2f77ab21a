"""The kinds of resources that run on SageMaker. Operations and members of all kinds are named alike, after a noun."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.failures import UsageError

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

Members = Mapping[str, Any]
"""The members of a request or a response."""

ABSENT_CODES = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")
"""Error codes of AWS for a name that no resource has, and for a job that cannot be stopped because it has ended."""

JOB_STATUSES = ("InProgress", "Completed", "Failed", "Stopping", "Stopped")


@dataclass(frozen=True)
class Kind:
    """A kind of resource with a name, a status and a log."""

    noun: str
    """In names of operations and members: `TrainingJob` of `CreateTrainingJob` and `TrainingJobName`."""
    title: str
    """The name for the user."""
    log_group_name: str
    """The log group; that of an endpoint has one group below it per endpoint."""
    end_member: str
    """The member of Describe and List that has the end time; empty if there is none."""
    transitional: tuple[str, ...] = ("InProgress", "Stopping")
    """Statuses of a resource that has not reached its end, or its service."""
    success: str = "Completed"
    statuses: tuple[str, ...] = JOB_STATUSES

    @property
    def name_member(self) -> str:
        return f"{self.noun}Name"

    @property
    def status_member(self) -> str:
        return f"{self.noun}Status"

    def log_group(self, name: str) -> str:
        return f"{self.log_group_name}/{name}" if self is ENDPOINT else self.log_group_name

    def log_prefix(self, name: str) -> str:
        """Return the prefix of the names of the resource's log streams. A tuning job has those of its trials."""
        if self is ENDPOINT:
            return ""
        return f"{name}-" if self is TUNING else f"{name}/"

    @property
    def arn_type(self) -> str:
        """The resource type in ARNs, such as `training-job`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.noun).lower()

    def create(self, client: "SageMakerClient", request: Members) -> None:
        self._method(client, "Create")(**request)

    def describe(self, client: "SageMakerClient", name: str) -> Members | None:
        """Return the description, or None if the resource does not exist."""
        return self._call_if_exists(client, "Describe", name)

    def stop(self, client: "SageMakerClient", name: str) -> bool:
        """Stop a job or delete an endpoint. Return False if it does not exist or has ended."""
        return self._call_if_exists(client, "Delete" if self is ENDPOINT else "Stop", name) is not None

    def _call_if_exists(self, client: "SageMakerClient", verb: str, name: str) -> Members | None:
        from botocore.exceptions import ClientError  # importing it takes as long as the rest of `microjobs ps`

        try:
            response: Members = self._method(client, verb)(**{self.name_member: name})
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT_CODES:
                return None
            raise
        return response

    def _method(self, client: "SageMakerClient", verb: str) -> Callable[..., Any]:
        """Return the client's method for an operation, such as `describe_training_job`."""
        method: Callable[..., Any] = getattr(client, f"{verb}-{self.arn_type}".replace("-", "_").lower())
        return method


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
    transitional=("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"),
    success="InService",
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
"""Values of SecondaryStatus that are not also statuses. Only training jobs have them."""

KINDS = (PROCESSING, TRAINING, TUNING, TRANSFORM, ENDPOINT)


def name_error(name: str, where: str = "") -> UsageError:
    """Return the error for a name that no job and no endpoint has."""
    return UsageError(f"no job or endpoint{where} is called {name}: `microjobs ps` lists them")
