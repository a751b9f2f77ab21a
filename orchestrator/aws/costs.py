"""Estimated costs of planned requests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from microjobs_orchestrator.aws.instances import Instances, planned_instances
from microjobs_orchestrator.runs.costs import HOUR_SECONDS, format_dollars
from microjobs_orchestrator.runs.planned import PlannedRequest

EXPECTED_SECONDS = 300.0
"""Typical run time of one instance of a job or an endpoint in this project's workflows. The actual time differs."""


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of the instances that one request starts."""

    instances: Instances
    max_seconds: float
    """The time limit of each instance. At this limit AWS ends a job, and the launcher deletes an endpoint."""

    def expected(self, prices: Mapping[str, float]) -> float | None:
        """Return the expected dollars, or None if the price is unknown."""
        return self._cost(prices, min(EXPECTED_SECONDS, self.max_seconds))

    def maximum(self, prices: Mapping[str, float]) -> float | None:
        """Return the dollars for instances that reach their time limit, or None if the price is unknown."""
        return self._cost(prices, self.max_seconds)

    def _cost(self, prices: Mapping[str, float], seconds: float) -> float | None:
        per_hour = prices.get(self.instances.instance_type)
        return None if per_hour is None else self.instances.total * seconds / HOUR_SECONDS * per_hour


def estimate(requests: Iterable[PlannedRequest], max_endpoint_seconds: int) -> list[Estimate]:
    """Return an estimate for each request that starts instances.

    Args:
        max_endpoint_seconds: the time limit of endpoints. Their requests contain no time limit.
    """
    return [Estimate(item, item.max_seconds or max_endpoint_seconds) for item in planned_instances(requests)]


def table(estimates: Sequence[Estimate], prices: Mapping[str, float]) -> Table:
    """Return a table with one row per estimate, and a footer with the sums."""
    expected = [item.expected(prices) for item in estimates]
    maximum = [item.maximum(prices) for item in estimates]
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    result.add_column("step", "all")
    result.add_column("instances", no_wrap=True)
    result.add_column("$ per hour", justify="right")
    result.add_column("expected", _format_sum(expected), justify="right", no_wrap=True)
    result.add_column("at most", _format_sum(maximum), justify="right", no_wrap=True)
    for item, expected_dollars, max_dollars in zip(estimates, expected, maximum, strict=True):
        instances = item.instances
        per_hour = prices.get(instances.instance_type)
        result.add_row(
            instances.title,
            f"{instances.total} x {instances.instance_type}",
            Text("unknown", style="red") if per_hour is None else f"{per_hour:g}",
            _format_amount(expected_dollars),
            _format_amount(max_dollars),
        )
    return result


def unpriced(estimates: Iterable[Estimate], prices: Mapping[str, float]) -> list[str]:
    """Return the sorted instance types that have no known price."""
    return sorted({item.instances.instance_type for item in estimates} - prices.keys())


def _format_amount(amount: float | None) -> str:
    return "?" if amount is None else format_dollars(amount)


def _format_sum(amounts: Sequence[float | None]) -> str:
    total = format_dollars(sum(amount for amount in amounts if amount is not None))
    return f"{total} + ?" if None in amounts else total
