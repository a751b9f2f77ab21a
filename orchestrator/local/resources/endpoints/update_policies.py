"""Update policies: the steps in which an update moves the requests to a new deployment.

https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, inf
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context

BLUE_GREEN, ROLLING = "BlueGreenUpdatePolicy", "RollingUpdatePolicy"
FULL_SHARE = Fraction(1)
"""The share that stands for all requests, or for the whole capacity."""
SIZE_LIMITS = {
    "CanarySize": (Fraction(0), Fraction(1, 2)),
    "LinearStepSize": (Fraction(1, 10), Fraction(1, 2)),
    "MaximumBatchSize": (Fraction(1, 20), Fraction(1, 2)),
    "RollbackMaximumBatchSize": (Fraction(1, 20), FULL_SHARE),
}
"""The smallest and the largest allowed share of the capacity, by the member that states the share."""
SIZE_MEMBERS_BY_TYPE = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
"""The member that states the size of a step, by the type of TrafficRoutingConfiguration."""


@dataclass(frozen=True)
class UpdatePolicy:
    """The steps of an update. Without a policy, one step moves all requests."""

    shares: Sequence[Fraction] = (FULL_SHARE,)
    """The share of the requests that the new deployment gets, by step."""
    baking_seconds: float = 0.0
    """The baking period in seconds: after each step, the new replicas must not fail during this time."""
    termination_wait: float = 0.0
    """Seconds after the last baking period until the replicas of the earlier deployment end."""
    timeout: float = inf
    """Seconds for the whole update, after which it fails."""
    is_rolling: bool = False
    """Whether each step starts a part of the new replicas, and ends a part of the earlier ones. Otherwise, all new
    replicas start before the first step."""
    rollback_share: Fraction = FULL_SHARE
    """If the update fails, the ended replicas of the earlier deployment start again in batches. This is the size of a
    batch, as a share of all replicas of that deployment."""
    alarms: Sequence[str] = ()
    """The names of the alarms that fail the update."""

    @property
    def has_waiting_times(self) -> bool:
        return self.baking_seconds > 0 or self.termination_wait > 0


def read_policy(config: Mapping[str, Any], capacity: int, speed: int = 1) -> UpdatePolicy:
    """Return the policy of a DeploymentConfig. Raise ValidationError if it is contradictory, or if a size is not valid.

    Args:
        capacity: the number of instances or copies of the largest variant in the new deployment.
        speed: the factor by which times are shorter than the policy states.
    """
    if BLUE_GREEN in config and ROLLING in config:
        raise ValidationError(f"DeploymentConfig has both {BLUE_GREEN} and {ROLLING}: remove one of them.")
    policy = UpdatePolicy()
    if ROLLING in config:
        policy = _read_rolling(config[ROLLING], max(1, capacity), speed)
    elif BLUE_GREEN in config:
        policy = _read_blue_green(config[BLUE_GREEN], max(1, capacity), speed)
    if (total := len(policy.shares) * policy.baking_seconds + policy.termination_wait) >= policy.timeout:
        raise ValidationError(
            f"MaximumExecutionTimeoutInSeconds {policy.timeout * speed:g} must be larger than the sum of all waiting "
            f"times, {total * speed:g} s."
        )
    alarms = config.get("AutoRollbackConfiguration", {}).get("Alarms", [])
    return replace(policy, alarms=[alarm["AlarmName"] for alarm in alarms if "AlarmName" in alarm])


def check_deployment_config(context: Context, config: Mapping[str, Any], capacity: int) -> None:
    """Raise ValidationError if a DeploymentConfig is not valid, or names alarms that do not exist.

    Args:
        capacity: the number of instances or copies of the largest variant in the new deployment.
    """
    if missing := context.alarms.find_missing(read_policy(config, capacity).alarms):
        message = f"AutoRollbackConfiguration names alarms that do not exist: {', '.join(missing)}"
        raise ValidationError(f"{message}. Create them with PutMetricAlarm of CloudWatch.")


def _read_blue_green(policy: Mapping[str, Any], capacity: int, speed: int) -> UpdatePolicy:
    routing = policy["TrafficRoutingConfiguration"]
    shares: Sequence[Fraction] = (FULL_SHARE,)
    if (name := SIZE_MEMBERS_BY_TYPE.get(routing["Type"])) is not None:
        if name not in routing:
            raise ValidationError(f"TrafficRoutingConfiguration of type {routing['Type']} needs {name}.")
        size = _read_size(routing, name, capacity)
        shares = (size, FULL_SHARE) if name == "CanarySize" else _list_shares(size)
    return UpdatePolicy(
        shares,
        baking_seconds=routing["WaitIntervalInSeconds"] / speed,
        termination_wait=policy.get("TerminationWaitInSeconds", 0) / speed,
        timeout=policy.get("MaximumExecutionTimeoutInSeconds", inf) / speed,
    )


def _read_rolling(policy: Mapping[str, Any], capacity: int, speed: int) -> UpdatePolicy:
    size = _read_size(policy, "MaximumBatchSize", capacity)
    return UpdatePolicy(
        _list_shares(max(Fraction(1, capacity), Fraction(floor(size * capacity), capacity))),
        baking_seconds=policy["WaitIntervalInSeconds"] / speed,
        timeout=policy.get("MaximumExecutionTimeoutInSeconds", inf) / speed,
        is_rolling=True,
        rollback_share=_read_size(policy, "RollbackMaximumBatchSize", capacity),
    )


def _read_size(policy: Mapping[str, Any], name: str, capacity: int) -> Fraction:
    """Return a size as a share of the capacity; the whole capacity if the policy does not have the size."""
    if name not in policy:
        return FULL_SHARE
    value, minimum, maximum = policy[name]["Value"], *SIZE_LIMITS[name]
    size = Fraction(value, 100 if policy[name]["Type"] == "CAPACITY_PERCENT" else capacity)
    if not minimum <= size <= maximum:
        limits = f"{float(minimum):.0%} to {float(maximum):.0%}"
        raise ValidationError(f"{name} {value} is {float(size):.0%} of the capacity of {capacity}: use {limits} of it.")
    return size


def _list_shares(step: Fraction) -> Sequence[Fraction]:
    """Return the share of the requests that the new deployment gets, by step, if each step adds the share `step`."""
    return [min(FULL_SHARE, number * step) for number in range(1, ceil(1 / step) + 1)]
