"""What a job has cost so far, from what AWS describes: instance seconds times a price an hour.

Storage, requests and logs cost as well, but little beside the instances.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.runs.kinds import PROCESSING, TRAINING, TUNING, Kind, Members

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

HOUR = 3600.0

Price = Callable[[str], float | None]
"""Dollars that an instance of a type costs an hour; None if that is not known."""


@dataclass(frozen=True)
class Usage:
    """Time of instances that AWS bills."""

    instance_type: str
    seconds: float
    """Of all instances together."""

    def dollars(self, price: Price) -> float | None:
        an_hour = price(self.instance_type)
        return None if an_hour is None else self.seconds / HOUR * an_hour


def usage(sagemaker: "SageMakerClient", kind: Kind, description: Members) -> Usage | None:
    """What a job has used until now, or until its end; None for what is not a job."""
    if kind is PROCESSING:
        cluster = description["ProcessingResources"]["ClusterConfig"]
        return Usage(cluster["InstanceType"], _wall(description, "Processing") * cluster["InstanceCount"])
    if kind is TRAINING:
        return _training(description)
    if kind is TUNING:
        instance_type = description["TrainingJobDefinition"]["ResourceConfig"]["InstanceType"]
        return Usage(instance_type, sum(_trials(sagemaker, description)))
    return None


def _training(description: Members) -> Usage:
    """Facts: BillableTimeInSeconds is there when the job has ended, and less than its time on spot instances."""
    resources = description["ResourceConfig"]
    seconds = description.get("BillableTimeInSeconds")
    if seconds is None:
        seconds = _wall(description, "Training")
    return Usage(resources["InstanceType"], seconds * resources["InstanceCount"])


def _trials(sagemaker: "SageMakerClient", tuning: Members) -> list[float]:
    """Seconds of each training job: of those that go on by the clock, when all is over as they are billed."""
    over = tuning["HyperParameterTuningJobStatus"] not in TUNING.going
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=tuning["HyperParameterTuningJobName"]
    )
    summaries: list[Mapping[str, Any]] = [
        summary for page in pages for summary in page["TrainingJobSummaries"] if "TrainingStartTime" in summary
    ]
    if not over:
        return [_wall(summary, "Training") for summary in summaries]
    jobs = (sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"]) for job in summaries)
    return [_training(job).seconds for job in jobs]


def _wall(description: Members, what: str) -> float:
    """Seconds by the clock; none before the start, when instances are prepared and not yet billed."""
    if (start := description.get(f"{what}StartTime")) is None:
        return 0.0
    end = description.get(f"{what}EndTime") or datetime.now(UTC)
    return max(float((end - start).total_seconds()), 0.0)


def dollars(amount: float) -> str:
    """`$1.23`, and `$0.0042` of what is less than ten cents."""
    return f"${amount:.2f}" if amount >= 0.1 or amount < 0.00005 else f"${amount:.4f}"
