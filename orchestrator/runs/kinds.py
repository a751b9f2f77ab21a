"""The kinds of SageMaker's resources, and a client's operations on them. The name of each operation is a verb and the
name of the kind, such as `DescribeTrainingJob`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.local import kinds

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

Members = Mapping[str, Any]
"""The members of a request or a response."""

ABSENT_CODES = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")
"""Error codes of AWS for a name that no resource has, and for a job that cannot be stopped because it has ended."""


@dataclass(frozen=True, eq=False)
class Kind(kinds.Kind):
    """A kind of resource, and the operations of a client on it."""

    lifecycle: kinds.Lifecycle

    def create(self, client: "SageMakerClient", request: Members) -> None:
        self._get_method(client, "Create")(**request)

    def describe(self, client: "SageMakerClient", name: str) -> Members | None:
        """Return the description, or None if the resource does not exist."""
        return self._call_if_exists(client, "Describe", name)

    def stop_or_delete(self, client: "SageMakerClient", name: str) -> bool:
        """Stop a resource, or delete a resource that cannot be stopped. Return False if the resource does not exist or
        has ended.

        Args:
            name: the name of the resource, or its ARN if the kind `is_identified_by_arn`, such as a pipeline execution.
        """
        return self._call_if_exists(client, "Stop" if self.can_be_stopped else "Delete", name) is not None

    @property
    def can_be_stopped(self) -> bool:
        return "Stop" in self.verbs

    def list_summaries(self, client: "SageMakerClient", **request: Any) -> Iterator[Members]:
        """Yield the summaries of the List operation, page by page."""
        paginate: Any = client.get_paginator  # boto3's type stubs accept only literals
        for page in paginate(f"list-{self.arn_type}s".replace("-", "_")).paginate(**request):
            yield from page[self.summaries_member]

    def select_job_members(self, members: Members) -> Members:
        """Return the part of a request or a description that states instances and time limits, such as
        `TrainingJobDefinition` of a tuning job."""
        job_members: Members = get_member(members, self.aws.definition)
        return job_members

    def list_instances(self, members: Members) -> list[tuple[str, int]]:
        """Return the instance types in a request or a description, each with its number of instances."""
        if not self.aws.instances:
            return []
        value = get_member(self.select_job_members(members), self.aws.instances)
        groups = value if isinstance(value, Sequence) else [value]
        return [
            (group["InstanceType"], group.get("InstanceCount") or group.get("InitialInstanceCount", 1))
            for group in groups
            if "InstanceType" in group  # a serverless variant has no instances
        ]

    def _call_if_exists(self, client: "SageMakerClient", verb: str, name: str) -> Members | None:
        from botocore.exceptions import ClientError  # this import takes as long as the rest of `microjobs ps`

        if self.is_identified_by_arn and not name.startswith("arn:"):
            return None
        try:
            response: Members = self._get_method(client, verb)(**{self.identifier_member: name})
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT_CODES:
                return None
            raise
        return response

    def _get_method(self, client: "SageMakerClient", verb: str) -> Callable[..., Any]:
        """Return the client's method for an operation, such as `describe_training_job`."""
        method: Callable[..., Any] = getattr(client, f"{verb}-{self.arn_type}".replace("-", "_").lower())
        return method


def get_member(members: Members, path: str) -> Any:
    """Return the member at a path with dots; all members for an empty path."""
    for name in filter(None, path.split(".")):
        members = members[name]
    return members


_KINDS_BY_ARN_TYPE = {
    kind.arn_type: Kind(**{**vars(kind), "lifecycle": kind.lifecycle or kinds.Lifecycle(runs_until_deleted=True)})
    for kind in kinds.load_kinds()
}

KINDS = tuple(_KINDS_BY_ARN_TYPE[kind.arn_type] for kind in kinds.load_kinds() if kind.lifecycle is not None)
"""The kinds of resources that run."""


def list_owned_kinds_with_logs(kind: Kind) -> list[Kind]:
    """Return the kinds of the jobs that a resource of this kind creates, if they have logs of their own.

    Tuning jobs are left out, because their logs are those of their training jobs. The log names of the returned kinds
    match only the jobs that the resource created.
    """
    owned = [_KINDS_BY_ARN_TYPE[item.arn_type] for item in kind.owns]
    return [
        replace(item, logs=kinds.LogNames(item.logs.group, kind.owned_prefix))
        for item in owned
        if item.logs is not None and not item.lifecycle.runs_until_deleted and not item.has_trials
    ]


PROCESSING = _KINDS_BY_ARN_TYPE["processing-job"]
TRAINING = _KINDS_BY_ARN_TYPE["training-job"]
TUNING = _KINDS_BY_ARN_TYPE["hyper-parameter-tuning-job"]
MODEL = _KINDS_BY_ARN_TYPE["model"]
ENDPOINT_CONFIG = _KINDS_BY_ARN_TYPE["endpoint-config"]
ENDPOINT = _KINDS_BY_ARN_TYPE["endpoint"]
