"""The kinds of things that run on SageMaker. The API spells all operations on them alike, so that a kind is a word."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import ClientError

from orchestrator.failures import UsageError

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

Answer = Mapping[str, Any]

ABSENT = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")
"""What AWS says of a name that is well-formed and not there, or of one that cannot be stopped any more."""


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

    def create(self, client: "SageMakerClient", request: Answer) -> None:
        getattr(client, xform_name(f"Create{self.word}"))(**request)

    def describe(self, client: "SageMakerClient", name: str) -> Answer | None:
        """The description, or None if there is no such thing."""
        try:
            answer: Answer = getattr(client, xform_name(f"Describe{self.word}"))(**{self.name: name})
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return None
            raise
        return answer

    def stop(self, client: "SageMakerClient", name: str) -> bool:
        """Ask it to stop (an endpoint is deleted); False if there is nothing to be stopped."""
        verb = "Delete" if self is ENDPOINT else "Stop"
        try:
            getattr(client, xform_name(f"{verb}{self.word}"))(**{self.name: name})
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return False
            raise
        return True

    def newest(self, client: "SageMakerClient", limit: int) -> list["Listed"]:
        """The newest ones, newest first."""
        answer = getattr(client, xform_name(f"List{self.word}s"))(
            SortBy="CreationTime", SortOrder="Descending", MaxResults=limit
        )
        rows = next(value for value in answer.values() if isinstance(value, list))
        return [
            Listed(self, row[self.name], row[self.status], row["CreationTime"], row.get(self.ended)) for row in rows
        ]


@dataclass(frozen=True)
class Listed:
    """A line of a listing."""

    kind: Kind
    name: str
    status: str
    created: datetime
    ended: datetime | None


PROCESSING = Kind("ProcessingJob", "processing", "/aws/sagemaker/ProcessingJobs", "ProcessingEndTime")
TRAINING = Kind("TrainingJob", "training", "/aws/sagemaker/TrainingJobs", "TrainingEndTime")
TUNING = Kind("HyperParameterTuningJob", "tuning", "/aws/sagemaker/TrainingJobs", "HyperParameterTuningEndTime")
TRANSFORM = Kind("TransformJob", "transform", "/aws/sagemaker/TransformJobs", "TransformEndTime")
ENDPOINT = Kind(
    "Endpoint",
    "endpoint",
    "/aws/sagemaker/Endpoints",
    "",
    going=("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"),
    good="InService",
)

KINDS = (PROCESSING, TRAINING, TUNING, TRANSFORM, ENDPOINT)


def find(client: "SageMakerClient", name: str) -> tuple[Kind, Answer] | None:
    """The thing of that name, whatever its kind; a job that still goes on before one that has ended."""
    found = [(kind, answer) for kind in KINDS if (answer := kind.describe(client, name)) is not None]
    return next((pair for pair in found if pair[1][pair[0].status] in pair[0].going), found[0] if found else None)


def need(client: "SageMakerClient", name: str) -> tuple[Kind, Answer]:
    """As `find`.

    Raises:
        UsageError: there is nothing of that name.
    """
    found = find(client, name)
    if found is None:
        raise UsageError(f"no job or endpoint is called {name}: `microjobs ps` lists them")
    return found
