"""The kinds of pipelines and of their executions."""

from enum import StrEnum

from microjobs_orchestrator.local.kinds import Kind, Lifecycle
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.resources.tuning.kinds import TUNING_JOB


class ExecutionStatus(StrEnum):
    """AWS's statuses of executions."""

    EXECUTING = "Executing"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"
    COMPLETED_WITH_FAILURES = "CompletedWithFailures"


_FINAL_STATUSES = (
    ExecutionStatus.STOPPED,
    ExecutionStatus.FAILED,
    ExecutionStatus.SUCCEEDED,
    ExecutionStatus.COMPLETED_WITH_FAILURES,
)

PIPELINE = Kind(
    arn_type="pipeline",
    noun="Pipeline",
    title="pipeline",
    verbs=("Describe", "List", "Delete"),
    newest_first=True,
    event_name=None,
)
PIPELINE_EXECUTION = Kind(
    arn_type="pipeline-execution",
    noun="PipelineExecution",
    title="execution",
    lifecycle=Lifecycle(
        statuses=tuple(ExecutionStatus),
        first_status=ExecutionStatus.EXECUTING,
        success_status=ExecutionStatus.SUCCEEDED,
        transitional_statuses=(ExecutionStatus.EXECUTING, ExecutionStatus.STOPPING),
        transitions={
            ExecutionStatus.EXECUTING: (ExecutionStatus.STOPPING, *_FINAL_STATUSES),
            ExecutionStatus.STOPPING: _FINAL_STATUSES,
            **dict.fromkeys((ExecutionStatus.FAILED, ExecutionStatus.STOPPED), (ExecutionStatus.EXECUTING,)),
        },
    ),
    verbs=("Describe", "List", "Stop"),
    create_verb="Start",
    newest_first=True,
    parent=PIPELINE,
    owned_prefix="pipelines-{name}-",
    owns=(PROCESSING_JOB, TRAINING_JOB, TUNING_JOB, TRANSFORM_JOB, ENDPOINT),
)
