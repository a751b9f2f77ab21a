"""Attempts of the steps of one execution: their start, their retries, and the reuse of earlier results."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.pipelines.cache import CACHE_KEY, Cache, make_hit, make_key
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError
from microjobs_orchestrator.local.resources.pipelines.definition.values import StepType
from microjobs_orchestrator.local.resources.pipelines.nodes import Node
from microjobs_orchestrator.local.resources.pipelines.retries import find_delay, make_refusal
from microjobs_orchestrator.local.resources.pipelines.scope import ExecutionValues, StepScope
from microjobs_orchestrator.local.resources.pipelines.selection import Selection
from microjobs_orchestrator.local.resources.pipelines.step_run import (
    OUTPUTS,
    REQUEST,
    RESOURCE,
    RETRY_TIME,
    Failure,
    Progress,
    StepRun,
    StepStatus,
    add_step,
)
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner, Tools


class Attempts:
    """Starts, watches and stops the steps of one execution."""

    def __init__(
        self,
        tools: Tools,
        runners: Mapping[StepType, Runner],
        values: ExecutionValues,
        selection: Selection | None,
    ) -> None:
        self._tools = tools
        self._runners = runners
        self._values = values
        self._selection = selection
        self._state = tools.context.state
        self._pipeline = values.variables["PipelineName"]
        self._cache = Cache(self._state, self._pipeline)

    def begin(self, node: Node) -> StepRun:
        """Start the first attempt of a step."""
        run = add_step(self._state, self._tools.execution, node.step, node.iteration)
        self.start(run)
        return run

    def start(self, run: StepRun) -> None:
        """Start an attempt, or restart it after a crash of the server. Store the reason if the step cannot start."""
        members: Mapping[str, Any] = {}
        try:
            progress, members = self._start(run)
        except ExpressionError as error:
            progress = Progress(StepStatus.FAILED, failure=Failure(f"ClientError: {error}"))
        except ServiceError as error:
            progress = Progress(StepStatus.FAILED, run.metadata, make_refusal(error))
        self.store(run, progress, members)

    def _start(self, run: StepRun) -> tuple[Progress, Mapping[str, Any]]:
        """Return the progress of the step, and further members of its description."""
        if self._selection is not None and run.name in self._selection.reused:
            return self._selection.make_result(self._selection.find_result(self._state, run.name))
        runner = self._runner(run)
        arguments = runner.resolve(run.step, StepScope(self._values, run.iteration, partial(runner.choose_name, run)))
        if run.step.cache is not None and run.step.cache.is_enabled:
            key = make_key(self._pipeline, run.step, arguments)
            result = self._cache.find(run.step, key)
            if result is not None and runner.has_result(result.internal):
                return make_hit(result)
            run.store(Progress(run.status, internal={CACHE_KEY: key}))
        return runner.start(run, arguments), {}

    def is_interrupted(self, run: StepRun) -> bool:
        """Return whether an attempt must be restarted, because an earlier server ended during it."""
        if run.record.internal.get(RETRY_TIME) is not None:
            return False
        return run.status is StepStatus.STARTING or self._runner(run).is_lost(run)

    def look(self, run: StepRun) -> None:
        """Update a step that runs: poll its attempt, or start the next attempt when its retry time is reached."""
        retry_time = run.record.internal.get(RETRY_TIME)
        if retry_time is None:
            self.store(run, self._runner(run).poll(run))
        elif time.time() >= retry_time:
            cleared = dict.fromkeys((RETRY_TIME, REQUEST, RESOURCE, OUTPUTS))
            run.store(Progress(StepStatus.STARTING, internal=cleared), AttemptCount=run.attempts + 1)
            run.chosen_name = ""
            self.start(run)

    def stop(self, run: StepRun) -> None:
        """Stop a step, unless it is already stopping. Stop it again if its work ended with an earlier server."""
        if run.record.internal.get(RETRY_TIME) is not None:
            self.store(run, Progress(StepStatus.STOPPED, run.metadata))
        elif run.status is not StepStatus.STOPPING or self._runner(run).is_lost(run):
            self.store(run, self._runner(run).stop(run))

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        if run.properties is None:
            run.properties = self._runner(run).read_properties(run)
        return run.properties

    def _runner(self, run: StepRun) -> Runner:
        return self._runners[run.step.type]

    def store(self, run: StepRun, progress: Progress, members: Mapping[str, Any] | None = None) -> None:
        """Store the progress of a step. If it succeeded, store its result in the cache."""
        if progress.failure is not None:
            progress = _schedule_retry(run, progress)
        if (progress.status, progress.metadata) != (run.status, run.metadata) or progress.internal:
            run.store(progress, **(members or {}))
        if progress.status is StepStatus.SUCCEEDED and CACHE_KEY in run.record.internal:
            self._cache.remember(run, self._values.variables["PipelineExecutionArn"])


def _schedule_retry(run: StepRun, progress: Progress) -> Progress:
    """Return the progress of a failed attempt: the step waits for its next attempt, or has failed."""
    failure, now = progress.failure, time.time()
    delay = None if failure is None or run.status is StepStatus.STOPPING else find_delay(run, failure, now)
    if delay is None:
        return progress
    return Progress(StepStatus.EXECUTING, progress.metadata, failure, {RETRY_TIME: now + delay})
