"""Chooses the variant of a request by the weights, and the replica by the requests in progress, or at random."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from microjobs_orchestrator.local.resources.endpoints.replica import Replica

_random = random.SystemRandom()


class ReplicaGroup:
    """The replicas of one variant: one per instance, or one per copy of an inference component.

    Args:
        is_routed_randomly: returns whether requests to a variant go to a random replica. Otherwise, they go to the
            replica with the fewest requests in progress; replicas with equally many requests alternate.
    """

    def __init__(self, variant: str, replicas: Sequence[Replica], is_routed_randomly: Callable[[str], bool]) -> None:
        self.variant = variant
        self.replicas = replicas
        self._is_routed_randomly = is_routed_randomly
        self._rotation = count()

    def choose_replica(self, tried_replicas: Collection[Replica] = ()) -> Replica:
        """Return a replica that serves and is not in `tried_replicas`; if there is none, any replica."""
        if len(self.replicas) == 1:
            return self.replicas[0]
        usable_replicas = self.list_usable_replicas(tried_replicas) or self.replicas
        if self._is_routed_randomly(self.variant):
            return _random.choice(usable_replicas)
        start = next(self._rotation) % len(usable_replicas)
        return min([*usable_replicas[start:], *usable_replicas[:start]], key=lambda replica: replica.traffic.count())

    def list_usable_replicas(self, tried_replicas: Collection[Replica]) -> Sequence[Replica]:
        return [replica for replica in self.replicas if replica.is_serving and replica not in tried_replicas]


@dataclass(frozen=True)
class WeightedGroup:
    """A group of a deployment, and the shares of the requests that it receives.

    During an update, two deployments may have a group for the same variant.
    """

    group: ReplicaGroup
    share_of_all: float = 1.0
    """The group's share of the requests that name no variant."""
    share_of_variant: float = 1.0
    """The group's share of the requests that name its variant. This is the share of the group's deployment, because a
    deployment has one group per variant."""


class Router:
    """The groups that receive requests. An instance of this class does not change, so any thread may use it."""

    def __init__(self, weighted_groups: Sequence[WeightedGroup] = ()) -> None:
        self._weighted_groups = weighted_groups
        self._weighted_groups_by_variant: dict[str, list[WeightedGroup]] = {}
        for item in weighted_groups:
            self._weighted_groups_by_variant.setdefault(item.group.variant, []).append(item)
        self._replicas = frozenset(replica for item in weighted_groups for replica in item.group.replicas)

    def choose_replica(self, variant: str | None, tried_replicas: Collection[Replica] = ()) -> Replica | None:
        """Return the replica for a request to a variant, or to any variant (None); None if there is no replica."""
        weighted_groups = (
            self._weighted_groups if variant is None else self._weighted_groups_by_variant.get(variant, ())
        )
        if tried_replicas:
            weighted_groups = [
                item for item in weighted_groups if item.group.list_usable_replicas(tried_replicas)
            ] or weighted_groups
        if len(weighted_groups) <= 1:
            return weighted_groups[0].group.choose_replica(tried_replicas) if weighted_groups else None
        shares = [item.share_of_all if variant is None else item.share_of_variant for item in weighted_groups]
        (chosen_item,) = _random.choices(weighted_groups, shares if any(shares) else None)
        return chosen_item.group.choose_replica(tried_replicas)

    def routes_to(self, replica: Replica) -> bool:
        """Return whether a replica receives requests."""
        return replica in self._replicas

    def has_other_replica(self, tried_replicas: Sequence[Replica]) -> bool:
        """Return whether the variant of the last tried replica has a serving replica that was not tried."""
        return any(
            item.group.list_usable_replicas(tried_replicas)
            for item in self._weighted_groups_by_variant.get(tried_replicas[-1].variant, ())
        )


def group_replicas(
    replicas: Iterable[Replica], is_routed_randomly: Callable[[str], bool]
) -> Mapping[str, ReplicaGroup]:
    """Return the groups of replicas, by variant."""
    replicas_by_variant: dict[str, list[Replica]] = {}
    for replica in replicas:
        replicas_by_variant.setdefault(replica.variant, []).append(replica)
    return {variant: ReplicaGroup(variant, items, is_routed_randomly) for variant, items in replicas_by_variant.items()}


def make_weighted_groups(
    groups: Mapping[str, ReplicaGroup], weights: Mapping[str, float], share: float = 1.0
) -> list[WeightedGroup]:
    """Return the weighted groups of one deployment, with the weights of its variants.

    Args:
        share: the share of the requests that the deployment gets.
    """
    present_weights = {variant: weight for variant, weight in weights.items() if variant in groups} if share else {}
    total = sum(present_weights.values())
    return [
        WeightedGroup(groups[variant], share * (weight / total if total else 1 / len(present_weights)), share)
        for variant, weight in present_weights.items()
    ]
