"""Results of a tuning job's trials: members of Describe and List, and the criteria that end trials or the job early."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import MAX_TRAINING_JOBS, list_tuned_names
from microjobs_orchestrator.local.state import Owner, Query, Record

ENDED_STATUSES = ("Completed", "Failed", "Stopped")
"""The statuses of ended jobs."""

COPIED_MEMBERS = ("TrainingStartTime", "TrainingEndTime", "FailureReason")
"""Members of a training job's description that are also in its summary."""

FINAL_METRIC = "FinalHyperParameterTuningJobObjectiveMetric"

MIN_TRIALS_TO_COMPARE = 3
"""A trial is compared with the ended trials that have at least as many values as the trial. If the number of these
ended trials is smaller than this number, the trial is not compared."""


def find_parent_requests(context: Context, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the Create requests of the parent tuning jobs in a WarmStartConfig, without those of deleted parents."""
    items = request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", [])
    records = [context.state.get(TUNING_JOB.arn_type, item["HyperParameterTuningJobName"]) for item in items]
    return [record.request for record in records if record is not None]


class TrialResults:
    """Results of a tuning job's trials. `trials` are their training jobs, oldest first."""

    def __init__(self, context: Context, request: Mapping[str, Any]) -> None:
        self._context, self._request = context, request
        self._config: Mapping[str, Any] = request["HyperParameterTuningJobConfig"]
        self._objective: Mapping[str, str] = self._config["HyperParameterTuningJobObjective"]
        self._choose_best = min if self._objective["Type"] == "Minimize" else max
        query = Query(
            TRAINING_JOB.arn_type,
            owner=Owner(TUNING_JOB.arn_type, request["HyperParameterTuningJobName"]),
            descending=False,
            limit=MAX_TRAINING_JOBS,
        )
        self.trials = context.state.find(query)

    def find_objective_value(self, trial: Record) -> float | None:
        for item in trial.description.get("FinalMetricDataList", []):
            if item["MetricName"] == self._objective["MetricName"] and math.isfinite(item["Value"]):
                return float(item["Value"])
        return None

    def _list_objective_values(self) -> list[tuple[float, Record]]:
        """Return the objective values of the trials that completed or were stopped, each with its training job."""
        ended_trials = [trial for trial in self.trials if trial.status in ("Completed", "Stopped")]
        return [(value, trial) for trial in ended_trials if (value := self.find_objective_value(trial)) is not None]

    def find_best_trial(self) -> Record | None:
        return self._choose_best(self._list_objective_values(), key=lambda pair: pair[0], default=(0.0, None))[1]

    def meets_criteria(self) -> bool:
        """Return whether the trials meet one of the TuningJobCompletionCriteria."""
        criteria = self._config.get("TuningJobCompletionCriteria", {})
        target = criteria.get("TargetObjectiveMetricValue")
        patience = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
        pairs = sorted(self._list_objective_values(), key=lambda pair: pair[1].description["TrainingEndTime"])
        values = [value for value, _ in pairs]
        if not values:
            return False
        best = self._choose_best(values)
        reaches_target = target is not None and self._choose_best(best, target) == best
        return reaches_target or (patience is not None and len(values) - 1 - values.index(best) >= patience)

    def summarize(self, trial: Record) -> dict[str, Any]:
        """Return a HyperParameterTrainingJobSummary."""
        description, value, has_ended = (
            trial.description,
            self.find_objective_value(trial),
            trial.status in ENDED_STATUSES,
        )
        tuned_names = list_tuned_names(self._config["ParameterRanges"])
        summary = {
            "TrainingJobName": trial.name,
            "TrainingJobArn": trial.arn,
            "TrainingJobStatus": trial.status,
            "TuningJobName": self._request["HyperParameterTuningJobName"],
            "CreationTime": trial.created,
            "TunedHyperParameters": {name: description["HyperParameters"][name] for name in tuned_names},
            "ObjectiveStatus": "Pending" if not has_ended else "Failed" if value is None else "Succeeded",
            **{name: description[name] for name in COPIED_MEMBERS if name in description},
        }
        if summary["ObjectiveStatus"] == "Succeeded":
            summary[FINAL_METRIC] = {**self._objective, "Value": value}
        return summary

    def describe(self) -> dict[str, Any]:
        """Return the computed members of DescribeHyperParameterTuningJob."""
        statuses = [trial.status for trial in self.trials]
        objective_statuses = [self.summarize(trial)["ObjectiveStatus"] for trial in self.trials]
        return {
            "TrainingJobStatusCounters": {
                "Completed": statuses.count("Completed"),
                "InProgress": statuses.count("InProgress") + statuses.count("Stopping"),
                "RetryableError": 0,
                "NonRetryableError": statuses.count("Failed"),
                "Stopped": statuses.count("Stopped"),
            },
            "ObjectiveStatusCounters": {
                name: objective_statuses.count(name) for name in ("Succeeded", "Pending", "Failed")
            },
            **({"BestTrainingJob": self.summarize(best)} if (best := self.find_best_trial()) else {}),
            **({"OverallBestTrainingJob": overall} if (overall := self._summarize_overall_best()) else {}),
        }

    def _summarize_overall_best(self) -> dict[str, Any] | None:
        """Return the best trial of this job and its parents; None unless WarmStartType is IdenticalDataAndAlgorithm."""
        if self._request.get("WarmStartConfig", {}).get("WarmStartType") != "IdenticalDataAndAlgorithm":
            return None
        all_results = [
            self,
            *(TrialResults(self._context, parent) for parent in find_parent_requests(self._context, self._request)),
        ]
        best = [results.summarize(trial) for results in all_results if (trial := results.find_best_trial()) is not None]
        return self._choose_best(best, key=lambda item: item[FINAL_METRIC]["Value"], default=None)


def is_worse_than_median(values: Sequence[float], ended_values: Collection[Sequence[float]], *, minimise: bool) -> bool:
    """Return whether a trial's last value is worse than the median of the ended trials' averages.

    The average of an ended trial covers only its first `len(values)` values.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-early-stopping.html

    Args:
        values: the objective values of the trial.
        ended_values: the objective values of each ended trial that was not stopped early.
    """
    averages = [statistics.fmean(item[: len(values)]) for item in ended_values if len(item) >= len(values) > 0]
    if len(averages) < MIN_TRIALS_TO_COMPARE:
        return False
    median = statistics.median(averages)
    return values[-1] > median if minimise else values[-1] < median
