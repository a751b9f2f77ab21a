"""The replicas of a deployment of an endpoint, or of an inference component."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from microjobs_orchestrator.local.resources.endpoints.deployments import Deployment
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.runtimes.base import Host


@dataclass(frozen=True)
class PlannedReplica:
    """A replica of a deployment, which may not run yet."""

    plan_name: str
    instance_id: str
    """The names of the replica's hosts begin with this id."""
    group_name: str
    """The variant or the inference component of the replica, as error messages name it, such as
    `production variant main`. Replicas with the same value belong together."""
    make: Callable[[], Replica]
    """A function that returns the replica, which does not run yet."""
    needs_hosts: bool = True
    """Whether the replica serves only if its hosts run."""

    def find_hosts(self, hosts: Sequence[Host]) -> Sequence[Host]:
        """Return those hosts of an earlier server that belong to the replica."""
        return [host for host in hosts if host.name.startswith(self.instance_id)]


@dataclass(frozen=True)
class Fleet:
    """The running replicas of a deployment. During an update, two deployments have running replicas."""

    deployment: Deployment
    replicas: Mapping[str, Replica]
    """The replicas by plan name."""
    share: float = 1.0
    """The share of the requests."""


def select_planned_replicas(planned_replicas: Sequence[PlannedReplica], share: Fraction) -> Sequence[PlannedReplica]:
    """Return a share of the replicas of each variant or inference component, at least one unless the share is 0."""
    totals, counts = Counter(planned_replica.group_name for planned_replica in planned_replicas), Counter[str]()
    selected_replicas = []
    for planned_replica in planned_replicas:
        if counts[planned_replica.group_name] < ceil(totals[planned_replica.group_name] * share):
            counts[planned_replica.group_name] += 1
            selected_replicas.append(planned_replica)
    return selected_replicas
