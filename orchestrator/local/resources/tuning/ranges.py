"""The parameter ranges of a tuning job, and what AWS refuses of them."""

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

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)
"""Python's own `int` and `float` also take `1_0`, other scripts' digits, and `nan`."""

MAX_INTEGER = 2**63 - 1

KINDS = ("Integer", "Continuous", "Categorical")
"""Kinds of ranges, in the order in which tuned hyperparameters are listed."""

MAX_TRAINING_JOBS = 1000
"""Training jobs of one tuning job; SageMaker allows fewer."""

MIN_VALUES = 2
"""Of a categorical parameter."""

WIDE = 100.0
"""Ratio of a range's ends from which on `Auto` scaling is logarithmic."""


@dataclass(frozen=True)
class Range:
    """One tuned hyperparameter."""

    name: str
    kind: str
    """`Integer`, `Continuous` or `Categorical`."""
    low: float = 0.0
    high: float = 0.0
    scaling: str = "Auto"
    values: tuple[str, ...] = ()

    @property
    def count(self) -> float:
        """How many values the range has; infinite if it is continuous."""
        if self.kind == "Categorical":
            return len(self.values)
        return self.high - self.low + 1 if self.kind == "Integer" else math.inf

    def distribution(self) -> "BaseDistribution":
        """As Optuna has it. `ReverseLogarithmic` searches logarithmically in 1 - x."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "Categorical":
            return CategoricalDistribution(tuple(dict.fromkeys(self.values)))
        log = self.scaling == "Logarithmic" or (
            self.scaling == "Auto" and self.low > 0 and self.high / self.low >= WIDE
        )
        if self.kind == "Integer":
            return IntDistribution(round(self.low), round(self.high), log=log)
        if self.scaling == "ReverseLogarithmic":
            return FloatDistribution(1 - self.high, 1 - self.low, log=True)
        return FloatDistribution(self.low, self.high, log=log)

    def to_wire(self, value: Any) -> str:
        """Optuna's value as a hyperparameter."""
        return str(1 - value if self.scaling == "ReverseLogarithmic" else value)

    def holds(self, text: str) -> bool:
        """Whether a hyperparameter's value, as it is on the wire, lies in the range."""
        if self.kind == "Categorical":
            return text in self.values
        return NUMBER.fullmatch(text) is not None and self.low <= float(text) <= self.high

    def from_wire(self, text: str) -> Any:
        """The opposite of `to_wire`."""
        if self.kind == "Categorical":
            return text
        value = float(text)
        return 1 - value if self.scaling == "ReverseLogarithmic" else round(value) if self.kind == "Integer" else value


def read_ranges(parameter_ranges: Mapping[str, Any]) -> tuple[Range, ...]:
    """Read the request's `ParameterRanges`; `check_ranges` tells whether AWS accepts them.

    Raises:
        ValidationError: an end of a range is not a number.
    """
    categorical = [
        Range(item["Name"], "Categorical", values=tuple(item["Values"]))
        for item in parameter_ranges.get("CategoricalParameterRanges", [])
    ]
    numeric = [
        Range(
            item["Name"],
            kind,
            parse_number(item["MinValue"], kind, item["Name"]),
            parse_number(item["MaxValue"], kind, item["Name"]),
            item.get("ScalingType", "Auto"),
        )
        for kind in ("Integer", "Continuous")
        for item in parameter_ranges.get(f"{kind}ParameterRanges", [])
    ]
    return (*numeric, *categorical)


def check_ranges(ranges: Sequence[Range], max_jobs: int) -> None:
    """Check ranges as AWS does when a tuning job is created.

    Args:
        ranges: all ranges of the tuning job.
        max_jobs: MaxNumberOfTrainingJobs.

    Raises:
        ValidationError: a range has fewer than two values or one value twice, the scaling does not fit the ends, or
            there are fewer combinations than training jobs.
    """
    for item in ranges:
        if item.kind == "Categorical":
            _check_values(item)
        else:
            _check_ends(item)
    combinations = math.prod(item.count for item in ranges)
    if combinations < max_jobs:
        raise ValidationError(
            f"You don't have enough combinations of hyperparameter ranges: there are {combinations}, and "
            f"MaxNumberOfTrainingJobs is {max_jobs}. Add values, or lower MaxNumberOfTrainingJobs."
        )


def _check_values(item: Range) -> None:
    if doubled := [value for value, count in Counter(item.values).items() if count > 1]:
        raise ValidationError(f"Categorical parameter {item.name!r} has {doubled[0]!r} twice. Remove duplicates.")
    if len(item.values) < MIN_VALUES:
        raise ValidationError(
            f"Categorical parameter {item.name!r} has one value, {item.values[0]!r}. Give two or more, or make it one "
            "of StaticHyperParameters."
        )


def _check_ends(item: Range) -> None:
    name, low, high = item.name, item.low, item.high
    if low > high:
        raise ValidationError(f"Parameter {name!r}: MinValue {low} must not be greater than MaxValue {high}.")
    if low == high:
        raise ValidationError(
            f"Parameter {name!r}: MinValue and MaxValue are both {low}. Widen the range, or make it one of "
            "StaticHyperParameters."
        )
    if math.isinf(float(high) - float(low)):
        raise ValidationError(f"Parameter {name!r}: the range from {low} to {high} is too wide. Narrow it.")
    if item.scaling == "Logarithmic" and low <= 0:
        raise ValidationError(f"Parameter {name!r}: Logarithmic scaling needs a MinValue above 0, not {low}.")
    if item.scaling == "ReverseLogarithmic" and (item.kind == "Integer" or low < 0 or high >= 1):
        raise ValidationError(f"Parameter {name!r}: ReverseLogarithmic scaling is for continuous ranges in [0, 1).")


def parse_number(text: str, kind: str, name: str) -> float:
    """Parse an end of a range; an `int` for an integer range.

    Raises:
        ValidationError: the text is not a finite number of this kind, with the parameter's name and kind.
    """
    is_integer = kind == "Integer"
    if not (WHOLE_NUMBER if is_integer else NUMBER).fullmatch(text.strip(" ")):
        wanted = "a whole number such as 10" if is_integer else "a number such as 0.1 or 1e-3"
        raise ValidationError(f"{kind} parameter {name!r}: {text!r} is not {wanted}.")
    number = int(text) if is_integer else float(text)
    if not math.isfinite(number) or (is_integer and abs(number) > MAX_INTEGER):
        raise ValidationError(f"{kind} parameter {name!r}: {text} is too large.")
    return number


def tuned_names(parameter_ranges: Mapping[str, Any]) -> list[str]:
    """Names of the tuned hyperparameters, in the order of `read_ranges`."""
    return [item["Name"] for kind in KINDS for item in parameter_ranges.get(f"{kind}ParameterRanges", [])]


def check_grid(ranges: Sequence[Range], max_jobs: int | None) -> None:
    """Check the ranges of the strategy Grid.

    Args:
        ranges: all ranges of the tuning job.
        max_jobs: MaxNumberOfTrainingJobs, if the request has it.

    Raises:
        ValidationError: a range is not categorical, or the number of training jobs would be above MAX_TRAINING_JOBS.
    """
    if wrong := [item.name for item in ranges if item.kind != "Categorical"]:
        raise ValidationError(f"Strategy Grid takes categorical parameters only, but {', '.join(wrong)} is numeric.")
    combinations = math.prod(len(item.values) for item in ranges)
    if min(combinations, max_jobs or combinations) > MAX_TRAINING_JOBS:
        raise ValidationError(
            f"Strategy Grid would start {combinations} training jobs, and {MAX_TRAINING_JOBS} is the maximum. "
            "Remove values, or choose the strategy Random."
        )


def grid(ranges: Sequence[Range]) -> list[dict[str, str]]:
    """Combinations of categorical values in the order of the request, MAX_TRAINING_JOBS at most."""
    names = [item.name for item in ranges]
    combinations = itertools.product(*(dict.fromkeys(item.values) for item in ranges))
    return [dict(zip(names, values, strict=True)) for values in itertools.islice(combinations, MAX_TRAINING_JOBS)]
