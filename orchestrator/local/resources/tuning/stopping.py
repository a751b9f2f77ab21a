"""Criteria that end a tuning job, or one of its trials, early."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.resources.tuning.results import Results

MIN_TRIALS_TO_COMPARE = 3
"""Trials that must have reported as many values before a trial is stopped for being worse than their median."""


def meets_criteria(results: Results, config: Mapping[str, Any]) -> bool:
    """Return whether the trials meet one of the TuningJobCompletionCriteria."""
    criteria, values = config.get("TuningJobCompletionCriteria", {}), results.values()
    better = min if results.minimise else max
    target = criteria.get("TargetObjectiveMetricValue")
    if values and target is not None and better(better(values), target) == better(values):
        return True
    patience = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
    return bool(patience and values and len(values) - 1 - values.index(better(values)) >= patience)


def is_worse_than_median(values: Sequence[float], ended: Collection[Sequence[float]], *, minimise: bool) -> bool:
    """Return whether a trial is worse than the median of the averages of ended trials, over as many values.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-early-stopping.html

    Args:
        values: the objective values of the trial.
        ended: the values of trials that ended by themselves.
    """
    averages = [statistics.fmean(other[: len(values)]) for other in ended if len(other) >= len(values) > 0]
    if len(averages) < MIN_TRIALS_TO_COMPARE:
        return False
    median = statistics.median(averages)
    return values[-1] > median if minimise else values[-1] < median
