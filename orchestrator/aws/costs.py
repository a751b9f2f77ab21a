"""Estimated cost of planned requests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from microjobs_orchestrator.aws.instances import Instances, planned_instances
from microjobs_orchestrator.runs.costs import HOUR_SECONDS, format_dollars
from microjobs_orchestrator.runs.planned import PlannedRequest

EXPECTED_SECONDS = 300.0
"""Typical time of one instance in a job of these workflows, or under their endpoint. Bills differ."""


@dataclass(frozen=True)
class Estimate:
    """The cost of the instances of one request."""

    instances: Instances
    max_seconds: float
    """The time limit of each instance. AWS ends jobs, and the launcher deletes its endpoint."""

    def expected(self, prices: Mapping[str, float]) -> float | None:
        """Return the expected dollars, or None if the price is unknown."""
        return self._dollars(prices, min(EXPECTED_SECONDS, self.max_seconds))

    def maximum(self, prices: Mapping[str, float]) -> float | None:
        """Return the dollars if each instance reaches its time limit, or None if the price is unknown."""
        return self._dollars(prices, self.max_seconds)

    def _dollars(self, prices: Mapping[str, float], seconds: float) -> float | None:
        per_hour = prices.get(self.instances.instance_type)
        return None if per_hour is None else self.instances.total * seconds / HOUR_SECONDS * per_hour


def estimate(requests: Iterable[PlannedRequest], max_endpoint_seconds: int) -> list[Estimate]:
    """Return an estimate for each request that starts instances.

    Args:
        max_endpoint_seconds: the time limit of an endpoint, whose requests have none.
    """
    return [Estimate(item, item.max_seconds or max_endpoint_seconds) for item in planned_instances(requests)]


def table(estimates: Sequence[Estimate], prices: Mapping[str, float]) -> Table:
    """Return a table with one row per estimate, and their sum."""
    expected = [item.expected(prices) for item in estimates]
    maximum = [item.maximum(prices) for item in estimates]
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    result.add_column("step", "all")
    result.add_column("instances", no_wrap=True)
    result.add_column("$ per hour", justify="right")
    result.add_column("expected", _format_sum(expected), justify="right", no_wrap=True)
    result.add_column("at most", _format_sum(maximum), justify="right", no_wrap=True)
    for item, likely, limit in zip(estimates, expected, maximum, strict=True):
        instances = item.instances
        per_hour = prices.get(instances.instance_type)
        result.add_row(
            instances.title,
            f"{instances.total} x {instances.instance_type}",
            Text("unknown", style="red") if per_hour is None else f"{per_hour:g}",
            _format(likely),
            _format(limit),
        )
    return result


def unpriced(estimates: Iterable[Estimate], prices: Mapping[str, float]) -> list[str]:
    """Return the instance types whose price is unknown."""
    return sorted({item.instances.instance_type for item in estimates} - prices.keys())


def _format(amount: float | None) -> str:
    return "?" if amount is None else format_dollars(amount)


def _format_sum(amounts: Sequence[float | None]) -> str:
    total = format_dollars(sum(amount for amount in amounts if amount is not None))
    return f"{total} + ?" if None in amounts else total
