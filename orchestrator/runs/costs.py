"""The cost of a run: the instance time of its jobs and endpoints, multiplied by the price per hour.

The costs of storage, requests and logs are left out: they are small compared with the costs of instances.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.journal import Journal
from microjobs_orchestrator.runs.kinds import ENDPOINT_CONFIG, TRAINING, TUNING, Kind, Members

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

HOUR_SECONDS = 3600.0

FindPrice = Callable[[str], float | None]
"""A function that returns the dollars that one instance of a type costs per hour, or None if the price is unknown."""


@dataclass(frozen=True)
class BilledUsage:
    """Instance time that AWS bills."""

    instance_type: str
    seconds: float
    """The sum over all instances."""

    def compute_dollars(self, find_price: FindPrice) -> float | None:
        per_hour = find_price(self.instance_type)
        return None if per_hour is None else self.seconds / HOUR_SECONDS * per_hour


def measure_usage(sagemaker: "SageMakerClient", kind: Kind, description: Members) -> BilledUsage | None:
    """Return the usage of a job until now or until its end, or None if the description states no instances."""
    if not (instances := kind.list_instances(description)):
        return None
    [(instance_type, count)] = instances
    seconds = (
        sum(_list_trial_seconds(sagemaker, description))
        if kind.has_trials
        else _compute_billed_seconds(kind, description)
    )
    return BilledUsage(instance_type, seconds * count)


def _list_trial_seconds(sagemaker: "SageMakerClient", tuning: Members) -> Iterator[float]:
    """Yield the seconds of each trial: wall time while the tuning job runs, billable time afterwards."""
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=tuning["HyperParameterTuningJobName"]
    )
    is_running = tuning["HyperParameterTuningJobStatus"] in TUNING.lifecycle.transitional_statuses
    summaries = (summary for page in pages for summary in page["TrainingJobSummaries"])
    for summary in (summary for summary in summaries if "TrainingStartTime" in summary):
        name = summary["TrainingJobName"]
        yield _compute_billed_seconds(
            TRAINING, summary if is_running else sagemaker.describe_training_job(TrainingJobName=name)
        )


def _compute_billed_seconds(kind: Kind, description: Members) -> float:
    """Return the billable seconds, or the wall time if the description has no billable time.

    AWS describes the billable time of a training job after its end. On spot instances, it is less than the wall time:
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
    """
    if (billed := description.get("BillableTimeInSeconds")) is not None:
        return float(billed)
    if (start := description.get(kind.lifecycle.start_member)) is None:
        return 0.0
    end = description.get(kind.lifecycle.end_member) or datetime.now(UTC)
    return max(float((end - start).total_seconds()), 0.0)


def format_dollars(amount: float) -> str:
    """Format an amount as `$1.23`, or as `$0.0042` if it is less than ten cents."""
    return f"${amount:.2f}" if amount >= 0.1 or amount < 0.00005 else f"${amount:.4f}"


class CostMeter:
    """Adds the costs of jobs and endpoints to the journal of a run. On a backend without prices, the methods do
    nothing."""

    def __init__(self, backend: Backend, journal: Journal) -> None:
        self._backend = backend
        self._journal = journal

    def add_job(self, kind: Kind, description: Members | None) -> None:
        """Add the cost of a job that has ended. None stands for a job that was deleted."""
        if self._backend.find_price is None or description is None:
            return
        if (usage := measure_usage(self._backend.sagemaker, kind, description)) is not None:
            self._add(usage)

    def add_endpoint(self, config: Members, seconds: float) -> None:
        """Add the cost of an endpoint. `seconds` is a little more than the billed time, which AWS does not describe."""
        for instance_type, count in ENDPOINT_CONFIG.list_instances(config):
            self._add(BilledUsage(instance_type, seconds * count))

    def _add(self, usage: BilledUsage) -> None:
        if self._backend.find_price is not None:
            self._journal.add_cost(usage.instance_type, usage.compute_dollars(self._backend.find_price))

    def format_total(self, kind: Kind, description: Members) -> str:
        """Return the cost of the run including a job that has not been added; empty without prices."""
        if self._backend.find_price is None:
            return ""
        usage = measure_usage(self._backend.sagemaker, kind, description)
        job_dollars = (usage.compute_dollars(self._backend.find_price) or 0.0) if usage is not None else 0.0
        return f"{format_dollars(self._journal.spent + job_dollars)} so far"

    def summarize(self) -> str:
        """Return the cost of the run in one line; empty without prices."""
        if self._backend.find_price is None:
            return ""
        unpriced = f", plus the unknown cost of {', '.join(self._journal.unpriced)}" if self._journal.unpriced else ""
        return f"{format_dollars(self._journal.spent)} for instances, by the price table{unpriced}"
