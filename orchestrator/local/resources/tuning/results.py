"""Members of Describe and List that are computed from a tuning job's trials."""

import math
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import MAX_TRAINING_JOBS, tuned_names
from microjobs_orchestrator.local.state import Owner, Query, Record

OVER = ("Completed", "Failed", "Stopped")

FINAL = "FinalHyperParameterTuningJobObjectiveMetric"


def parents(context: Context, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the requests of the existing parents of a WarmStartConfig."""
    listed = request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", [])
    records = [context.state.get(TUNING_JOB.arn_type, item["HyperParameterTuningJobName"]) for item in listed]
    return [record.request for record in records if record is not None]


class Results:
    """The training jobs of a tuning job, oldest first."""

    def __init__(self, context: Context, request: Mapping[str, Any]) -> None:
        self.config = request["HyperParameterTuningJobConfig"]
        self.objective: Mapping[str, str] = self.config["HyperParameterTuningJobObjective"]
        self.minimise = self.objective["Type"] == "Minimize"
        self._tuned = tuned_names(self.config["ParameterRanges"])
        self._context, self._request = context, request
        query = Query(
            TRAINING_JOB.arn_type,
            owner=Owner(TUNING_JOB.arn_type, request["HyperParameterTuningJobName"]),
            descending=False,
            limit=MAX_TRAINING_JOBS,
        )
        self.jobs = context.state.find(query)

    def objective_value(self, job: Record) -> float | None:
        for item in job.description.get("FinalMetricDataList", []):
            if item["MetricName"] == self.objective["MetricName"] and math.isfinite(item["Value"]):
                return float(item["Value"])
        return None

    def values(self) -> list[float]:
        """Return the objective values of ended trials, in the order of their ends."""
        ended = sorted(
            (job for job in self.jobs if job.status in ("Completed", "Stopped")),
            key=lambda job: job.description["TrainingEndTime"],
        )
        return [value for job in ended if (value := self.objective_value(job)) is not None]

    def best(self) -> Record | None:
        """Return the trial with the best objective, of those that completed or were stopped early."""
        valued = [
            (value, job)
            for job in self.jobs
            if job.status in ("Completed", "Stopped") and (value := self.objective_value(job)) is not None
        ]
        chosen = (min if self.minimise else max)(valued, key=lambda pair: pair[0], default=None)
        return chosen[1] if chosen else None

    def summary(self, job: Record) -> dict[str, Any]:
        """Return a HyperParameterTrainingJobSummary."""
        described, value = job.description, self.objective_value(job)
        metric = {"Type": self.objective["Type"], "MetricName": self.objective["MetricName"], "Value": value}
        finished = job.status in ("Completed", "Failed", "Stopped")
        copied = ("TrainingStartTime", "TrainingEndTime", "FailureReason")
        return {
            "TrainingJobName": job.name,
            "TrainingJobArn": job.arn,
            "TrainingJobStatus": job.status,
            "TuningJobName": job.owner.name if job.owner else None,
            "CreationTime": job.created,
            "TunedHyperParameters": {name: described["HyperParameters"][name] for name in self._tuned},
            "ObjectiveStatus": "Succeeded" if finished and value is not None else "Failed" if finished else "Pending",
            **{name: described[name] for name in copied if name in described},
            **({FINAL: metric} if finished and value is not None else {}),
        }

    def describe(self) -> dict[str, Any]:
        """Return the computed members of DescribeHyperParameterTuningJob."""
        statuses = [job.status for job in self.jobs]
        objectives = [self.summary(job)["ObjectiveStatus"] for job in self.jobs]
        best = self.best()
        overall = self._overall_best()
        return {
            "TrainingJobStatusCounters": {
                "Completed": statuses.count("Completed"),
                "InProgress": statuses.count("InProgress") + statuses.count("Stopping"),
                "RetryableError": 0,
                "NonRetryableError": statuses.count("Failed"),
                "Stopped": statuses.count("Stopped"),
            },
            "ObjectiveStatusCounters": {name: objectives.count(name) for name in ("Succeeded", "Pending", "Failed")},
            **({"BestTrainingJob": self.summary(best)} if best else {}),
            **({"OverallBestTrainingJob": overall} if overall else {}),
        }

    def _overall_best(self) -> dict[str, Any] | None:
        """Return the best trial of this tuning job and its parents, if they are identical; None otherwise."""
        if self._request.get("WarmStartConfig", {}).get("WarmStartType") != "IdenticalDataAndAlgorithm":
            return None
        everyone = [self, *(Results(self._context, parent) for parent in parents(self._context, self._request))]
        best = [results.summary(job) for results in everyone if (job := results.best()) is not None]
        better = min if self.minimise else max
        return better(best, key=lambda item: item[FINAL]["Value"], default=None)
