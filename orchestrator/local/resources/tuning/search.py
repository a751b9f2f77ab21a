"""The search of a tuning job: Optuna over the request's parameter ranges.

Optuna is imported when a search begins, because its import takes half a second.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.local.resources.tuning.hyperband import STRATEGY, Resources
from microjobs_orchestrator.local.resources.tuning.ranges import Range, grid

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

GRID = "Grid"


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
        """Return hyperparameters for a new trial, after so many earlier proposals."""
        if self._left:
            self._study.enqueue_trial(self._left[proposed])
        trial = self._open[name] = self._study.ask(self._distributions)
        return {item: self._ranges[item].to_wire(value) for item, value in trial.params.items()}

    def adopt(self, name: str, values: Mapping[str, str]) -> None:
        """Add a running trial that an earlier server started."""
        if name not in self._open:
            self._study.enqueue_trial(self._params(values))
            self._open[name] = self._study.ask(self._distributions)

    def report(self, name: str, values: Sequence[float]) -> bool:
        """Report all values of a running trial; return whether Hyperband stops it."""
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
        """Add the result of a trial, if it has one; also of a trial that an earlier server started.

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
        """Add the result of another tuning job's trial, if it lies in the ranges of this one."""
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
