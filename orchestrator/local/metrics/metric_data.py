"""The data of PutMetricData: checks that botocore's model does not contain, and the conversion to statistics."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.metrics.statistics import Statistics, is_valid_sample

MAX_VALUES = 150
MAX_AGE_SECONDS = 14 * 24 * 3600.0
MAX_FUTURE_SECONDS = 2 * 3600.0


@dataclass(frozen=True)
class Datum:
    """Samples of a metric at one time."""

    name: str
    dimensions: Mapping[str, str]
    statistics: Statistics
    time: float | None
    """Whole seconds since 1970; None for the current time."""
    unit: str


def read_datum(datum: Mapping[str, Any], path: str) -> Datum:
    """Return the samples of one item of MetricData.

    Args:
        path: the item's path for error messages.

    Raises:
        ServiceError: members exclude each other, or a value is out of range.
    """
    dimensions = {item["Name"]: item["Value"] for item in datum.get("Dimensions", ())}
    if len(dimensions) < len(datum.get("Dimensions", ())):
        raise _make_error(f"{path}.Dimensions has a name twice.")
    numbers = [datum.get("Value", 0), *datum.get("Values", ()), *datum.get("Counts", ())]
    for value in (*numbers, *datum.get("StatisticValues", {}).values()):
        if not is_valid_sample(value):
            raise _make_error(f"{path}: the value {value} is outside of the range from -2^360 to 2^360.")
    statistics = _read_statistics(datum, path)
    return Datum(datum["MetricName"], dimensions, statistics, _read_time(datum, path), datum.get("Unit", "None"))


def _read_time(datum: Mapping[str, Any], path: str) -> float | None:
    if "Timestamp" not in datum:
        return None
    moment, now = float(datum["Timestamp"]), time.time()
    if not now - MAX_AGE_SECONDS <= moment <= now + MAX_FUTURE_SECONDS:
        raise _make_error(f"{path}.Timestamp must be at most two weeks in the past, and two hours in the future.")
    return float(floor(moment))


def _read_statistics(datum: Mapping[str, Any], path: str) -> Statistics:
    members = [name for name in ("Value", "Values", "StatisticValues") if name in datum]
    if len(members) != 1:
        member_list = ", ".join(members) or "none of them"
        message = f"{path} must have one of Value, Values and StatisticValues, but it has {member_list}."
        raise ServiceError("InvalidParameterCombination", message)
    if "Value" in datum:
        return Statistics.from_value(float(datum["Value"]))
    return _read_values(datum, path) if "Values" in datum else _read_statistic_set(datum["StatisticValues"], path)


def _read_values(datum: Mapping[str, Any], path: str) -> Statistics:
    values, counts = datum["Values"], datum.get("Counts")
    if not 0 < len(values) <= MAX_VALUES:
        raise _make_error(f"{path}.Values has {len(values)} items; it must have 1 to {MAX_VALUES}.")
    if counts is None:
        counts = [1.0] * len(values)
    if len(counts) != len(values):
        raise _make_error(f"{path}.Counts has {len(counts)} items, but Values has {len(values)}.")
    if min(counts) <= 0:
        raise _make_error(f"{path}.Counts must be greater than 0.")
    distribution: Counter[float] = Counter()
    for value, count in zip(values, counts, strict=True):
        distribution[float(value)] += count
    return Statistics.from_distribution(distribution)


def _read_statistic_set(members: Mapping[str, float], path: str) -> Statistics:
    count, total, minimum, maximum = (float(members[name]) for name in ("SampleCount", "Sum", "Minimum", "Maximum"))
    if count <= 0 or minimum > maximum:
        raise _make_error(f"{path}.StatisticValues must have a positive SampleCount, and a Minimum up to Maximum.")
    return Statistics(count, total, minimum, maximum)


def _make_error(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValue", message)
