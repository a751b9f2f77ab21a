"""Target tracking: the metric of a policy, and the capacity that the policy proposes.

Like the alarms that AWS creates, a policy proposes more capacity if its metric was above the target for 3 periods. It
proposes less capacity if the metric was below 0.9 of the target for 15 minutes. Source:
https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.metrics.periods import compute_statistic, summarize_periods
from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.endpoints.invocation_metrics import NAMESPACE
from microjobs_orchestrator.local.services.autoscaling.scalable_resources import (
    COMPONENT_SCALABLE_DIMENSION,
    VARIANT_SCALABLE_DIMENSION,
    ScalableResource,
)

MINUTE_SECONDS = 60
PERIOD_SECONDS, SHORT_PERIOD_SECONDS = MINUTE_SECONDS, 10
"""Length of a period in seconds: a metric has one value per period. Metrics of high resolution have short periods."""
SCALE_OUT_PERIODS = 3
"""Number of periods above the target before a policy proposes more capacity."""
SCALE_IN_SECONDS = 15 * MINUTE_SECONDS
"""Seconds below SCALE_IN_SHARE of the target before a policy proposes less capacity."""
SCALE_IN_SHARE = 0.9
"""The share of the target below which the capacity may decrease."""
DEFAULT_COOLDOWN_SECONDS = 300
ROUNDING_TOLERANCE = 1e-9
"""A capacity that exceeds an integer by less than this tolerance, because of rounding errors, is not rounded up."""

INVOCATIONS, CONCURRENCY = "Invocations", "ConcurrentRequests"


@dataclass(frozen=True)
class PredefinedMetric:
    """A metric per instance or per copy."""

    measured_quantity: str
    """`INVOCATIONS` or `CONCURRENCY`."""
    scalable_dimension: str
    """The scalable dimension for which the metric can be used."""
    period: int = PERIOD_SECONDS


PREDEFINED_METRICS: Mapping[str, PredefinedMetric] = {
    "SageMakerVariantInvocationsPerInstance": PredefinedMetric(INVOCATIONS, VARIANT_SCALABLE_DIMENSION),
    "SageMakerInferenceComponentInvocationsPerCopy": PredefinedMetric(INVOCATIONS, COMPONENT_SCALABLE_DIMENSION),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": PredefinedMetric(
        CONCURRENCY, VARIANT_SCALABLE_DIMENSION, SHORT_PERIOD_SECONDS
    ),
    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution": PredefinedMetric(
        CONCURRENCY, COMPONENT_SCALABLE_DIMENSION, SHORT_PERIOD_SECONDS
    ),
}


@dataclass(frozen=True)
class CustomMetric:
    """A metric that clients put into CloudWatch."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: str
    period: int = PERIOD_SECONDS

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> "CustomMetric":
        """Return the metric of a CustomizedMetricSpecification. Raise ServiceError for missing members."""
        if missing_members := [name for name in ("Namespace", "MetricName", "Statistic") if name not in members]:
            message = f"CustomizedMetricSpecification needs {' and '.join(missing_members)}."
            raise ServiceError("ValidationException", message)
        dimensions = {item["Name"]: item["Value"] for item in members.get("Dimensions", ())}
        return cls(members["Namespace"], members["MetricName"], dimensions, members["Statistic"])


@dataclass(frozen=True)
class Proposal:
    """The capacity that a policy proposes, and why."""

    capacity: int
    cause: str
    cooldown: float
    """The cooldown in seconds: for this time after a scaling activity, the proposal has no effect."""


class TargetTracking:
    """A target tracking policy.

    Args:
        config: the TargetTrackingScalingPolicyConfiguration.
        speed: the factor by which periods and cooldowns are shorter than on AWS.
    """

    def __init__(self, name: str, config: Mapping[str, Any], speed: int) -> None:
        self._name = name
        self._target: float = config["TargetValue"]
        self._speed = speed
        self._out_cooldown, self._in_cooldown = (
            config.get(member, DEFAULT_COOLDOWN_SECONDS) / speed for member in ("ScaleOutCooldown", "ScaleInCooldown")
        )
        self._allows_scale_in = not config.get("DisableScaleIn", False)
        metric = config.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
        self.metric: PredefinedMetric | CustomMetric = (
            CustomMetric.read(config["CustomizedMetricSpecification"]) if metric is None else PREDEFINED_METRICS[metric]
        )
        self._period = max(1, self.metric.period // speed)

    def propose(
        self, metrics: MetricStore, resource: ScalableResource, current_capacity: int, policy_start: float, now: float
    ) -> Proposal:
        """Return the capacity that the policy proposes. It is the current capacity if the policy proposes no change.

        Args:
            policy_start: the time since which the policy applies, in seconds since 1970.
        """
        end = now // self._period * self._period
        scale_in_periods = SCALE_IN_SECONDS // self._speed // self._period
        # the policy applies to whole periods
        first_period_start = math.ceil(policy_start / self._period) * self._period
        begin = max(end - scale_in_periods * self._period, first_period_start)
        values = self._read_metric(metrics, resource, current_capacity, begin, end)
        last_values = values[-SCALE_OUT_PERIODS:]
        if len(last_values) == SCALE_OUT_PERIODS and all(
            value is not None and value > self._target for value in last_values
        ):
            last_value = last_values[-1] or 0.0
            cause = (
                f"the metric was above the target for {SCALE_OUT_PERIODS} periods, and {last_value:g} in the last one"
            )
            return self._make_proposal(current_capacity, last_value, self._out_cooldown, cause)
        scale_in_limit = SCALE_IN_SHARE * self._target
        can_scale_in = self._allows_scale_in and len(values) == scale_in_periods
        if can_scale_in and all(value is not None and value < scale_in_limit for value in values):
            highest_value = max(value for value in values if value is not None)
            cause = f"the metric was at most {highest_value:g} for {scale_in_periods} periods"
            return self._make_proposal(current_capacity, highest_value, self._in_cooldown, cause)
        return Proposal(current_capacity, cause="", cooldown=0.0)

    def _make_proposal(self, current_capacity: int, value: float, cooldown: float, cause: str) -> Proposal:
        capacity = math.ceil(current_capacity * value / self._target - ROUNDING_TOLERANCE)
        return Proposal(capacity, f"{cause}; the target of policy {self._name} is {self._target:g}", cooldown)

    def _read_metric(
        self, metrics: MetricStore, resource: ScalableResource, current_capacity: int, begin: float, end: float
    ) -> Sequence[float | None]:
        """Return the value of the metric in each period.

        In a period without points, a custom metric has the value None, and a predefined metric has the value 0.
        """
        starts = [begin + number * self._period for number in range(round((end - begin) / self._period))]

        def read_values(
            namespace: str, name: str, dimensions: Mapping[str, str], summarize: Callable[[Statistics], float | None]
        ) -> list[float | None]:
            """Return one value per period. If clients put the metric with several of CloudWatch's units, each unit is a
            series, and the values of the series are added."""
            values_by_start: dict[float, float] = {}
            for series in metrics.find_series(namespace, name, dimensions):
                for start, statistics in summarize_periods(
                    metrics.read(series, begin, end), begin, self._period
                ).items():
                    values_by_start[start] = values_by_start.get(start, 0.0) + (summarize(statistics) or 0.0)
            return [values_by_start.get(start) for start in starts]

        def read_sums(name: str) -> list[float]:
            sums = read_values(NAMESPACE, name, resource.metric_dimensions, lambda statistics: statistics.total)
            return [value or 0.0 for value in sums]

        metric = self.metric
        if isinstance(metric, CustomMetric):
            summarize = partial(compute_statistic, metric.statistic)
            return read_values(metric.namespace, metric.name, metric.dimensions, summarize)
        if metric.measured_quantity == INVOCATIONS:
            return [value * MINUTE_SECONDS / self._period / current_capacity for value in read_sums(INVOCATIONS)]
        # Little's law: the mean number of requests in progress is the sum of their times, divided by the period.
        latencies = zip(read_sums("ModelLatency"), read_sums("OverheadLatency"), strict=True)
        return [sum(pair) / 1e6 / self._period / current_capacity for pair in latencies]
