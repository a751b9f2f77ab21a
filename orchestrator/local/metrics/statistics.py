"""Statistics of the values that a metric had in a period."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

MAX_EXACT_VALUES = 64
"""Largest number of different values that a distribution keeps. If there are more, it rounds all values."""
RATIO = 1.02
"""Ratio of neighbouring rounded values: a percentile differs by at most 1 % from an exact one."""

MAX_EXPONENT = int(math.log(1.7e308) / math.log(RATIO))

MAX_MAGNITUDE = 2.0**360
"""CloudWatch's limit for the absolute value of a sample. Sums of such samples are finite."""

Distribution = Mapping[float, float]
"""The number of samples by value."""


def is_valid(value: float) -> bool:
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
        total = math.fsum(value * count for value, count in distribution.items())
        return cls(sum(distribution.values()), total, min(distribution), max(distribution), _limit_values(distribution))

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        """Return the statistics of all samples of one or several parts."""
        parts = list(parts)
        merged: Counter[float] = Counter()
        if all(part.distribution for part in parts):
            for part in parts:
                merged.update(part.distribution)
        return cls(
            sum(part.count for part in parts),
            math.fsum(part.total for part in parts),
            min(part.minimum for part in parts),
            max(part.maximum for part in parts),
            _limit_values(merged),
        )

    @property
    def average(self) -> float:
        return self.total / self.count

    def percentile(self, percentage: float) -> float | None:
        """Return the smallest value that at least this percentage of the samples do not exceed; None if unknown."""
        if not self.distribution:
            return self.minimum if self.minimum == self.maximum else None
        rank, seen = self.count * percentage / 100, 0.0
        for value, count in sorted(self.distribution.items()):
            seen += count
            if seen >= rank * (1 - 1e-12):
                return min(max(value, self.minimum), self.maximum)
        return self.maximum

    def format_distribution(self) -> str | None:
        """Return the distribution as JSON; None if the other members state it, as those of a single value do."""
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
    """Return a distribution with a limited number of values per decade: many different values are rounded."""
    if len(distribution) <= MAX_EXACT_VALUES:
        return distribution
    rounded: Counter[float] = Counter()
    for value, count in distribution.items():
        rounded[_round(value)] += count  # type: ignore[assignment]  # a Counter adds any numbers
    return rounded


def _round(value: float) -> float:
    """Round a value to a power of RATIO."""
    if value == 0 or not math.isfinite(value):
        return value
    exponent = min(round(math.log(abs(value)) / math.log(RATIO)), MAX_EXPONENT)
    return float(f"{math.copysign(RATIO**exponent, value):.6g}")
