"""Target tracking: the metric of a policy, and the capacity that the policy proposes.

A policy proposes more capacity if its metric was above the target for 3 periods, and less capacity if the metric was
below 0.9 of the target for 15 minutes, as the alarms that AWS creates.
Source: https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.metrics.periods import compute, split
from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.endpoints.invocation_metrics import NAMESPACE
from microjobs_orchestrator.local.services.autoscaling.scalable import (
    COMPONENT_DIMENSION,
    VARIANT_DIMENSION,
    Scalable,
)

MINUTE = 60
PERIOD, SHORT_PERIOD = MINUTE, 10
"""Seconds of one value of a metric. The short one is for metrics of high resolution."""
PERIODS_ABOVE = 3
"""Periods above the target before a policy proposes more capacity."""
SECONDS_BELOW = 15 * MINUTE
"""Time below the target before a policy proposes less capacity."""
SCALE_IN_SHARE = 0.9
"""The share of the target below which the capacity may decrease."""
DEFAULT_COOLDOWN = 300
ROUNDING = 1e-9

INVOCATIONS, CONCURRENCY = "Invocations", "ConcurrentRequests"


@dataclass(frozen=True)
class PredefinedMetric:
    """A metric per instance or per copy."""

    quantity: str
    dimension: str
    """The scalable dimension that it fits."""
    period: int = PERIOD


PREDEFINED: Mapping[str, PredefinedMetric] = {
    "SageMakerVariantInvocationsPerInstance": PredefinedMetric(INVOCATIONS, VARIANT_DIMENSION),
    "SageMakerInferenceComponentInvocationsPerCopy": PredefinedMetric(INVOCATIONS, COMPONENT_DIMENSION),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": PredefinedMetric(
        CONCURRENCY, VARIANT_DIMENSION, SHORT_PERIOD
    ),
    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution": PredefinedMetric(
        CONCURRENCY, COMPONENT_DIMENSION, SHORT_PERIOD
    ),
}


@dataclass(frozen=True)
class CustomMetric:
    """A metric that clients put into CloudWatch."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: str
    period: int = PERIOD

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> "CustomMetric":
        """Return the metric of a CustomizedMetricSpecification. Raise ServiceError for missing members."""
        if missing := [name for name in ("Namespace", "MetricName", "Statistic") if name not in members]:
            message = f"CustomizedMetricSpecification needs {' and '.join(missing)}."
            raise ServiceError("ValidationException", message)
        dimensions = {item["Name"]: item["Value"] for item in members.get("Dimensions", ())}
        return cls(members["Namespace"], members["MetricName"], dimensions, members["Statistic"])


@dataclass(frozen=True)
class Proposal:
    """The capacity that a policy proposes, and why."""

    count: int
    cause: str
    cooldown: float
    """Seconds after a scaling activity in which this proposal has no effect."""


class TargetTracking:
    """A policy.

    Args:
        config: the TargetTrackingScalingPolicyConfiguration.
        speed: the factor by which periods and cooldowns are shorter than on AWS.
    """

    def __init__(self, name: str, config: Mapping[str, Any], speed: int) -> None:
        self._name = name
        self._target: float = config["TargetValue"]
        self._speed = speed
        self._out_cooldown, self._in_cooldown = (
            config.get(member, DEFAULT_COOLDOWN) / speed for member in ("ScaleOutCooldown", "ScaleInCooldown")
        )
        self._can_shrink = not config.get("DisableScaleIn", False)
        metric = config.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
        self.metric: PredefinedMetric | CustomMetric = (
            CustomMetric.read(config["CustomizedMetricSpecification"]) if metric is None else PREDEFINED[metric]
        )
        self._period = max(1, self.metric.period // speed)

    def propose(self, metrics: MetricStore, scalable: Scalable, count: int, since: float, now: float) -> Proposal:
        """Return the capacity that the policy proposes; the present one if it proposes no change.

        Args:
            since: the time since which the policy applies, in seconds since 1970.
        """
        end = now // self._period * self._period
        below = SECONDS_BELOW // self._speed // self._period
        begin = max(end - below * self._period, -(-since // self._period) * self._period)
        values = self._read(metrics, scalable, count, begin, end)
        above = values[-PERIODS_ABOVE:]
        if len(above) == PERIODS_ABOVE and all(value is not None and value > self._target for value in above):
            return self._make_proposal(count, above[-1] or 0.0, self._out_cooldown, PERIODS_ABOVE)
        limit = SCALE_IN_SHARE * self._target
        can_shrink = self._can_shrink and len(values) == below
        if can_shrink and all(value is not None and value < limit for value in values):
            highest = max(value for value in values if value is not None)
            return self._make_proposal(count, highest, self._in_cooldown, below)
        return Proposal(count, "", 0.0)

    def _make_proposal(self, count: int, value: float, cooldown: float, periods: int) -> Proposal:
        cause = f"the metric was {value:g} for {periods} periods, and the target of policy {self._name} is"
        desired = math.ceil(count * value / self._target - ROUNDING)
        return Proposal(desired, f"{cause} {self._target:g}", cooldown)

    def _read(
        self, metrics: MetricStore, scalable: Scalable, count: int, begin: float, end: float
    ) -> Sequence[float | None]:
        """Return the value of the metric in each period. A custom metric without points has no value."""
        starts = [begin + number * self._period for number in range(round((end - begin) / self._period))]

        def read(
            namespace: str, name: str, dimensions: Mapping[str, str], summarize: Callable[[Statistics], float | None]
        ) -> list[float | None]:
            """Return the sum over the units of a metric, which usually has one unit."""
            found: dict[float, float] = {}
            for series in metrics.find_units(namespace, name, dimensions):
                for start, statistics in split(metrics.read(series, begin, end), begin, self._period).items():
                    found[start] = found.get(start, 0.0) + (summarize(statistics) or 0.0)
            return [found.get(start) for start in starts]

        def read_sums(name: str) -> list[float]:
            sums = read(NAMESPACE, name, scalable.metric_dimensions, lambda found: found.total)
            return [value or 0.0 for value in sums]

        metric = self.metric
        if isinstance(metric, CustomMetric):
            statistic = metric.statistic
            return read(metric.namespace, metric.name, metric.dimensions, lambda found: compute(statistic, found))
        if metric.quantity == INVOCATIONS:
            return [value * MINUTE / self._period / count for value in read_sums(INVOCATIONS)]
        # Little's law: the mean number of present requests is the sum of their times, divided by the period.
        latencies = zip(read_sums("ModelLatency"), read_sums("OverheadLatency"), strict=True)
        return [sum(pair) / 1e6 / self._period / count for pair in latencies]
