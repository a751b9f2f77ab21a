"""Events about changes of the statuses of executions and of their steps.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.parse import parse_definition
from microjobs_orchestrator.local.resources.pipelines.execution import DEFINITION
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE_EXECUTION
from microjobs_orchestrator.local.resources.pipelines.step_run import FINAL_STATUSES
from microjobs_orchestrator.local.resources.state_changes import ResourceEvent
from microjobs_orchestrator.local.state import Record

EXECUTION_EVENT_TYPE = "SageMaker Model Building Pipeline Execution Status Change"
STEP_EVENT_TYPE = "SageMaker Model Building Pipeline Execution Step Status Change"

EXECUTION_MEMBERS = {
    "PipelineExecutionDisplayName": "pipelineExecutionDisplayName",
    "PipelineExecutionDescription": "pipelineExecutionDescription",
    "FailureReason": "failureReason",
}
STEP_MEMBERS = {
    "StepName": "stepName",
    "StepDescription": "stepDescription",
    "StepDisplayName": "stepDisplayName",
    "Metadata": "metadata",
    "FailureReason": "failureReason",
    "CacheHitResult": "cacheHitResult",
}


def make_execution_event(before: Record | None, after: Record) -> ResourceEvent:
    """Return the event about a new status of an execution."""
    detail = {
        **_rename(after.description, EXECUTION_MEMBERS),
        "currentPipelineExecutionStatus": after.status,
        "executionStartTime": _format_time(after.created),
    }
    if before is not None:
        detail["previousPipelineExecutionStatus"] = before.status
    if PIPELINE_EXECUTION.lifecycle and after.status not in PIPELINE_EXECUTION.lifecycle.transitional_statuses:
        detail["executionEndTime"] = _format_time(after.modified)
    return _make_event(EXECUTION_EVENT_TYPE, after, detail)


def make_step_event(before: Record | None, after: Record, execution: Record) -> ResourceEvent:
    """Return the event about a new status of a step."""
    description = after.description
    detail = {
        **_rename(description, STEP_MEMBERS),
        "currentStepStatus": after.status,
        "stepStartTime": _format_time(description["StartTime"]),
    }
    if (step_type := find_step_type(execution, description["StepName"])) is not None:
        detail["stepType"] = step_type
    if before is not None:
        detail["previousStepStatus"] = before.status
    if after.status in FINAL_STATUSES:
        detail["stepEndTime"] = _format_time(description.get("EndTime", after.modified))
    return _make_event(STEP_EVENT_TYPE, execution, detail)


def _make_event(event_type: str, execution: Record, detail: Mapping[str, Any]) -> ResourceEvent:
    pipeline_arn = execution.description["PipelineArn"]
    arns = {"pipelineArn": pipeline_arn, "pipelineExecutionArn": execution.arn}
    return ResourceEvent(event_type, [pipeline_arn, execution.arn], {**detail, **arns})


def _rename(description: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: _lower_names(description[member]) for member, name in names.items() if description.get(member) is not None
    }


def _lower_names(value: Any) -> Any:
    """Return a value whose members begin in lower case, as in AWS's events about pipelines."""
    if isinstance(value, Mapping):
        return {f"{name[:1].lower()}{name[1:]}": _lower_names(content) for name, content in value.items()}
    return [_lower_names(item) for item in value] if isinstance(value, list) else value


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find_step_type(execution: Record, name: str) -> str | None:
    """Return the type of a step. In a ForEach step, the name of a step ends with a hyphen and the iteration's
    number."""
    types = _read_types(execution.request[DEFINITION])
    return types.get(name) or types.get(name.rpartition("-")[0])


@lru_cache(maxsize=8)
def _read_types(definition: str) -> dict[str, str]:
    return {step.name: step.type.value for step in parse_definition(definition).walk()}
