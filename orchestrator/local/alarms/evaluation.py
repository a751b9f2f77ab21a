"""The state of an alarm according to the values of its metric.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from microjobs_orchestrator.local.metrics.metric_math import ValuesByTime

OK, ALARM, INSUFFICIENT_DATA = "OK", "ALARM", "INSUFFICIENT_DATA"

MISSING, IGNORE, BREACHING, NOT_BREACHING = "missing", "ignore", "breaching", "notBreaching"
TREATMENTS = (MISSING, IGNORE, BREACHING, NOT_BREACHING)
"""The values of TreatMissingData."""


class Comparison(NamedTuple):
    breaches: Callable[[float, float], bool]
    """Returns whether a value breaches a threshold."""
    text: str


COMPARISONS = {
    "GreaterThanOrEqualToThreshold": Comparison(operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": Comparison(operator.gt, "greater than"),
    "LessThanThreshold": Comparison(operator.lt, "less than"),
    "LessThanOrEqualToThreshold": Comparison(operator.le, "less than or equal to"),
}

EXTRA_PERIODS = 2
"""Number of periods before the evaluation periods. Their values replace missing values, as on AWS."""


class Evaluation(NamedTuple):
    state: str
    reason: str


def evaluate(alarm: Mapping[str, Any], values: ValuesByTime) -> Evaluation:
    """Return the state of an alarm, and a sentence about its values.

    Args:
        alarm: the description of the alarm. Its StateValue is the current state.
        values: the values of the metric by time, in the last EvaluationPeriods + EXTRA_PERIODS periods.
    """
    periods: int = alarm["EvaluationPeriods"]
    latest = [values[time] for time in sorted(values)[-periods:]]
    breach_count = sum(COMPARISONS[alarm["ComparisonOperator"]].breaches(value, alarm["Threshold"]) for value in latest)
    return Evaluation(_find_state(alarm, len(latest), breach_count), _describe(alarm, latest, breach_count))


def _find_state(alarm: Mapping[str, Any], value_count: int, breach_count: int) -> str:
    """Return the state for the number of values, and the number of values that breach the threshold."""
    missing_count, treatment = alarm["EvaluationPeriods"] - value_count, alarm.get("TreatMissingData", MISSING)
    if breach_count + (missing_count if treatment == BREACHING else 0) >= get_required_count(alarm):
        return ALARM
    if not missing_count or treatment in (BREACHING, NOT_BREACHING) or breach_count < value_count:
        return OK
    if treatment == IGNORE:
        state: str = alarm["StateValue"]
        return state
    # Values are missing, and all existing values breach the threshold, if there are any.
    return ALARM if value_count else INSUFFICIENT_DATA


def get_required_count(alarm: Mapping[str, Any]) -> int:
    """Return the number of values that must breach the threshold."""
    count: int = alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
    return count


def _describe(alarm: Mapping[str, Any], latest: Sequence[float], breach_count: int) -> str:
    periods = alarm["EvaluationPeriods"]
    if not latest:
        return f"No value of the metric in the last {periods} periods."
    listed = ", ".join(f"{value:g}" for value in latest)
    comparison = f"{COMPARISONS[alarm['ComparisonOperator']].text} the threshold {alarm['Threshold']:g}"
    return f"{breach_count} of the last {len(latest)} values [{listed}] are {comparison}. EvaluationPeriods: {periods}."
