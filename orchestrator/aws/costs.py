"""What a workflow may cost, from the requests that it is going to send."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from microjobs_orchestrator.runs.costs import HOUR_SECONDS, format_dollars
from microjobs_orchestrator.runs.kinds import Members
from microjobs_orchestrator.runs.plan import PlannedRequest

EXPECTED_SECONDS = 300.0
"""Of an instance in one of these workflows' jobs, or under their endpoint: they are small. Bills will differ."""


@dataclass(frozen=True)
class Estimate:
    """What a request uses at most: AWS ends jobs after their time, and the launcher deletes its endpoint."""

    title: str
    instance_type: str
    instances: int
    """One after the other or at once."""
    max_seconds: float
    """Of each instance."""

    def expected(self, prices: Mapping[str, float]) -> float | None:
        return self._dollars(prices, min(EXPECTED_SECONDS, self.max_seconds))

    def most(self, prices: Mapping[str, float]) -> float | None:
        return self._dollars(prices, self.max_seconds)

    def _dollars(self, prices: Mapping[str, float], seconds: float) -> float | None:
        an_hour = prices.get(self.instance_type)
        return None if an_hour is None else self.instances * seconds / HOUR_SECONDS * an_hour


def estimates(plan: Iterable[PlannedRequest], max_seconds: int) -> list[Estimate]:
    """An estimate for each request that starts instances.

    Args:
        plan: the requests.
        max_seconds: of an endpoint, whose requests do not limit it.
    """
    found = (_estimate(planned.title, planned.operation, planned.request, max_seconds) for planned in plan)
    return [estimate for estimate in found if estimate is not None]


def _estimate(title: str, operation: str, request: Members, max_seconds: int) -> Estimate | None:
    if operation == "CreateProcessingJob":
        return _job(title, request["ProcessingResources"]["ClusterConfig"], request, 1)
    if operation == "CreateTrainingJob":
        return _job(title, request["ResourceConfig"], request, 1)
    if operation == "CreateHyperParameterTuningJob":
        definition = request["TrainingJobDefinition"]
        jobs = request["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"]
        return _job(f"{title}, {jobs} jobs", definition["ResourceConfig"], definition, jobs)
    if operation == "CreateEndpointConfig":
        [variant] = request["ProductionVariants"]
        return Estimate("Endpoint", variant["InstanceType"], variant["InitialInstanceCount"], max_seconds)
    return None


def _job(title: str, resources: Members, request: Members, jobs: int) -> Estimate:
    seconds = request["StoppingCondition"]["MaxRuntimeInSeconds"]
    return Estimate(title, resources["InstanceType"], jobs * resources["InstanceCount"], seconds)


def table(found: Sequence[Estimate], prices: Mapping[str, float]) -> Table:
    """A row an estimate, and their sum; what has no price says so."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    expected = [estimate.expected(prices) for estimate in found]
    most = [estimate.most(prices) for estimate in found]
    shown.add_column("step", "all")
    shown.add_column("instances", no_wrap=True)
    shown.add_column("$ an hour", justify="right")
    shown.add_column("expected", _sum(expected), justify="right", no_wrap=True)
    shown.add_column("at most", _sum(most), justify="right", no_wrap=True)
    for estimate, likely, limit in zip(found, expected, most, strict=True):
        an_hour = prices.get(estimate.instance_type)
        shown.add_row(
            estimate.title,
            f"{estimate.instances} x {estimate.instance_type}",
            Text("unknown", style="red") if an_hour is None else f"{an_hour:g}",
            _shown(likely),
            _shown(limit),
        )
    return shown


def unpriced(found: Iterable[Estimate], prices: Mapping[str, float]) -> list[str]:
    """Instance types that have no price."""
    return sorted({estimate.instance_type for estimate in found if estimate.instance_type not in prices})


def _shown(amount: float | None) -> str:
    return "?" if amount is None else format_dollars(amount)


def _sum(amounts: Sequence[float | None]) -> str:
    total = format_dollars(sum(amount for amount in amounts if amount is not None))
    return f"{total} + ?" if None in amounts else total
