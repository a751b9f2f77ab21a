"""Statistics of a series by period, under CloudWatch's names."""

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby

from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.metrics.tables import Point

MINUTE = 60

STATISTICS: Mapping[str, Callable[[Statistics], float]] = {
    "SampleCount": lambda statistics: statistics.count,
    "Average": lambda statistics: statistics.average,
    "Sum": lambda statistics: statistics.total,
    "Minimum": lambda statistics: statistics.minimum,
    "Maximum": lambda statistics: statistics.maximum,
}
PERCENTILE_PATTERN = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")


def is_statistic(name: str) -> bool:
    return name in STATISTICS or PERCENTILE_PATTERN.fullmatch(name) is not None


def compute_statistic(name: str, statistics: Statistics) -> float | None:
    """Return a statistic such as `Average` or `p99.9`; None for a percentile that is unknown."""
    if name in STATISTICS:
        return STATISTICS[name](statistics)
    match = PERCENTILE_PATTERN.fullmatch(name)
    return statistics.compute_percentile(float(match[1])) if match else None


def align(time: float, period: int) -> float:
    """Round a time down as CloudWatch does: to a multiple of the period, or to a minute if the period is longer."""
    return time // min(period, MINUTE) * min(period, MINUTE)


def summarize_periods(points: Iterable[Point], start: float, period: int) -> dict[float, Statistics]:
    """Return the statistics of each period that has points, by the start of the period.

    Args:
        points: points since `start`.
        start: the start of the first period.
        period: the length of a period in seconds.
    """

    def get_period_start(point: Point) -> float:
        return start + (point.time - start) // period * period

    groups = groupby(sorted(points, key=get_period_start), key=get_period_start)
    return {period_start: Statistics.merge(point.statistics for point in group) for period_start, group in groups}
