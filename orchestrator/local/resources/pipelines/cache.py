"""Reuse of the results of earlier steps with the same arguments.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching.html
"""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.policies import parse_duration
from microjobs_orchestrator.local.resources.pipelines.definition.values import Step, StepType
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE
from microjobs_orchestrator.local.resources.pipelines.step_run import OUTPUTS, RESOURCE, StepChange, StepRun, StepStatus
from microjobs_orchestrator.local.state import NameTakenError, Owner, Query, Record, State

RESULT_KIND = "pipeline-step-result"
"""The kind of the records that store results."""
CACHE_KEY = "CacheKey"
"""Key of a step's internal state. Its value is the name of the record that stores the step's result."""
SOURCE_ARN = "SourcePipelineExecutionArn"

_TUNING_DEFINITION_MEMBERS = (
    "AlgorithmSpecification",
    "HyperParameterRanges",
    "InputDataConfig",
    "StaticHyperParameters",
    "TuningObjective",
)
KEY_MEMBERS: Mapping[StepType, Mapping[str, tuple[str, ...]]] = {
    StepType.PROCESSING: {"AppSpecification": (), "Environment": (), "ProcessingInputs": ()},
    StepType.TRAINING: {
        "AlgorithmSpecification": (),
        "CheckpointConfig": (),
        "DebugHookConfig": (),
        "DebugRuleConfigurations": (),
        "Environment": (),
        "HyperParameters": (),
        "InputDataConfig": (),
    },
    StepType.TUNING: {
        "HyperParameterTuningJobConfig": (),
        "TrainingJobDefinition": _TUNING_DEFINITION_MEMBERS,
        "TrainingJobDefinitions": (),
    },
    StepType.TRANSFORM: {"DataProcessing": (), "Environment": (), "ModelName": (), "TransformInput": ()},
}
"""The arguments that AWS compares, and for each argument, the members that AWS compares. If no members are listed, AWS
compares the whole argument. For other types of steps, AWS compares all arguments.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-default-keys.html
"""


def make_key(pipeline: str, step: Step, arguments: Mapping[str, Any]) -> str:
    """Return the name under which the result of a step with resolved arguments is stored."""
    compared_arguments = _select_compared_arguments(step.type, arguments)
    text = json.dumps([step.type, compared_arguments], sort_keys=True)
    return f"{pipeline}/{step.name}/{hashlib.sha256(text.encode()).hexdigest()}"


def _select_compared_arguments(step_type: StepType, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    if step_type not in KEY_MEMBERS:
        return arguments
    compared_members = {name: members for name, members in KEY_MEMBERS[step_type].items() if name in arguments}
    return {
        name: {member: arguments[name].get(member) for member in members} if members else arguments[name]
        for name, members in compared_members.items()
    }


class Cache:
    """The results of the steps of one pipeline."""

    def __init__(self, state: State, pipeline: str) -> None:
        self._state = state
        self._pipeline = pipeline

    def find(self, step: Step, key: str) -> Record | None:
        """Return the latest result with a key, unless it has expired."""
        record = self._state.get(RESULT_KIND, key)
        if record is None or step.cache is None:
            return None
        expiry = parse_duration(step.cache.expire_after) if step.cache.expire_after else None
        return None if expiry is not None and time.time() - record.created > expiry.total_seconds() else record

    def remember(self, run: StepRun, execution_arn: str) -> None:
        """Store the result of a step that succeeded, in place of an earlier result with the same key."""
        key, internal = run.record.internal[CACHE_KEY], run.record.internal
        result_members = {name: internal[name] for name in (RESOURCE, OUTPUTS) if name in internal}
        result = {"Metadata": run.metadata, SOURCE_ARN: execution_arn}
        self._state.delete(RESULT_KIND, key)
        try:
            owner = Owner(PIPELINE.arn_type, self._pipeline)
            self._state.add(RESULT_KIND, key, "", "", {}, result, internal=result_members, owner=owner)
        except NameTakenError:  # another execution has just stored an equivalent result
            return


def forget_result(state: State, run: StepRun) -> None:
    """Delete the stored result of a step whose outputs are about to be deleted."""
    if (key := run.record.internal.get(CACHE_KEY)) is not None:
        state.delete(RESULT_KIND, key)


def make_hit_change(result: Record) -> tuple[StepChange, Mapping[str, Any]]:
    """Return the change that makes a step with a cached result successful, and members of its description."""
    step_change = StepChange(StepStatus.SUCCEEDED, result.description["Metadata"], internal=result.internal)
    return step_change, {"CacheHitResult": {SOURCE_ARN: result.description[SOURCE_ARN]}}


def forget_results(state: State, pipeline: str) -> None:
    """Delete the results of a pipeline that is deleted."""
    query = Query(RESULT_KIND, owner=Owner(PIPELINE.arn_type, pipeline))
    while records := state.find(query):
        for record in records:
            state.delete(RESULT_KIND, record.name)
