"""Hyperparameter tuning jobs while they run: trials, one after the other or in parallel, that a search proposes.

The state contains everything but the search itself: a restarted server reads the results so far and continues.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.kinds import JobStatus
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.control import Change, StopReason
from microjobs_orchestrator.local.lifecycle.job import SHUT_DOWN, JobHandle
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.tuning import hyperband, search, warm_start
from microjobs_orchestrator.local.resources.tuning.create import CREATED
from microjobs_orchestrator.local.resources.tuning.definition import static_hyperparameters
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import MAX_TRAINING_JOBS, grid, read_ranges
from microjobs_orchestrator.local.resources.tuning.results import Results
from microjobs_orchestrator.local.resources.tuning.stopping import is_worse_than_median, meets_criteria
from microjobs_orchestrator.local.resources.tuning.trials import Trials
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record

End = tuple[JobStatus, str | None]
"""The status and the FailureReason of a tuning job that has ended."""

ALL_FAILED = "All training jobs failed. See their FailureReason."


class TuningJob:
    """A tuning job: it starts trials until there are enough of them."""

    def __init__(self, context: Context, record: Record, registry: Registry) -> None:
        self.job = JobHandle(context, record, TUNING_JOB)
        self.control = self.job.control
        self.plan_name = self.job.plan_name
        self._created = Moment.read(record.internal.get(CREATED), record.created)
        self._config: Mapping[str, Any] = record.request["HyperParameterTuningJobConfig"]
        self._limits: Mapping[str, Any] = self._config["ResourceLimits"]
        self._ranges = read_ranges(self._config["ParameterRanges"])
        self._is_auto = self._config.get("TrainingJobEarlyStoppingType") == "Auto"
        self._is_hyperband = self._config["Strategy"] == hyperband.STRATEGY
        self._trials = Trials(self.job, registry, reports_metrics=self._is_auto or self._is_hyperband)
        self._learned: dict[str, list[float]] = {}
        """The objective values of each ended trial that the search knows."""
        self._stopped_early: set[str] = set()

    def run(self) -> None:
        self.job.run(self._run, self._fail)

    def recover(self, hosts: Sequence[Host]) -> None:  # noqa: ARG002  it has no hosts of its own
        """Continue the search. The trials of an earlier server have been resumed, or have ended."""
        self.run()

    def _fail(self, reason: str) -> None:
        self._trials.stop_all()
        self.job.fail(reason)

    # --- the search ---

    def _run(self) -> None:
        chooser = self._make_search()
        while (end := self._advance(chooser)) is None:
            pass
        status, reason = end
        self._trials.stop_all()
        self.job.end(status, FailureReason=reason)

    def _make_search(self) -> search.Search:
        config, definition = self._config, self.job.request["TrainingJobDefinition"]
        chooser = search.Search(
            config["Strategy"],
            self._ranges,
            minimise=config["HyperParameterTuningJobObjective"]["Type"] == "Minimize",
            seed=config.get("RandomSeed"),
            name=self.job.name,
            resources=hyperband.read(config, static_hyperparameters(definition)),
        )
        warm_start.teach(self.job.context, self.job.request, chooser)
        return chooser

    def _advance(self, chooser: search.Search) -> End | None:
        """Start a trial, or wait until a trial has ended. Return the end of the tuning job if it is over."""
        results = self._trials.read()
        running = self._learn(chooser, results)
        if (end := self._find_end(results)) is not None:
            return end
        if len(results.jobs) < self._max_trials and len(running) < self._limits["MaxParallelTrainingJobs"]:
            number = len(results.jobs)
            name = self._trials.new_name(number)
            self._trials.start(name, chooser.propose(name, number))
        elif running:
            self._wait(chooser, running, minimise=results.minimise)
        else:
            all_failed = all(job.status == JobStatus.FAILED for job in results.jobs)
            return (JobStatus.FAILED, ALL_FAILED) if all_failed else (JobStatus.COMPLETED, None)
        return None

    def _find_end(self, results: Results) -> End | None:
        """Return the end of a tuning job that is stopped, out of time, or good enough."""
        if self.control.reason is StopReason.SHUTDOWN:
            return JobStatus.FAILED, SHUT_DOWN
        if self.control.reason is not None or self._remaining_time() == 0:
            return JobStatus.STOPPED, None
        return (JobStatus.COMPLETED, None) if meets_criteria(results, self._config) else None

    def _remaining_time(self) -> float | None:
        """Return the seconds until MaxRuntimeInSeconds is over, or None without that limit."""
        limit: float | None = self._limits.get("MaxRuntimeInSeconds")
        return None if limit is None else max(0.0, limit - self._created.elapsed())

    @property
    def _max_trials(self) -> int:
        limit: int = self._limits.get("MaxNumberOfTrainingJobs", MAX_TRAINING_JOBS)
        return min(limit, len(grid(self._ranges))) if self._config["Strategy"] == search.GRID else limit

    def _learn(self, chooser: search.Search, results: Results) -> list[str]:
        """Report newly ended trials to the search; return the names of those that are running."""
        running = []
        for trial in results.jobs:
            if trial.name in self._learned:
                continue
            if trial.status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED):
                value = None if trial.status == JobStatus.FAILED else results.objective_value(trial)
                stopped = trial.status == JobStatus.STOPPED and self._is_hyperband
                chooser.learn(trial.name, trial.description["HyperParameters"], value, stopped=stopped)
                self._learned[trial.name] = self._trials.values(trial.name)
            else:
                chooser.adopt(trial.name, trial.description["HyperParameters"])
                running.append(trial.name)
        return running

    # --- waiting ---

    def _wait(self, chooser: search.Search, running: Sequence[str], *, minimise: bool) -> None:
        """Wait until a trial or the tuning job ends. Stop trials early meanwhile."""
        metrics_changed = True
        while metrics_changed:
            self._stop_early(chooser, running, minimise=minimise)
            events = self.control.wait(self._remaining_time())
            metrics_changed = set(events) == {Change.METRIC}

    def _stop_early(self, chooser: search.Search, running: Sequence[str], *, minimise: bool) -> None:
        """Stop the trials that Hyperband, or Auto, does not expect to become good."""
        if not (self._is_auto or self._is_hyperband):
            return
        ended = [values for name, values in self._learned.items() if name not in self._stopped_early]
        for name in running:
            if name in self._stopped_early:
                continue
            values = self._trials.values(name)
            is_bad = self._is_auto and is_worse_than_median(values, ended, minimise=minimise)
            if chooser.report(name, values) or is_bad:
                self._stopped_early.add(name)
                self._trials.stop(name)
