"""The training jobs of a tuning job."""

import time
import uuid
from collections.abc import Collection, Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.events import Change
from microjobs_orchestrator.local.lifecycle.job import JobHandle
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.training.create import create as create_training_job
from microjobs_orchestrator.local.resources.training.job import TrainingJob
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.tuning.create import OBJECTIVE_HYPERPARAMETER
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.results import TrialResults
from microjobs_orchestrator.local.state import Owner

STOP_TIMEOUT_SECONDS = 130.0
"""Seconds that trials may take to end when the tuning job ends. Their hosts may take 120 of these seconds."""

TUNING_ONLY_MEMBERS = (
    "StaticHyperParameters",
    "DefinitionName",
    "TuningObjective",
    "HyperParameterRanges",
    "HyperParameterTuningResourceConfig",
)
"""Members of a TrainingJobDefinition that a training job's request does not have."""


class Trials:
    """The trials of one tuning job.

    Args:
        definition: TrainingJobDefinition of the tuning job's description.
        reports_metrics: whether to send `Change.METRIC_REPORTED` to the tuning job for each value of a trial's metrics.
    """

    def __init__(
        self, job: JobHandle, registry: Registry, definition: Mapping[str, Any], *, reports_metrics: bool
    ) -> None:
        self._job = job
        self._registry = registry
        self._definition = definition
        self._reports_metrics = reports_metrics
        self._running_trials: dict[str, TrainingJob] = {}

    def read_results(self) -> TrialResults:
        """Read all trials from the state."""
        return TrialResults(self._job.context, self._job.request)

    def start(self, name: str, hyperparameters: Mapping[str, str]) -> None:
        request, owner = self._make_request(name, hyperparameters), Owner(TUNING_JOB.arn_type, self._job.name)
        trial = TrainingJob(self._job.context, create_training_job(self._job.context, request, owner))
        self._watch(name, trial)
        self._registry.start(trial)

    def make_name(self, number: int) -> str:
        return f"{self._job.name}-{number + 1:03d}-{uuid.uuid4().hex[:8]}"

    def _make_request(self, name: str, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
        request = {member: value for member, value in self._definition.items() if member not in TUNING_ONLY_MEMBERS}
        request["TrainingJobName"] = name
        request["HyperParameters"] = {**self._definition["StaticHyperParameters"], **hyperparameters}
        # each trial has its own folder, so that no trial resumes from the checkpoints of another trial
        if config := request.get("CheckpointConfig"):
            request["CheckpointConfig"] = {**config, "S3Uri": outputs.join_key(config["S3Uri"], name)}
        return request

    def _watch(self, name: str, trial: TrainingJob) -> None:
        self._running_trials[name] = trial
        if self._reports_metrics:
            trial.metrics.on_value = lambda: self._job.events.send(Change.METRIC_REPORTED)

    def read_objective_values(self, name: str) -> list[float]:
        """Return the objective values that a trial has reported. If an earlier server has started the trial, watch its
        metrics from now on."""
        if name not in self._running_trials and isinstance(
            job := self._registry.find(_make_plan_name(name)), TrainingJob
        ):
            self._watch(name, job)
        trial, metric = (
            self._running_trials.get(name),
            self._definition["StaticHyperParameters"][OBJECTIVE_HYPERPARAMETER],
        )
        return [] if trial is None else [value for _, value in trial.metrics.list_points(metric)]

    def stop(self, name: str) -> None:
        self._registry.stop(_make_plan_name(name))

    def stop_all(self) -> None:
        """Stop all running trials, and wait until they have ended, at most STOP_TIMEOUT_SECONDS."""
        names = [trial.name for trial in self.read_results().trials if trial.status in ("InProgress", "Stopping")]
        for name in names:
            self.stop(name)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while self._are_running(names) and (timeout := deadline - time.monotonic()) > 0:
            self._job.events.wait(timeout)

    def _are_running(self, names: Collection[str]) -> bool:
        return any(self._registry.find(_make_plan_name(name)) is not None for name in names)


def _make_plan_name(name: str) -> str:
    return f"{TRAINING_JOB.arn_type}/{name}"
