"""The type of the values that declare resource kinds, and the discovery of these values.

Each folder below `resources` is a family. Its module `kinds` declares one value per kind. A module `kinds` imports only
this module and other families' `kinds`, because commands that only read must not load boto3, Docker's client or Optuna.
"""

import pkgutil
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

FAMILIES = "microjobs_orchestrator.local.resources"


class JobStatus(StrEnum):
    """The statuses of a job that the local server uses; AWS has more for some kinds."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


_FINAL_STATUSES = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED)

JOB_TRANSITIONS: Mapping[str, Collection[str]] = {
    JobStatus.IN_PROGRESS: (JobStatus.STOPPING, *_FINAL_STATUSES),
    JobStatus.STOPPING: _FINAL_STATUSES,
}


@dataclass(frozen=True)
class Lifecycle:
    """The statuses of a kind of resource that runs. The default values are those of jobs."""

    end_member: str = ""
    """The member of Describe and List that contains the time of the end."""
    statuses: Collection[str] = tuple(JobStatus)
    """All statuses that AWS documents."""
    first_status: str = JobStatus.IN_PROGRESS
    success_status: str = JobStatus.COMPLETED
    transitional_statuses: tuple[str, ...] = (JobStatus.IN_PROGRESS, JobStatus.STOPPING)
    """The statuses that the server replaces by another status without another request."""
    secondary_statuses: tuple[str, ...] = ()
    """Values of SecondaryStatus that are not also statuses."""
    runs_until_deleted: bool = False
    """Whether a resource runs until it is deleted, as an endpoint does. Hosts then also run in `success_status`."""
    other_active_statuses: tuple[str, ...] = ()
    """If the resource runs until it is deleted: the statuses, besides `success_status`, in which its hosts run."""
    transitions: Mapping[str, Collection[str]] = field(default_factory=lambda: JOB_TRANSITIONS)
    """The statuses that may follow each status."""

    @property
    def start_member(self) -> str:
        return self.end_member.replace("End", "Start")

    @property
    def active_statuses(self) -> tuple[str, ...]:
        """The statuses in which hosts run. A restarted server resumes the resources in these statuses."""
        return (
            (*self.transitional_statuses, self.success_status, *self.other_active_statuses)
            if self.runs_until_deleted
            else self.transitional_statuses
        )

    def allows(self, before: str, after: str) -> bool:
        """Return whether a resource may change from the status `before` to `after`, or keep its status."""
        return before == after or after in self.transitions.get(before, ())


@dataclass(frozen=True)
class LogNames:
    """The log group and the prefix of a resource's log streams. `{name}` stands for the resource's name."""

    group: str
    prefix: str = "{name}/"
    """The beginning of the streams' names."""


@dataclass(frozen=True)
class AwsMembers:
    """Members of Create requests and descriptions that only AWS uses: instances, network, encryption keys.

    The commands that use AWS read and set these members. Each text except `quota` is a path, with dots between its
    members. It is empty if the kind does not have the member.
    """

    definition: str = ""
    """The member that contains the other members, such as `TrainingJobDefinition`; empty if no member contains them."""
    instances: str = ""
    """The path of a structure, or of a list of structures, with InstanceType, and InstanceCount or
    InitialInstanceCount."""
    network: str = ""
    """The VpcConfig."""
    output_kms_key: str = ""
    """The KMS key of the outputs."""
    volume_kms_key: str = ""
    """The KMS key of the instances' volumes."""
    has_spot: bool = False
    """Whether the definition has EnableManagedSpotTraining."""
    job_limits: str = ""
    """ResourceLimits of a tuning job. `definition` does not contain this member."""
    quota: str = ""
    """The words after `for` in the names of AWS's quotas: `training job` in `ml.m5.large for training job usage`. If it
    is empty, these words are `display_name`."""


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of resource: the facts that all its operations share, and those that commands show."""

    arn_type: str
    """The type in ARNs and in the state, such as `training-job`."""
    noun: str
    """The word in names of operations and members, such as `TrainingJob`."""
    title: str
    """The word in the output of commands, such as `training`."""
    lifecycle: Lifecycle | None = None
    """None if the kind does not run."""
    logs: LogNames | None = None
    verbs: tuple[str, ...] = ("Describe", "List", "Stop", "Delete")
    """The verbs of the common operations that the kind has, except Create, which all kinds have."""
    create_verb: str = "Create"
    """The verb of the operation that creates a resource: `Start` for executions of pipelines."""
    member_noun: str | None = None
    """The word in names of members: with `TrackingServer`, a member is `TrackingServerName`; with an empty text, it is
    `Name`. None if the word is the noun."""
    requires_arn: bool = False
    """Whether requests identify a resource by its ARN, although the client chooses its name."""
    status_filter: str = "StatusEquals"
    """The member of List requests that selects a status."""
    filters_names: bool = True
    """Whether List requests select names with NameContains. On AWS, `microjobs ps` lists only kinds for which this is
    true."""
    has_client_data: bool = False
    """Whether Delete also deletes data that clients have stored. `microjobs stop` does not delete such a resource."""
    summaries: str = ""
    """The member of List responses that contains the list. An empty text stands for `<noun>Summaries`."""
    list_all_members: Mapping[str, str] = field(default_factory=dict)
    """Members with which a List request lists all resources, if it lists only one type of them by default."""
    newest_first: bool = False
    """Whether List requests without SortOrder return the newest resources first."""
    sort_by: str = "CreationTime"
    """The value of SortBy for List requests without this member."""
    filters_pages: bool = False
    """Whether List takes MaxResults resources, and then filters them by StatusEquals, so that pages can be short. AWS
    documents this only for ListTrainingJobs."""
    parent: "Kind | None" = None
    """The kind of the resources that contain resources of this kind: for example, pipelines contain executions.
    Requests identify an execution by its ARN, and a List request names the pipeline."""
    owns: tuple["Kind", ...] = ()
    """The kinds of the resources that resources of this kind create. The created resources are recovered first."""
    owned_prefix: str = ""
    """The beginning of the names of the jobs that a resource creates. `{name}` stands for the resource's name."""
    aws_name: str = ""
    """AWS's name of the kind in error messages, where it differs from the type in ARNs."""
    is_ended_last: bool = False
    """Whether these resources end after all others when the server shuts down, because the others may use them."""
    has_trials: bool = False
    """Whether ListTrainingJobsForHyperParameterTuningJob lists the training jobs that a resource owns."""
    event_name: str | None = ""
    """AWS's name of the kind in events, if it differs from the words of the noun; None if AWS sends no events."""
    aws: AwsMembers = AwsMembers()

    @property
    def event_type(self) -> str | None:
        """The detail-type of events, such as `SageMaker Training Job State Change`; None if there are no events."""
        name = self.event_name or re.sub("(?<=[a-z])(?=[A-Z])", " ", self.noun)
        return None if self.event_name is None else f"SageMaker {name} State Change"

    @property
    def name_member(self) -> str:
        return f"{self._member_noun}Name"

    @property
    def arn_member(self) -> str:
        return f"{self._member_noun}Arn"

    @property
    def is_identified_by_arn(self) -> bool:
        """Whether requests identify a resource by its ARN, not by its name."""
        return self.parent is not None or self.requires_arn

    @property
    def identifier_member(self) -> str:
        """The member by which requests identify a resource."""
        return self.arn_member if self.is_identified_by_arn else self.name_member

    @property
    def status_member(self) -> str:
        return f"{self._member_noun}Status"

    @property
    def _member_noun(self) -> str:
        return self.noun if self.member_noun is None else self.member_noun

    @property
    def summaries_member(self) -> str:
        return self.summaries or f"{self.noun}Summaries"

    @property
    def display_name(self) -> str:
        """The words in sentences, such as `training job`."""
        return self.aws_name or self.arn_type.replace("-", " ")

    @property
    def operations(self) -> Mapping[str, str]:
        common_operations = {verb: f"{verb}{self.noun}{'s' if verb == 'List' else ''}" for verb in self.verbs}
        return {"Create": f"{self.create_verb}{self.noun}", **common_operations}

    def log_group(self, name: str) -> str:
        return self.logs.group.format(name=name) if self.logs else ""

    def log_prefix(self, name: str) -> str:
        return self.logs.prefix.format(name=name) if self.logs else ""


def load_modules(name: str) -> Iterator[ModuleType]:
    """Yield the module `name` of each family that has such a module."""
    package = import_module(FAMILIES)
    for family in pkgutil.iter_modules(package.__path__, f"{FAMILIES}."):
        if family.ispkg and find_spec(f"{family.name}.{name}") is not None:
            yield import_module(f"{family.name}.{name}")


@cache
def load_kinds() -> tuple[Kind, ...]:
    """Return the kinds of all families; owners come after the kinds that they own."""
    kinds = [value for module in load_modules("kinds") for value in vars(module).values() if isinstance(value, Kind)]
    return tuple(TopologicalSorter({kind: kind.owns for kind in kinds}).static_order())


def find_kind(arn_type: str) -> Kind:
    """Return the kind of an ARN type such as `training-job`."""
    return next(kind for kind in load_kinds() if kind.arn_type == arn_type)
