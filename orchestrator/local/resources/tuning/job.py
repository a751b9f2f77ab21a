"""Hyperparameter tuning jobs: training jobs, one after the other and side by side, chosen by a search.

Everything but the search itself is in the state: a restarted server reads the results so far and goes on.
"""

import logging
import math
import statistics
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.control import Control, StopReason
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.resources.training import job as training
from microjobs_orchestrator.local.resources.training.create import create as create_training_job
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.training.metrics import Metrics
from microjobs_orchestrator.local.resources.tuning import hyperband, search, warm_start
from microjobs_orchestrator.local.resources.tuning.create import CREATED
from microjobs_orchestrator.local.resources.tuning.definition import (
    OBJECTIVE,
    RESOURCES,
    host_resources,
    static_hyperparameters,
)
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB
from microjobs_orchestrator.local.resources.tuning.ranges import (
    MAX_TRAINING_JOBS,
    grid,
    read_ranges,
)
from microjobs_orchestrator.local.resources.tuning.results import Results
from microjobs_orchestrator.local.runtimes.base import Host
from microjobs_orchestrator.local.state import Record

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
STOP_SECONDS = 130.0
"""What training jobs get to end in when the tuning job ends; they have 120 s themselves."""
ENOUGH_TO_COMPARE = 3
"""Jobs that must have got as far before another one is stopped for being worse than their median."""


class TuningJob:
    """Starts training jobs until there have been enough."""

    def __init__(self, context: Context, record: Record, registry: Registry) -> None:
        self._context = context
        self._registry = registry
        self._request = record.request
        self._definition: Mapping[str, Any] = record.request["TrainingJobDefinition"]
        self.name = record.name
        self.control = Control()
        self._created = Moment.read(record.description.get(CREATED), record.created)
        self._config: Mapping[str, Any] = record.request["HyperParameterTuningJobConfig"]
        self._limits: Mapping[str, Any] = self._config["ResourceLimits"]
        self._ranges = read_ranges(self._config["ParameterRanges"])
        self._learnt: set[str] = set()
        self._metrics: dict[str, Metrics] = {}
        self._points: dict[str, list[float]] = {}
        self._stopped_early: set[str] = set()

    @property
    def plan_name(self) -> str:
        return f"{TUNING_JOB.arn_type}/{self.name}"

    def recover(self, hosts: Sequence[Host]) -> None:  # noqa: ARG002  it has no hosts of its own
        """Continue the search. The training jobs of an earlier server have been resumed, or have ended."""
        self.run()

    def run(self) -> None:
        try:
            status, reason = self._search()
        except ServiceError as error:
            self._stop_children()
            status, reason = "Failed", f"ClientError: {error}"
        except Exception as error:
            logger.exception("%s failed", self.plan_name)
            self._stop_children()
            status, reason = "Failed", f"InternalServerError: {type(error).__name__}: {error}; see the server's log"
        changes = {"FailureReason": reason} if reason else {}
        members = {"HyperParameterTuningJobStatus": status, "HyperParameterTuningEndTime": time.time(), **changes}
        self._context.state.update(TUNING_JOB.arn_type, self.name, members, status)

    def _search(self) -> tuple[str, str]:
        """How it ended, and why if badly."""
        config = self._config
        minimise = config["HyperParameterTuningJobObjective"]["Type"] == "Minimize"
        resources = hyperband.read(config, static_hyperparameters(self._definition))
        chooser = search.Search(
            config["Strategy"],
            self._ranges,
            minimise=minimise,
            seed=config.get("RandomSeed"),
            name=self.name,
            resources=resources,
        )
        warm_start.teach(self._context, self._request, chooser)
        longest = self._limits.get("MaxRuntimeInSeconds", math.inf)
        while True:
            results = Results(self._context, self._request)
            running = self._learn(chooser, results)
            if self.control.reason is not None or self._created.elapsed() > longest:
                self._stop_children()
                shut_down = self.control.reason is StopReason.SHUTDOWN
                return (
                    ("Failed", "InternalServerError: the local server was shut down") if shut_down else ("Stopped", "")
                )
            if self._is_good_enough(results):
                self._stop_children()
                return "Completed", ""
            if len(results.jobs) < self._number and len(running) < self._limits["MaxParallelTrainingJobs"]:
                self._start_one(chooser, len(results.jobs))
                continue
            if not running:
                failed = all(job.status == "Failed" for job in results.jobs)
                return ("Failed", "All training jobs failed. See their FailureReason.") if failed else ("Completed", "")
            self._stop_early(chooser, results, running)
            time.sleep(LOOK_SECONDS)

    @property
    def _number(self) -> int:
        """How many training jobs there are to be."""
        most: int = self._limits.get("MaxNumberOfTrainingJobs", MAX_TRAINING_JOBS)
        return min(most, len(grid(self._ranges))) if self._config["Strategy"] == search.GRID else most

    def _learn(self, chooser: search.Search, results: Results) -> list[Record]:
        """Tell the search of jobs that ended since the last look; those that still run."""
        for job in results.jobs:
            if job.status in ("Completed", "Failed", "Stopped") and job.name not in self._learnt:
                value = None if job.status == "Failed" else results.objective_value(job)
                stopped = job.status == "Stopped" and self._config["Strategy"] == hyperband.STRATEGY
                chooser.learn(job.name, job.description["HyperParameters"], value, stopped=stopped)
                self._see(job.name, results)  # it may have said more since the last look
                self._learnt.add(job.name)
        running = [job for job in results.jobs if job.name not in self._learnt]
        for job in running:
            chooser.adopt(job.name, job.description["HyperParameters"])
        return running

    def _is_good_enough(self, results: Results) -> bool:
        criteria, values = self._config.get("TuningJobCompletionCriteria", {}), results.values()
        better = min if results.minimise else max
        target = criteria.get("TargetObjectiveMetricValue")
        if values and target is not None and better(better(values), target) == better(values):
            return True
        patience = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
        return bool(patience and values and len(values) - 1 - values.index(better(values)) >= patience)

    def _start_one(self, chooser: search.Search, number: int) -> None:
        name = f"{self.name}-{number + 1:03d}-{uuid.uuid4().hex[:8]}"
        record = create_training_job(
            self._context, self._training_request(name, chooser.propose(name, number)), self.name
        )
        job = training.TrainingJob(self._context, record)
        self._metrics[name] = job.metrics
        self._registry.start(job)

    def _training_request(self, name: str, tuned: Mapping[str, str]) -> dict[str, Any]:
        definition = self._definition
        left_out = ("StaticHyperParameters", "DefinitionName", "TuningObjective", "HyperParameterRanges", RESOURCES[1])
        request = {member: value for member, value in definition.items() if member not in left_out}
        request["TrainingJobName"] = name
        request["ResourceConfig"] = host_resources(definition)
        metric = self._config["HyperParameterTuningJobObjective"]["MetricName"]
        request["HyperParameters"] = {**static_hyperparameters(definition), OBJECTIVE: metric, **tuned}
        if "CheckpointConfig" in definition:  # a place of its own: a job must not go on from another one's
            uri = outputs.join(definition["CheckpointConfig"]["S3Uri"], name)
            request["CheckpointConfig"] = {**definition["CheckpointConfig"], "S3Uri": uri}
        return request

    def _stop_early(self, chooser: search.Search, results: Results, running: Sequence[Record]) -> None:
        """Stop the jobs of which Hyperband, or Auto, does not expect enough."""
        for record in running:
            self._see(record.name, results)
        is_auto = self._config.get("TrainingJobEarlyStoppingType") == "Auto"
        for record in running:
            if record.name in self._stopped_early:
                continue
            mine = self._points.get(record.name, [])
            if chooser.report(record.name, mine) or (is_auto and self._is_hopeless(mine, minimise=results.minimise)):
                self._stopped_early.add(record.name)
                self._registry.stop(f"{TRAINING_JOB.arn_type}/{record.name}")

    def _see(self, name: str, results: Results) -> None:
        """Note the values that a training job has given until now."""
        job = None if name in self._metrics else self._registry.find(f"{TRAINING_JOB.arn_type}/{name}")
        if isinstance(job, training.TrainingJob):  # of before a restart
            self._metrics[name] = job.metrics
        if name in self._metrics:
            self._points[name] = [value for _, value in self._metrics[name].points(results.objective["MetricName"])]

    def _is_hopeless(self, mine: Sequence[float], *, minimise: bool) -> bool:
        """Whether a job is worse than the median of what the others had on average when they had got as far.

        Source: "Stop Training Jobs Early" in the SageMaker developer guide.
        """
        others = [
            statistics.fmean(points[: len(mine)])
            for name, points in self._points.items()
            if name in self._learnt - self._stopped_early and len(points) >= len(mine) > 0
        ]
        if len(others) < ENOUGH_TO_COMPARE:
            return False
        median = statistics.median(others)
        return mine[-1] > median if minimise else mine[-1] < median

    def _stop_children(self) -> None:
        """Stop all training jobs that still run, and wait for them."""
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            jobs = Results(self._context, self._request).jobs
            plans = [f"{TRAINING_JOB.arn_type}/{job.name}" for job in jobs if job.status in ("InProgress", "Stopping")]
            if not sum(self._registry.stop(plan) for plan in plans):
                return
            time.sleep(LOOK_SECONDS)
