"""Statistics of the values that a metric had in a period."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import mul
from typing import Self

MAX_EXACT_VALUES = 64
"""Maximum number of different exact values in a distribution. If there are more values, all are rounded."""
ROUNDING_RATIO = 1.02
"""Ratio of neighbouring rounded values. It limits the error of a percentile to 1 %."""
_LOG_OF_ROUNDING_RATIO = math.log(ROUNDING_RATIO)

MAX_EXPONENT = int(math.log(1.7e308) / _LOG_OF_ROUNDING_RATIO)
"""The largest exponent for which the power of ROUNDING_RATIO is a finite number."""

MAX_MAGNITUDE = 2.0**360
"""CloudWatch's limit for the absolute value of a sample. Sums of such samples are finite."""

Distribution = Mapping[float, float]
"""The number of samples by value."""


def is_valid_sample(value: float) -> bool:
    """Return whether CloudWatch accepts a value: it must be a number of limited size."""
    return abs(value) <= MAX_MAGNITUDE


@dataclass(frozen=True)
class Statistics:
    """A summary of samples. It has no distribution if a client sent only a summary; percentiles are then unknown."""

    count: float
    total: float
    minimum: float
    maximum: float
    distribution: Distribution = field(default_factory=dict)

    @classmethod
    def from_value(cls, value: float) -> Self:
        return cls(1.0, value, value, value, {value: 1.0})

    @classmethod
    def from_distribution(cls, distribution: Distribution) -> Self:
        total = math.fsum(map(mul, distribution.keys(), distribution.values()))
        return cls(sum(distribution.values()), total, min(distribution), max(distribution), _limit_values(distribution))

    @classmethod
    def merge(cls, summaries: Iterable[Self]) -> Self:
        """Return one summary of the samples of all summaries."""
        summaries = list(summaries)
        merged: Counter[float] = Counter()
        if all(summary.distribution for summary in summaries):
            for summary in summaries:
                merged.update(summary.distribution)
        return cls(
            sum(summary.count for summary in summaries),
            math.fsum(summary.total for summary in summaries),
            min(summary.minimum for summary in summaries),
            max(summary.maximum for summary in summaries),
            _limit_values(merged),
        )

    @property
    def average(self) -> float:
        return self.total / self.count

    def compute_percentile(self, percentage: float) -> float | None:
        """Return the smallest value such that at least this percentage of the samples are equal or lower.

        Return None if the distribution is unknown and the samples have different values.
        """
        if not self.distribution:
            return self.minimum if self.minimum == self.maximum else None
        rank, cumulative_count = self.count * percentage / 100, 0.0
        for value, count in sorted(self.distribution.items()):
            cumulative_count += count
            if cumulative_count >= rank * (1 - 1e-12):
                return min(max(value, self.minimum), self.maximum)
        return self.maximum

    def format_distribution(self) -> str | None:
        """Return the distribution as JSON; None if it is unknown. Also return None if all samples have the same value:
        this value and the count then determine the distribution."""
        if self.minimum == self.maximum or not self.distribution:
            return None
        return json.dumps(list(self.distribution.items()), separators=(",", ":"))

    @classmethod
    def parse(cls, count: float, total: float, minimum: float, maximum: float, distribution: str | None) -> Self:
        values = dict(json.loads(distribution)) if distribution else {}
        if minimum == maximum:
            values = {minimum: count}
        return cls(count, total, minimum, maximum, values)


def _limit_values(distribution: Distribution) -> Distribution:
    """Return the distribution, with rounded values if it has too many different values."""
    if len(distribution) <= MAX_EXACT_VALUES:
        return distribution
    rounded: dict[float, float] = {}
    for value, count in distribution.items():
        rounded_value = _round(value)
        rounded[rounded_value] = rounded.get(rounded_value, 0.0) + count
    return rounded


def _round(value: float) -> float:
    """Round a value to a power of ROUNDING_RATIO."""
    if value == 0 or not math.isfinite(value):
        return value
    exponent = min(round(math.log(abs(value)) / _LOG_OF_ROUNDING_RATIO), MAX_EXPONENT)
    return math.copysign(_make_power(exponent), value)


@lru_cache(maxsize=4096)
def _make_power(exponent: int) -> float:
    """Return a power of ROUNDING_RATIO with six digits. The results are cached, because formatting takes longer than
    all other steps."""
    return float(f"{ROUNDING_RATIO**exponent:.6g}")
