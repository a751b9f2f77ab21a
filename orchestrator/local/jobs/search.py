"""The search of a tuning job: Optuna over the request's parameter ranges.

Optuna is imported when a search begins: it takes half a second that no other job should pay.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.local.errors import ValidationError
from orchestrator.local.jobs.hyperband import STRATEGY, Resources

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

GRID = "Grid"

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

    def distribution(self) -> "BaseDistribution":
        """As Optuna has it. `ReverseLogarithmic` searches logarithmically in 1 - x."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "Categorical":
            return CategoricalDistribution(self.values)
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
        try:
            return self.low <= float(text) <= self.high
        except ValueError:
            return False

    def from_wire(self, text: str) -> Any:
        """The opposite of `to_wire`."""
        if self.kind == "Categorical":
            return text
        value = float(text)
        return 1 - value if self.scaling == "ReverseLogarithmic" else round(value) if self.kind == "Integer" else value


def read_ranges(parameter_ranges: Mapping[str, Any]) -> tuple[Range, ...]:
    """The request's `ParameterRanges`.

    Raises:
        ValidationError: an end is no number, or the ends do not fit each other or the scaling.
    """
    categorical = [
        Range(item["Name"], "Categorical", values=tuple(dict.fromkeys(item["Values"])))
        for item in parameter_ranges.get("CategoricalParameterRanges", [])
    ]
    numeric = [
        _numeric(item, kind)
        for kind in ("Integer", "Continuous")
        for item in parameter_ranges.get(f"{kind}ParameterRanges", [])
    ]
    return (*numeric, *categorical)


def _numeric(item: Mapping[str, str], kind: str) -> Range:
    name, texts = item["Name"], (item["MinValue"], item["MaxValue"])
    try:
        low, high = (float(int(text)) if kind == "Integer" else float(text) for text in texts)
    except ValueError as error:
        raise ValidationError(f"{kind} parameter {name!r}: {error}.") from error
    scaling = item.get("ScalingType", "Auto")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValidationError(f"Parameter {name!r}: MinValue {texts[0]} must not be greater than MaxValue {texts[1]}.")
    if scaling == "Logarithmic" and low <= 0:
        raise ValidationError(f"Parameter {name!r}: Logarithmic scaling needs a MinValue above 0, not {texts[0]}.")
    if scaling == "ReverseLogarithmic" and (kind == "Integer" or low < 0 or high >= 1):
        raise ValidationError(f"Parameter {name!r}: ReverseLogarithmic scaling is for continuous ranges in [0, 1).")
    return Range(name, kind, low, high, scaling)


def grid(ranges: tuple[Range, ...]) -> list[dict[str, str]]:
    """Every combination.

    Raises:
        ValidationError: a range is not categorical.
    """
    if wrong := [item.name for item in ranges if item.kind != "Categorical"]:
        raise ValidationError(f"Strategy Grid takes categorical parameters only, but {', '.join(wrong)} is numeric.")
    names = [item.name for item in ranges]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(item.values for item in ranges))]


class Search:
    """Proposes hyperparameters and learns from results.

    Args:
        name: of the tuning job; with `seed` it makes the search repeatable.
        resources: of Hyperband; other strategies have none.
    """

    def __init__(
        self,
        strategy: str,
        ranges: tuple[Range, ...],
        *,
        minimise: bool,
        seed: int | None,
        name: str = "search",
        resources: Resources | None = None,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._ranges = {item.name: item for item in ranges}
        self._distributions = {item.name: item.distribution() for item in ranges}
        self._resources = resources
        self._study = optuna.create_study(
            study_name=name,  # Hyperband's brackets depend on it
            sampler=_sampler(strategy, seed),
            pruner=_pruner(resources),
            direction="minimize" if minimise else "maximize",
        )
        self._open: dict[str, Trial] = {}
        self._reported: dict[str, int] = {}
        self._left = grid(ranges) if strategy == GRID else []

    def propose(self, name: str, proposed: int) -> dict[str, str]:
        """Hyperparameters for the training job of a name, after so many earlier proposals."""
        if self._left:
            self._study.enqueue_trial(self._left[proposed])
        trial = self._open[name] = self._study.ask(self._distributions)
        return {item: self._ranges[item].to_wire(value) for item, value in trial.params.items()}

    def adopt(self, name: str, values: Mapping[str, str]) -> None:
        """Take a running job that an earlier server started for its own proposal."""
        if name not in self._open:
            self._study.enqueue_trial(self._params(values))
            self._open[name] = self._study.ask(self._distributions)

    def report(self, name: str, values: Sequence[float]) -> bool:
        """Tell all values that a running job has given so far; whether Hyperband stops it."""
        if self._resources is None:
            return False
        trial, known = self._open[name], self._reported.get(name, 0)
        self._reported[name] = len(values)
        for step, value in enumerate(values[known : self._resources.most], start=known + 1):
            trial.report(value, step)
            if step >= self._resources.least and trial.should_prune():
                return True
        return len(values) > self._resources.most

    def learn(self, name: str, values: Mapping[str, str], result: float | None, *, stopped: bool = False) -> None:
        """Take a job's result, or that it has none; also of a job that an earlier server started.

        Args:
            name: the job's.
            values: its hyperparameters.
            result: the objective; None if it failed.
            stopped: Hyperband has stopped it, so that its result is one of few resources.
        """
        from optuna.trial import TrialState, create_trial

        state = TrialState.FAIL if result is None else TrialState.PRUNED if stopped else TrialState.COMPLETE
        if trial := self._open.pop(name, None):
            self._study.tell(trial, None if stopped else result, state=state)
            return
        params = self._params(values)
        self._study.add_trial(create_trial(params=params, distributions=self._distributions, value=result, state=state))

    def inherit(self, values: Mapping[str, str], result: float) -> None:
        """Take the result of another tuning job's training job, if it lies in the ranges of this one."""
        if all(name in values and known.holds(values[name]) for name, known in self._ranges.items()):
            self.learn("", values, result)

    def _params(self, values: Mapping[str, str]) -> dict[str, Any]:
        return {item: known.from_wire(values[item]) for item, known in self._ranges.items()}


def _sampler(strategy: str, seed: int | None) -> "BaseSampler":
    from optuna.samplers import RandomSampler, TPESampler

    if strategy in ("Bayesian", STRATEGY):
        # Parallel trials must not all try the same place, and few trials must soon be better than random ones.
        return TPESampler(seed=seed, n_startup_trials=3, constant_liar=True)
    return RandomSampler(seed=seed)


def _pruner(resources: Resources | None) -> "BasePruner":
    from optuna.pruners import HyperbandPruner, NopPruner

    if resources is None:
        return NopPruner()
    return HyperbandPruner(min_resource=resources.least, max_resource=resources.most, reduction_factor=3)
