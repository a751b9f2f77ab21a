"""Attempts of the steps of one execution: their start, their retries, and the reuse of earlier results."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.pipelines.cache import CACHE_KEY, Cache, make_hit_change, make_key
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError
from microjobs_orchestrator.local.resources.pipelines.definition.values import StepType
from microjobs_orchestrator.local.resources.pipelines.nodes import Node
from microjobs_orchestrator.local.resources.pipelines.retries import find_retry_delay, make_request_failure
from microjobs_orchestrator.local.resources.pipelines.scope import ExecutionValues, StepScope
from microjobs_orchestrator.local.resources.pipelines.selection import Selection
from microjobs_orchestrator.local.resources.pipelines.step_run import (
    OUTPUTS,
    REQUEST,
    RESOURCE,
    RETRY_TIME,
    Failure,
    StepChange,
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

    def start_first_attempt(self, node: Node) -> StepRun:
        """Start the first attempt of a step."""
        run = add_step(self._state, self._tools.execution_id, node.step, node.iteration)
        self.start(run)
        return run

    def start(self, run: StepRun) -> None:
        """Start an attempt, or restart it after a crash of the server. Store the reason if the step cannot start."""
        members: Mapping[str, Any] = {}
        try:
            step_change, members = self._start(run)
        except ExpressionError as error:
            step_change = StepChange(StepStatus.FAILED, failure=Failure(f"ClientError: {error}"))
        except ServiceError as error:
            step_change = StepChange(StepStatus.FAILED, run.metadata, make_request_failure(error))
        self.store(run, step_change, members)

    def _start(self, run: StepRun) -> tuple[StepChange, Mapping[str, Any]]:
        """Start an attempt, or reuse an earlier result. Return the change of the step, and other members of its
        description."""
        if self._selection is not None and run.name in self._selection.reused_steps:
            return self._selection.make_reuse_change(self._selection.find_result(self._state, run.name))
        runner = self._find_runner(run)
        arguments = runner.resolve(run.step, StepScope(self._values, run.iteration, partial(runner.choose_name, run)))
        if run.step.cache is not None and run.step.cache.is_enabled:
            key = make_key(self._pipeline, run.step, arguments)
            result = self._cache.find(run.step, key)
            if result is not None and runner.has_result(result.internal):
                return make_hit_change(result)
            run.store(StepChange(run.status, internal={CACHE_KEY: key}))
        return runner.start(run, arguments), {}

    def is_interrupted(self, run: StepRun) -> bool:
        """Return whether an earlier server ended during an attempt, so that this server must restart the attempt."""
        if run.record.internal.get(RETRY_TIME) is not None:
            return False
        return run.status is StepStatus.STARTING or self._find_runner(run).is_lost(run)

    def update(self, run: StepRun) -> None:
        """Update a step that runs: poll its attempt, or start the next attempt when its retry time is reached."""
        retry_time = run.record.internal.get(RETRY_TIME)
        if retry_time is None:
            self.store(run, self._find_runner(run).poll(run))
        elif time.time() >= retry_time:
            cleared_members = dict.fromkeys((RETRY_TIME, REQUEST, RESOURCE, OUTPUTS))
            run.store(StepChange(StepStatus.STARTING, internal=cleared_members), AttemptCount=run.attempt_count + 1)
            run.chosen_name = ""
            self.start(run)

    def stop(self, run: StepRun) -> None:
        """Stop a step, unless it is already stopping. If the end of an earlier server interrupted the step's work, stop
        the step again."""
        if run.record.internal.get(RETRY_TIME) is not None:
            self.store(run, StepChange(StepStatus.STOPPED, run.metadata))
        elif run.status is not StepStatus.STOPPING or self._find_runner(run).is_lost(run):
            self.store(run, self._find_runner(run).stop(run))

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        if run.properties is None:
            run.properties = self._find_runner(run).read_properties(run)
        return run.properties

    def _find_runner(self, run: StepRun) -> Runner:
        return self._runners[run.step.type]

    def store(self, run: StepRun, step_change: StepChange, members: Mapping[str, Any] | None = None) -> None:
        """Store a change of a step. If the step has failed and may be retried, schedule its next attempt. If it has
        succeeded, store its result in the cache."""
        if step_change.failure is not None:
            step_change = _schedule_retry(run, step_change)
        if (step_change.status, step_change.metadata) != (run.status, run.metadata) or step_change.internal:
            run.store(step_change, **(members or {}))
        if step_change.status is StepStatus.SUCCEEDED and CACHE_KEY in run.record.internal:
            self._cache.remember(run, self._values.variables["PipelineExecutionArn"])


def _schedule_retry(run: StepRun, step_change: StepChange) -> StepChange:
    """Return the change after a failed attempt: the step waits for its next attempt, or has failed."""
    failure, now = step_change.failure, time.time()
    delay = None if failure is None or run.status is StepStatus.STOPPING else find_retry_delay(run, failure, now)
    if delay is None:
        return step_change
    return StepChange(StepStatus.EXECUTING, step_change.metadata, failure, {RETRY_TIME: now + delay})
