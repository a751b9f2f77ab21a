"""The kinds of resources that run on SageMaker. Operations and members of all kinds are named alike, after a noun."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local import kinds

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

Members = Mapping[str, Any]
"""The members of a request or a response."""

ABSENT_CODES = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")
"""Error codes of AWS for a name that no resource has, and for a job that cannot be stopped because it has ended."""


@dataclass(frozen=True)
class Kind:
    """A kind of resource that runs, and the operations of a client on it."""

    declared: kinds.Kind
    life: kinds.Life

    @property
    def noun(self) -> str:
        """In names of operations and members: `TrainingJob` of `CreateTrainingJob` and `TrainingJobName`."""
        return self.declared.noun

    @property
    def title(self) -> str:
        """The name for the user."""
        return self.declared.title

    @property
    def end_member(self) -> str:
        """The member of Describe and List that has the end time; empty if there is none."""
        return self.life.ended

    @property
    def transitional(self) -> tuple[str, ...]:
        """Statuses of a resource that has not reached its end, or its service."""
        return self.life.changing

    @property
    def success(self) -> str:
        return self.life.good

    @property
    def statuses(self) -> tuple[str, ...]:
        return tuple(self.life.statuses)

    @property
    def name_member(self) -> str:
        return self.declared.name_member

    @property
    def status_member(self) -> str:
        return self.declared.status_member

    def log_group(self, name: str) -> str:
        return self.declared.log_group(name)

    def log_prefix(self, name: str) -> str:
        """Return the prefix of the names of the resource's log streams. A tuning job has those of its trials."""
        return self.declared.log_prefix(name)

    @property
    def arn_type(self) -> str:
        """The resource type in ARNs, such as `training-job`."""
        return self.declared.arn_type

    def create(self, client: "SageMakerClient", request: Members) -> None:
        self._method(client, "Create")(**request)

    def describe(self, client: "SageMakerClient", name: str) -> Members | None:
        """Return the description, or None if the resource does not exist."""
        return self._call_if_exists(client, "Describe", name)

    def stop(self, client: "SageMakerClient", name: str) -> bool:
        """Stop a job or delete an endpoint. Return False if it does not exist or has ended."""
        return self._call_if_exists(client, "Delete" if self.life.is_lasting else "Stop", name) is not None

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


_BY_ARN_TYPE = {kind.arn_type: Kind(kind, kind.life) for kind in kinds.all_kinds() if kind.life is not None}

KINDS = tuple(_BY_ARN_TYPE.values())

PROCESSING = _BY_ARN_TYPE["processing-job"]
TRAINING = _BY_ARN_TYPE["training-job"]
TUNING = _BY_ARN_TYPE["hyper-parameter-tuning-job"]
ENDPOINT = _BY_ARN_TYPE["endpoint"]


def name_error(name: str, where: str = "") -> UsageError:
    """Return the error for a name that no job and no endpoint has."""
    return UsageError(f"no job or endpoint{where} is called {name}: `microjobs ps` lists them")
