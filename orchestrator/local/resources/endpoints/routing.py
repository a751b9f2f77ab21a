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
        is_random: returns whether requests go to a random replica. Otherwise, they go to the replica with the fewest
            requests in progress; replicas with equally many requests alternate.
    """

    def __init__(self, variant: str, replicas: Sequence[Replica], is_random: Callable[[str], bool]) -> None:
        self.variant = variant
        self.replicas = replicas
        self._is_random = is_random
        self._next = count()

    def choose_replica(self, tried_replicas: Collection[Replica] = ()) -> Replica:
        """Return a replica that serves and is not in `tried_replicas`; if there is none, any replica."""
        if len(self.replicas) == 1:
            return self.replicas[0]
        usable_replicas = self.list_usable(tried_replicas) or self.replicas
        if self._is_random(self.variant):
            return _random.choice(usable_replicas)
        first = next(self._next) % len(usable_replicas)
        return min([*usable_replicas[first:], *usable_replicas[:first]], key=lambda replica: replica.traffic.count())

    def list_usable(self, tried_replicas: Collection[Replica]) -> Sequence[Replica]:
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

    def __init__(self, choices: Sequence[WeightedGroup] = ()) -> None:
        self._choices = choices
        self._choices_by_variant: dict[str, list[WeightedGroup]] = {}
        for choice in choices:
            self._choices_by_variant.setdefault(choice.group.variant, []).append(choice)
        self._replicas = frozenset(replica for choice in choices for replica in choice.group.replicas)

    def choose_replica(self, variant: str | None, tried_replicas: Collection[Replica] = ()) -> Replica | None:
        """Return the replica for a request to a variant, or to any variant (None); None if there is no replica."""
        choices = self._choices if variant is None else self._choices_by_variant.get(variant, ())
        if tried_replicas:
            choices = [choice for choice in choices if choice.group.list_usable(tried_replicas)] or choices
        if len(choices) <= 1:
            return choices[0].group.choose_replica(tried_replicas) if choices else None
        shares = [choice.share_of_all if variant is None else choice.share_of_variant for choice in choices]
        (choice,) = _random.choices(choices, shares if any(shares) else None)
        return choice.group.choose_replica(tried_replicas)

    def serves(self, replica: Replica) -> bool:
        """Return whether a replica receives requests."""
        return replica in self._replicas

    def has_other_replica(self, tried_replicas: Sequence[Replica]) -> bool:
        """Return whether the variant of the last tried replica has a serving replica that was not tried."""
        return any(
            choice.group.list_usable(tried_replicas)
            for choice in self._choices_by_variant.get(tried_replicas[-1].variant, ())
        )


def group_replicas(replicas: Iterable[Replica], is_random: Callable[[str], bool]) -> Mapping[str, ReplicaGroup]:
    """Return the groups of replicas, by variant."""
    replicas_by_variant: dict[str, list[Replica]] = {}
    for replica in replicas:
        replicas_by_variant.setdefault(replica.variant, []).append(replica)
    return {variant: ReplicaGroup(variant, items, is_random) for variant, items in replicas_by_variant.items()}


def make_choices(
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
