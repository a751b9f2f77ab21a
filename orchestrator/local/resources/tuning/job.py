"""Execution of hyperparameter tuning jobs: a search proposes trials, and the job runs them.

The search itself is not stored. After a restart, the server reports the stored results of the trials to a new search.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.kinds import JobStatus
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Change, StopReason
from microjobs_orchestrator.local.lifecycle.job import SHUT_DOWN_REASON, JobHandle
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.training.create import CREATION_MOMENT
from microjobs_orchestrator.local.resources.tuning import warm_start
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import MAX_TRAINING_JOBS, list_combinations, read_ranges
from microjobs_orchestrator.local.resources.tuning.results import ENDED_STATUSES, TrialResults, is_worse_than_median
from microjobs_orchestrator.local.resources.tuning.search import GRID, HYPERBAND, TrialSearch, read_resources
from microjobs_orchestrator.local.resources.tuning.trials import Trials
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record

End = tuple[JobStatus, str | None]
"""The final status and the FailureReason of a tuning job."""

ALL_FAILED_REASON = "All training jobs failed. See their FailureReason."


class TuningJob:
    """A running tuning job. It starts trials until it reaches a limit or meets a completion criterion."""

    def __init__(self, context: Context, record: Record, registry: Registry) -> None:
        self.job = JobHandle(context, record, TUNING_JOB)
        self.events = self.job.events
        self.plan_name = self.job.plan_name
        self._creation_moment = Moment.read(record.internal.get(CREATION_MOMENT), record.created)
        self._definition: Mapping[str, Any] = record.description["TrainingJobDefinition"]
        self._config: Mapping[str, Any] = record.request["HyperParameterTuningJobConfig"]
        self._limits: Mapping[str, Any] = self._config["ResourceLimits"]
        self._minimise = self._config["HyperParameterTuningJobObjective"]["Type"] == "Minimize"
        self._ranges = read_ranges(self._config["ParameterRanges"])
        self._uses_auto_stopping = self._config.get("TrainingJobEarlyStoppingType") == "Auto"
        self._uses_hyperband = self._config["Strategy"] == HYPERBAND
        self._stops_trials = self._uses_hyperband or self._uses_auto_stopping
        self._trials = Trials(self.job, registry, self._definition, reports_metrics=self._stops_trials)
        self._ended_values: dict[str, list[float]] = {}
        """Objective values of the ended trials that were reported to the search, by the name of the trial."""
        self._early_stopped_names: set[str] = set()

    def run(self) -> None:
        self.job.run(self._run, self._fail)

    def recover(self, hosts: Sequence[Host]) -> None:  # noqa: ARG002  a tuning job has no hosts
        """Continue after a restart of the server. The server has already resumed the running trials."""
        self.run()

    def _fail(self, reason: str) -> None:
        self._trials.stop_all()
        self.job.fail(reason)

    # --- the search ---

    def _run(self) -> None:
        search = self._make_search()
        while (end := self._advance(search)) is None:
            pass
        status, reason = end
        self._trials.stop_all()
        self.job.end(status, FailureReason=reason)

    def _make_search(self) -> TrialSearch:
        config = self._config
        search = TrialSearch(
            config["Strategy"],
            self._ranges,
            minimise=self._minimise,
            seed=config.get("RandomSeed"),
            name=self.job.name,
            resources=read_resources(config, self._definition["StaticHyperParameters"]),
        )
        warm_start.inherit_results(self.job.context, self.job.request, search)
        return search

    def _advance(self, search: TrialSearch) -> End | None:
        """Start a trial, or wait until a trial has ended. Return the end of the tuning job; None if it continues."""
        results = self._trials.read_results()
        running_names = self._report_trials(search, results)
        if (end := self._find_end(results)) is not None:
            return end
        if len(results.trials) < self._max_trials and len(running_names) < self._limits["MaxParallelTrainingJobs"]:
            number = len(results.trials)
            name = self._trials.make_name(number)
            self._trials.start(name, search.propose(name, number))
        elif running_names:
            self._wait(search, running_names)
        else:
            all_failed = all(trial.status == JobStatus.FAILED for trial in results.trials)
            return (JobStatus.FAILED, ALL_FAILED_REASON) if all_failed else (JobStatus.COMPLETED, None)
        return None

    def _find_end(self, results: TrialResults) -> End | None:
        """Return the end of a tuning job that is stopped, is out of time, or meets a criterion; otherwise None."""
        if self.events.stop_reason is StopReason.SHUTDOWN:
            return JobStatus.FAILED, SHUT_DOWN_REASON
        if self.events.stop_reason is not None or self._compute_remaining_time() == 0:
            return JobStatus.STOPPED, None
        return (JobStatus.COMPLETED, None) if results.meets_criteria() else None

    def _compute_remaining_time(self) -> float | None:
        """Return the seconds that remain of MaxRuntimeInSeconds; None if the job has no such limit."""
        limit: float | None = self._limits.get("MaxRuntimeInSeconds")
        return None if limit is None else max(0.0, limit - self._creation_moment.elapsed())

    @property
    def _max_trials(self) -> int:
        limit: int = self._limits.get("MaxNumberOfTrainingJobs", MAX_TRAINING_JOBS)
        return min(limit, len(list_combinations(self._ranges))) if self._config["Strategy"] == GRID else limit

    def _report_trials(self, search: TrialSearch, results: TrialResults) -> list[str]:
        """Report newly ended trials and all running trials to the search. Return the names of the running trials."""
        running_names = []
        for trial in results.trials:
            if trial.name in self._ended_values:
                continue
            if trial.status in ENDED_STATUSES:
                value = None if trial.status == JobStatus.FAILED else results.find_objective_value(trial)
                was_pruned = trial.status == JobStatus.STOPPED and self._uses_hyperband
                search.add_result(trial.name, trial.description["HyperParameters"], value, stopped=was_pruned)
                self._ended_values[trial.name] = self._trials.read_objective_values(trial.name)
            else:
                search.add_running_trial(trial.name, trial.description["HyperParameters"])
                running_names.append(trial.name)
        return running_names

    # --- waiting ---

    def _wait(self, search: TrialSearch, running_names: Sequence[str]) -> None:
        """Wait until a trial or the tuning job ends. Apply early stopping when new metrics arrive."""
        while True:
            self._stop_early(search, running_names)
            if set(self.events.wait(self._compute_remaining_time())) != {Change.METRIC_REPORTED}:
                return

    def _stop_early(self, search: TrialSearch, running_names: Sequence[str]) -> None:
        """Stop the running trials that Hyperband, or early stopping of type Auto, rejects."""
        if not self._stops_trials:
            return
        ended_values = [values for name, values in self._ended_values.items() if name not in self._early_stopped_names]
        for name in running_names:
            if name in self._early_stopped_names:
                continue
            values = self._trials.read_objective_values(name)
            is_worse = self._uses_auto_stopping and is_worse_than_median(values, ended_values, minimise=self._minimise)
            should_stop = search.report(name, values)
            if should_stop or is_worse:
                self._early_stopped_names.add(name)
                self._trials.stop(name)
