"""Instances that planned requests start, and their estimated costs."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.runs.costs import HOUR_SECONDS, format_dollars
from microjobs_orchestrator.runs.kinds import get_member
from microjobs_orchestrator.runs.planned import PlannedRequest

PRICES_FILE = Path(__file__).with_name("prices.toml")

EXPECTED_SECONDS = 300.0
"""Typical run time of one instance of a job or an endpoint in this project's workflows. The actual time differs."""


def load_prices(settings: Settings) -> dict[str, float]:
    """Return the dollars per hour in the settings' region, by instance type. The settings override `prices.toml`."""
    table: dict[str, dict[str, float]] = tomllib.loads(PRICES_FILE.read_text(encoding="utf-8"))
    return {**table.get(settings.region, {}), **settings.prices}


@dataclass(frozen=True)
class Estimate:
    """Instances of one type that one request starts."""

    title: str
    quota_usage: str
    """The use of the instances, as AWS's quotas name it, such as `training job`."""
    instance_type: str
    total_count: int
    """The number of all instances, even if they do not run at the same time."""
    concurrent_count: int
    """The number of instances that run at the same time."""
    max_seconds: float
    """The time limit of each instance. AWS ends a job at this limit. For an endpoint, the limit applies only until the
    endpoint is in service."""

    def compute_expected_dollars(self, prices: Mapping[str, float]) -> float | None:
        """Return the expected dollars, or None if the price is unknown."""
        return self._compute_dollars(prices, min(EXPECTED_SECONDS, self.max_seconds))

    def compute_max_dollars(self, prices: Mapping[str, float]) -> float | None:
        """Return the dollars for instances that reach their time limit, or None if the price is unknown."""
        return self._compute_dollars(prices, self.max_seconds)

    def _compute_dollars(self, prices: Mapping[str, float], seconds: float) -> float | None:
        per_hour = prices.get(self.instance_type)
        return None if per_hour is None else self.total_count * seconds / HOUR_SECONDS * per_hour


def estimate(requests: Iterable[PlannedRequest], max_endpoint_seconds: float) -> Iterator[Estimate]:
    """Yield an estimate for each instance type of each request.

    Args:
        max_endpoint_seconds: the time limit of requests that contain none, such as those of endpoints.
    """
    for planned in requests:
        kind, request = planned.kind, planned.members
        limits = get_member(request, kind.aws.job_limits) if kind.aws.job_limits else {}
        job_count = limits.get("MaxNumberOfTrainingJobs", 1)
        concurrent_job_count = limits.get("MaxParallelTrainingJobs", 1)
        title = f"{planned.title}, {job_count} job{'s' if job_count > 1 else ''}" if limits else planned.title
        max_seconds = kind.select_job_members(request).get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
        for instance_type, count in kind.list_instances(request):
            yield Estimate(
                title,
                kind.aws.quota or kind.display_name,
                instance_type,
                total_count=job_count * count,
                concurrent_count=concurrent_job_count * count,
                max_seconds=max_seconds or max_endpoint_seconds,
            )


def print_estimates(console: Console, settings: Settings, requests: Iterable[PlannedRequest]) -> None:
    """Print the estimated cost of a run."""
    prices = load_prices(settings)
    estimates = list(estimate(requests, 60 * settings.max_minutes))
    console.print(_make_table(estimates, prices))
    if unpriced := sorted({item.instance_type for item in estimates} - prices.keys()):
        console.print(
            f"The price of {', '.join(unpriced)} in {settings.region} is unknown: "
            'add it to microjobs.toml, [aws.prices] "TYPE" = DOLLARS_PER_HOUR',
            soft_wrap=True,
        )
    if settings.spot:
        console.print("These are on-demand prices. Spot instances cost less.")
    console.print(
        f"Expected: {EXPECTED_SECONDS / 60:g} min per instance. At most: {settings.max_minutes} min per instance. AWS "
        "ends a job at this limit. The run deletes its endpoint after the last request, or if the endpoint is not in "
        "service within this time. Storage and logs are not included; they cost little.",
        soft_wrap=True,
    )


def _make_table(estimates: Sequence[Estimate], prices: Mapping[str, float]) -> Table:
    """Return a table with one row per estimate, and a footer with the sums."""
    expected = [item.compute_expected_dollars(prices) for item in estimates]
    maximum = [item.compute_max_dollars(prices) for item in estimates]
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    result.add_column("step", "all")
    result.add_column("instances", no_wrap=True)
    result.add_column("$ per hour", justify="right")
    result.add_column("expected", _format_sum(expected), justify="right", no_wrap=True)
    result.add_column("at most", _format_sum(maximum), justify="right", no_wrap=True)
    for item, expected_dollars, max_dollars in zip(estimates, expected, maximum, strict=True):
        per_hour = prices.get(item.instance_type)
        result.add_row(
            item.title,
            f"{item.total_count} x {item.instance_type}",
            Text("unknown", style="red") if per_hour is None else f"{per_hour:g}",
            _format_amount(expected_dollars),
            _format_amount(max_dollars),
        )
    return result


def _format_amount(amount: float | None) -> str:
    return "?" if amount is None else format_dollars(amount)


def _format_sum(amounts: Sequence[float | None]) -> str:
    total = format_dollars(sum(amount for amount in amounts if amount is not None))
    return f"{total} + ?" if None in amounts else total
