"""The search of a tuning job: Optuna chooses values from the request's parameter ranges.

The strategy Hyperband compares training jobs that have used the same *resource*. Here, the resource is the number of
values of the objective metric that a job has printed: see botocore's description of HyperbandStrategyConfig.

Optuna is imported only when a search begins, because the import takes half a second.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.tuning.ranges import Range, list_combinations

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

BAYESIAN, GRID, HYPERBAND = "Bayesian", "Grid", "Hyperband"

EPOCH_HYPERPARAMETERS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
"""Static hyperparameters that replace a missing MaxResource."""
MAX_RESOURCE = 20_000


@dataclass(frozen=True)
class HyperbandResources:
    """Numbers of objective values. Hyperband stops no training job before it has `minimum` values, and stops each
    training job that has more than `maximum` values."""

    minimum: int
    maximum: int


def read_resources(config: Mapping[str, Any], static_hyperparameters: Mapping[str, str]) -> HyperbandResources | None:
    """Read Hyperband's resources from a tuning job's configuration; return None for another strategy.

    Raises:
        ValidationError: members do not match the strategy, or MaxResource is unknown or too large.
    """
    if config["Strategy"] != HYPERBAND:
        if "StrategyConfig" in config:
            raise ValidationError(f"StrategyConfig is for the strategy Hyperband only, not for {config['Strategy']}.")
        return None
    if config.get("TrainingJobEarlyStoppingType", "Off") != "Off":
        raise ValidationError("TrainingJobEarlyStoppingType must be Off to use Hyperband, which stops jobs itself.")
    hyperband = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    maximum = hyperband.get("MaxResource") or _read_epochs(static_hyperparameters)
    resources = HyperbandResources(hyperband.get("MinResource", 1), maximum)
    if not resources.minimum <= resources.maximum <= MAX_RESOURCE:
        raise ValidationError(
            f"MaxResource {resources.maximum} must be at least MinResource, {resources.minimum}, and at most "
            f"{MAX_RESOURCE}."
        )
    return resources


def _read_epochs(static_hyperparameters: Mapping[str, str]) -> int:
    epochs = next(
        (static_hyperparameters[name] for name in EPOCH_HYPERPARAMETERS if name in static_hyperparameters), ""
    )
    if not re.fullmatch(r"\d{1,6}", epochs, re.ASCII):
        raise ValidationError(
            "MaxResource of HyperbandStrategyConfig is missing, and cannot be inferred from StaticHyperParameters: "
            f"set MaxResource, or set one of {', '.join(EPOCH_HYPERPARAMETERS)} to a number in StaticHyperParameters."
        )
    return int(epochs)


class TrialSearch:
    """Proposes hyperparameters for trials, and gets the trials' results.

    Args:
        name: the name of the tuning job. The same name and the same `seed` give the same search.
        resources: the resources of the strategy Hyperband; None for other strategies.
    """

    def __init__(
        self,
        strategy: str,
        ranges: tuple[Range, ...],
        *,
        minimise: bool,
        seed: int | None,
        name: str = "search",
        resources: HyperbandResources | None = None,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._ranges = {item.name: item for item in ranges}
        self._distributions = {item.name: item.make_distribution() for item in ranges}
        self._resources = resources
        self._study = optuna.create_study(
            study_name=name,  # Hyperband's brackets depend on the name of the study
            sampler=_make_sampler(strategy, seed),
            pruner=_make_pruner(resources),
            direction="minimize" if minimise else "maximize",
        )
        self._running_trials: dict[str, Trial] = {}
        self._reported_counts: dict[str, int] = {}
        """The number of reported values, by the names of running trials."""
        self._grid = list_combinations(ranges) if strategy == GRID else []

    def propose(self, name: str, number: int) -> dict[str, str]:
        """Return hyperparameters for a new trial.

        Args:
            name: the name of the trial.
            number: the number of earlier proposals.
        """
        if self._grid:
            self._study.enqueue_trial(self._grid[number])
        trial = self._running_trials[name] = self._study.ask(self._distributions)
        return {
            parameter: self._ranges[parameter].to_hyperparameter(value) for parameter, value in trial.params.items()
        }

    def add_running_trial(self, name: str, hyperparameters: Mapping[str, str]) -> None:
        """Add a running trial that an earlier server started. Do nothing for trials that this search knows."""
        if name not in self._running_trials:
            self._study.enqueue_trial(self._parse(hyperparameters))
            self._running_trials[name] = self._study.ask(self._distributions)

    def report(self, name: str, values: Sequence[float]) -> bool:
        """Report all values of a running trial; return whether Hyperband stops it."""
        if self._resources is None:
            return False
        trial, reported_count = self._running_trials[name], self._reported_counts.get(name, 0)
        self._reported_counts[name] = len(values)
        for step, value in enumerate(values[reported_count : self._resources.maximum], start=reported_count + 1):
            trial.report(value, step)
            if step >= self._resources.minimum and trial.should_prune():
                return True
        return len(values) > self._resources.maximum

    def add_result(
        self, name: str, hyperparameters: Mapping[str, str], result: float | None, *, stopped: bool = False
    ) -> None:
        """Add the result of a trial, which an earlier server may have started.

        Args:
            result: the value of the objective; None if the trial failed.
            stopped: whether Hyperband stopped the trial, so that it has fewer values than other trials.
        """
        from optuna.trial import TrialState, create_trial

        state = TrialState.FAIL if result is None else TrialState.PRUNED if stopped else TrialState.COMPLETE
        if trial := self._running_trials.pop(name, None):
            self._study.tell(trial, None if stopped else result, state=state)
            return
        params = self._parse(hyperparameters)
        self._study.add_trial(create_trial(params=params, distributions=self._distributions, value=result, state=state))

    def inherit_result(self, hyperparameters: Mapping[str, str], result: float) -> None:
        """Add the result of another tuning job's trial, if its hyperparameters lie in the ranges of this job."""
        if all(name in hyperparameters and item.contains(hyperparameters[name]) for name, item in self._ranges.items()):
            self.add_result(name="", hyperparameters=hyperparameters, result=result)

    def _parse(self, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
        return {name: item.from_hyperparameter(hyperparameters[name]) for name, item in self._ranges.items()}


def _make_sampler(strategy: str, seed: int | None) -> "BaseSampler":
    from optuna.samplers import RandomSampler, TPESampler

    if strategy in (BAYESIAN, HYPERBAND):
        # constant_liar: parallel trials must not all try similar values. n_startup_trials: only the first three trials
        # are random, so that even a short search is better than a random search.
        return TPESampler(seed=seed, n_startup_trials=3, constant_liar=True)
    return RandomSampler(seed=seed)


def _make_pruner(resources: HyperbandResources | None) -> "BasePruner":
    from optuna.pruners import HyperbandPruner, NopPruner

    if resources is None:
        return NopPruner()
    return HyperbandPruner(min_resource=resources.minimum, max_resource=resources.maximum, reduction_factor=3)
