"""The cost of a run: the instance time that AWS describes, multiplied by the price per hour.

Storage, requests and logs cost as well, but little compared with the instances.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.journal import Journal
from microjobs_orchestrator.runs.kinds import PROCESSING, TRAINING, TUNING, Kind, Members

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

HOUR_SECONDS = 3600.0

Price = Callable[[str], float | None]
"""Returns the dollars that one instance of a type costs per hour, or None if the price is unknown."""


@dataclass(frozen=True)
class Usage:
    """Instance time that AWS bills."""

    instance_type: str
    seconds: float
    """The sum over all instances."""

    def dollars(self, price: Price) -> float | None:
        per_hour = price(self.instance_type)
        return None if per_hour is None else self.seconds / HOUR_SECONDS * per_hour


def measure_usage(sagemaker: "SageMakerClient", kind: Kind, description: Members) -> Usage | None:
    """Return the usage of a job until now or until its end, or None if the resource is not a job."""
    if kind is PROCESSING:
        cluster = description["ProcessingResources"]["ClusterConfig"]
        return Usage(cluster["InstanceType"], _wall_seconds(description, "Processing") * cluster["InstanceCount"])
    if kind is TRAINING:
        return _training_usage(description)
    if kind is TUNING:
        instance_type = description["TrainingJobDefinition"]["ResourceConfig"]["InstanceType"]
        return Usage(instance_type, sum(_trial_seconds(sagemaker, description)))
    return None


def _training_usage(description: Members) -> Usage:
    """Return the billable time. AWS describes it when the job has ended; spot instances have less than wall time.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
    """
    resources = description["ResourceConfig"]
    seconds = description.get("BillableTimeInSeconds")
    if seconds is None:
        seconds = _wall_seconds(description, "Training")
    return Usage(resources["InstanceType"], seconds * resources["InstanceCount"])


def _trial_seconds(sagemaker: "SageMakerClient", tuning: Members) -> list[float]:
    """Return the seconds of each trial: wall time while the tuning job runs, billable time afterwards."""
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=tuning["HyperParameterTuningJobName"]
    )
    summaries: list[Mapping[str, Any]] = [
        summary for page in pages for summary in page["TrainingJobSummaries"] if "TrainingStartTime" in summary
    ]
    if tuning["HyperParameterTuningJobStatus"] in TUNING.life.transitional:
        return [_wall_seconds(summary, "Training") for summary in summaries]
    jobs = (sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"]) for job in summaries)
    return [_training_usage(job).seconds for job in jobs]


def _wall_seconds(description: Members, prefix: str) -> float:
    """Return the wall time since the start; 0 before it, while instances are prepared and not yet billed.

    Args:
        prefix: of the members, such as `Training` of `TrainingStartTime`.
    """
    if (start := description.get(f"{prefix}StartTime")) is None:
        return 0.0
    end = description.get(f"{prefix}EndTime") or datetime.now(UTC)
    return max(float((end - start).total_seconds()), 0.0)


def format_dollars(amount: float) -> str:
    """Format an amount as `$1.23`, or as `$0.0042` if it is less than ten cents."""
    return f"${amount:.2f}" if amount >= 0.1 or amount < 0.00005 else f"${amount:.4f}"


class CostMeter:
    """Adds up in the journal what a run costs. Does nothing on a backend without prices."""

    def __init__(self, backend: Backend, journal: Journal) -> None:
        self._backend = backend
        self._journal = journal

    def add_job(self, kind: Kind, description: Members | None) -> None:
        """Add a job that has ended."""
        if self._backend.price is None or description is None:
            return
        if (usage := measure_usage(self._backend.sagemaker, kind, description)) is not None:
            self._journal.add_cost(usage.instance_type, usage.dollars(self._backend.price))

    def add_endpoint(self, config: Members, seconds: float) -> None:
        """Add an endpoint.

        Args:
            config: the request of CreateEndpointConfig.
            seconds: from the request to the deletion. AWS does not describe the billed time, which is a little less.
        """
        if self._backend.price is None:
            return
        for variant in config["ProductionVariants"]:
            usage = Usage(variant["InstanceType"], seconds * variant["InitialInstanceCount"])
            self._journal.add_cost(usage.instance_type, usage.dollars(self._backend.price))

    def format_total(self, kind: Kind, description: Members) -> str:
        """Return the cost of the run including a job that has not been added; empty without prices."""
        if self._backend.price is None:
            return ""
        usage = measure_usage(self._backend.sagemaker, kind, description)
        running = (usage.dollars(self._backend.price) or 0.0) if usage is not None else 0.0
        return f"{format_dollars(self._journal.spent + running)} so far"

    def summarize(self) -> str:
        """Return the cost of the run in one line; empty without prices."""
        if self._backend.price is None:
            return ""
        unpriced = f", and what {', '.join(self._journal.unpriced)} costs" if self._journal.unpriced else ""
        return f"{format_dollars(self._journal.spent)} for instances, by the price table{unpriced}"
