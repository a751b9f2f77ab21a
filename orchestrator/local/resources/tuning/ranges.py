"""The parameter ranges of a tuning job, and AWS's checks of them."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.local.errors import ValidationError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NUMBER_PATTERN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER_PATTERN = re.compile(r"[+-]?\d+", re.ASCII)
"""Python's own `int` and `float` would also accept `1_0`, digits of other scripts, and `nan`."""

MAX_INTEGER = 2**63 - 1

INTEGER, CONTINUOUS, CATEGORICAL = RANGE_TYPES = ("Integer", "Continuous", "Categorical")
"""Types of ranges, in the order in which tuned hyperparameters are listed."""

MAX_TRAINING_JOBS = 1000
"""Maximum number of training jobs of one tuning job. Only the strategy Grid without MaxNumberOfTrainingJobs can reach
it: MaxNumberOfTrainingJobs is at most 750, as on SageMaker."""

LOGARITHMIC_RATIO = 100.0
"""Minimum ratio of a range's ends for which `Auto` scaling is logarithmic."""


@dataclass(frozen=True)
class Range:
    """One tuned hyperparameter."""

    name: str
    range_type: str
    low: float = 0.0
    high: float = 0.0
    scaling: str = "Auto"
    values: tuple[str, ...] = ()
    """The values of a categorical range."""

    @property
    def count(self) -> float:
        """The number of values in the range; infinite if it is continuous."""
        if self.range_type == CATEGORICAL:
            return len(self.values)
        return self.high - self.low + 1 if self.range_type == INTEGER else math.inf

    def make_distribution(self) -> "BaseDistribution":
        """Return Optuna's distribution. For `ReverseLogarithmic`, it is a logarithmic distribution of 1 - x."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.range_type == CATEGORICAL:
            return CategoricalDistribution(tuple(dict.fromkeys(self.values)))
        is_wide = self.low > 0 and self.high / self.low >= LOGARITHMIC_RATIO
        log = self.scaling == "Logarithmic" or (self.scaling == "Auto" and is_wide)
        if self.range_type == INTEGER:
            return IntDistribution(round(self.low), round(self.high), log=log)
        if self.scaling == "ReverseLogarithmic":
            return FloatDistribution(1 - self.high, 1 - self.low, log=True)
        return FloatDistribution(self.low, self.high, log=log)

    def to_hyperparameter(self, value: Any) -> str:
        """Return the hyperparameter for a value of Optuna's distribution."""
        return str(1 - value if self.scaling == "ReverseLogarithmic" else value)

    def from_hyperparameter(self, text: str) -> Any:
        """Return the value of Optuna's distribution for a hyperparameter."""
        if self.range_type == CATEGORICAL:
            return text
        value = float(text)
        return (
            1 - value if self.scaling == "ReverseLogarithmic" else round(value) if self.range_type == INTEGER else value
        )

    def contains(self, text: str) -> bool:
        """Return whether a hyperparameter lies in the range."""
        if self.range_type == CATEGORICAL:
            return text in self.values
        return NUMBER_PATTERN.fullmatch(text) is not None and self.low <= float(text) <= self.high


def read_ranges(parameter_ranges: Mapping[str, Any]) -> tuple[Range, ...]:
    """Read the request's `ParameterRanges`. `check_ranges` checks whether AWS accepts them.

    Raises:
        ValidationError: an end of a range is not a number, is not whole in an integer range, or is too large.
    """
    return tuple(
        _read_range(item, range_type)
        for range_type in RANGE_TYPES
        for item in parameter_ranges.get(f"{range_type}ParameterRanges", [])
    )


def _read_range(item: Mapping[str, Any], range_type: str) -> Range:
    name = item["Name"]
    if range_type == CATEGORICAL:
        return Range(name, range_type, values=tuple(item["Values"]))
    low, high = (_parse_number(item[member], range_type, name) for member in ("MinValue", "MaxValue"))
    return Range(name, range_type, low, high, item.get("ScalingType", "Auto"))


def _parse_number(text: str, range_type: str, name: str) -> float:
    """Parse an end of a range; return an `int` for an integer range."""
    is_integer = range_type == INTEGER
    if not (WHOLE_NUMBER_PATTERN if is_integer else NUMBER_PATTERN).fullmatch(text.strip(" ")):
        expected = "a whole number such as 10" if is_integer else "a number such as 0.1 or 1e-3"
        raise ValidationError(f"{range_type} parameter {name!r}: {text!r} is not {expected}.")
    number = int(text) if is_integer else float(text)
    if not math.isfinite(number) or (is_integer and abs(number) > MAX_INTEGER):
        raise ValidationError(f"{range_type} parameter {name!r}: {text} is too large.")
    return number


def list_tuned_names(parameter_ranges: Mapping[str, Any]) -> list[str]:
    """Return the names of the tuned hyperparameters, in the order of `read_ranges`."""
    return [
        item["Name"] for range_type in RANGE_TYPES for item in parameter_ranges.get(f"{range_type}ParameterRanges", [])
    ]


def check_ranges(ranges: Sequence[Range], max_jobs: int | None, *, is_grid: bool) -> None:
    """Check ranges as AWS does when a tuning job is created.

    Args:
        ranges: all ranges of the tuning job.
        max_jobs: MaxNumberOfTrainingJobs, if the request has it.
        is_grid: whether the strategy is Grid.

    Raises:
        ValidationError: a range has fewer than two values, contains a value twice, or is too wide; its scaling does not
            fit its ends; the strategy does not support the range; or the number of training jobs is unknown, too large,
            or larger than the number of combinations.
    """
    numeric_names = [item.name for item in ranges if item.range_type != CATEGORICAL]
    if is_grid and numeric_names:
        raise ValidationError(
            f"Strategy Grid takes categorical parameters only, but these are numeric: {', '.join(numeric_names)}."
        )
    if not is_grid and max_jobs is None:
        raise ValidationError("ResourceLimits.MaxNumberOfTrainingJobs is required.")
    for item in ranges:
        if error := _find_categorical_error(item) if item.range_type == CATEGORICAL else _find_numeric_error(item):
            raise ValidationError(f"{item.range_type} parameter {item.name!r}: {error}")
    _check_count(math.prod(item.count for item in ranges), max_jobs, is_grid=is_grid)


def _check_count(combination_count: float, max_jobs: int | None, *, is_grid: bool) -> None:
    if is_grid and min(combination_count, max_jobs or combination_count) > MAX_TRAINING_JOBS:
        raise ValidationError(
            f"Strategy Grid would start {combination_count} training jobs, and {MAX_TRAINING_JOBS} is the maximum. "
            "Remove values, or choose the strategy Random."
        )
    if max_jobs is not None and combination_count < max_jobs:
        raise ValidationError(
            f"You don't have enough combinations of hyperparameter ranges: there are {combination_count}, and "
            f"MaxNumberOfTrainingJobs is {max_jobs}. Add values, or lower MaxNumberOfTrainingJobs."
        )


def _find_categorical_error(item: Range) -> str:
    """Return an error message for a categorical range; an empty string if it is valid."""
    if duplicates := [value for value, count in Counter(item.values).items() if count > 1]:
        return f"{duplicates[0]!r} is listed twice. Remove duplicates."
    if len(item.values) == 1:
        return (
            f"there is only one value, {item.values[0]!r}. Add values, or move the parameter to StaticHyperParameters."
        )
    return ""


def _find_numeric_error(item: Range) -> str:
    low, high = item.low, item.high
    if low > high:
        return f"MinValue {low} must not be greater than MaxValue {high}."
    if low == high:
        return f"MinValue and MaxValue are both {low}. Widen the range, or move the parameter to StaticHyperParameters."
    if math.isinf(float(high) - float(low)):
        return f"the range from {low} to {high} is too wide. Narrow it."
    if item.scaling == "Logarithmic" and low <= 0:
        return f"Logarithmic scaling needs a MinValue above 0, not {low}."
    if item.scaling == "ReverseLogarithmic" and (item.range_type == INTEGER or low < 0 or high >= 1):
        return "ReverseLogarithmic scaling is for continuous ranges in [0, 1)."
    return ""


def list_combinations(ranges: Sequence[Range]) -> list[dict[str, str]]:
    """Return the combinations of categorical values in the order of the request, MAX_TRAINING_JOBS at most."""
    names = [item.name for item in ranges]
    combinations = itertools.product(*(dict.fromkeys(item.values) for item in ranges))
    return [dict(zip(names, values, strict=True)) for values in itertools.islice(combinations, MAX_TRAINING_JOBS)]
