"""The operations on executions of pipelines, and on their steps.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StartPipelineExecution.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_RetryPipelineExecution.html
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Change
from microjobs_orchestrator.local.lifecycle.registry import Registry, Runnable
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.listing import describe_resource, list_resources
from microjobs_orchestrator.local.resources.operations import Handler, Request, Response, RunningOperations
from microjobs_orchestrator.local.resources.pipelines import cache
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import to_text
from microjobs_orchestrator.local.resources.pipelines.definition.parameters import bind_parameters
from microjobs_orchestrator.local.resources.pipelines.definition.parse import parse_definition
from microjobs_orchestrator.local.resources.pipelines.definition.values import Definition
from microjobs_orchestrator.local.resources.pipelines.execution import DEFINITION, PARAMETERS, Execution
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE, PIPELINE_EXECUTION, ExecutionStatus
from microjobs_orchestrator.local.resources.pipelines.requests import (
    convert_list_request,
    find_execution,
    find_pipeline,
    pipelines_lock,
    read_parallelism,
)
from microjobs_orchestrator.local.resources.pipelines.selection import SOURCE_ARN, read_selection
from microjobs_orchestrator.local.resources.pipelines.state_changes import make_execution_event, make_step_event
from microjobs_orchestrator.local.resources.pipelines.step_run import STEP_KIND, StepStatus, list_steps, reset_step
from microjobs_orchestrator.local.resources.pipelines.steps import callbacks
from microjobs_orchestrator.local.resources.pipelines.tracking import read_mlflow_config
from microjobs_orchestrator.local.resources.pipelines.versions import find_version, record_execution
from microjobs_orchestrator.local.resources.state_changes import ResourceEvent
from microjobs_orchestrator.local.state import Owner, Query, Record

ID_CHARACTERS = 12
TOKEN = "ClientRequestToken"  # noqa: S105  the name of a member
RETRY_TOKEN = "RetryToken"  # noqa: S105
"""Key of the internal state. Its value is the ClientRequestToken of the last retry."""
EXECUTION_ARN, REASON = "PipelineExecutionArn", "FailureReason"
CHANGEABLE_MEMBERS = ("PipelineExecutionDescription", "PipelineExecutionDisplayName")
DESCRIBED_MEMBERS = (*CHANGEABLE_MEMBERS, "SelectiveExecutionConfig", "RoleArn")
"""Members of StartPipelineExecution that the description has."""
MAX_EXECUTIONS = 1_000_000
"""Maximum number of executions that are deleted with their pipeline."""
RUNNING_STATUSES = (ExecutionStatus.EXECUTING, ExecutionStatus.STOPPING)
RETRIABLE_STATUSES = (ExecutionStatus.FAILED, ExecutionStatus.STOPPED)

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class PipelineExecutionOperations(RunningOperations):
    kind = PIPELINE_EXECUTION
    other_event_kinds = (STEP_KIND,)

    def make_events(self, before: Record | None, after: Record | None) -> list[ResourceEvent]:
        if after is None or (before is not None and before.status == after.status):
            return []
        if after.kind == self.kind.arn_type:
            return [make_execution_event(before, after)]
        execution = after.owner and self.context.state.get(self.kind.arn_type, after.owner.name)
        return [make_step_event(before, after, execution)] if execution else []

    def make_runnable(self, record: Record) -> Runnable:
        return Execution(self.context, record, self.registry)

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {
            "UpdatePipelineExecution": self.update,
            "RetryPipelineExecution": self.retry,
            "ListPipelineExecutionSteps": self.list_steps,
            "ListPipelineParametersForExecution": self.list_parameters,
            "DescribePipelineDefinitionForExecution": self.describe_definition,
            "SendPipelineExecutionStepSuccess": self.send_success,
            "SendPipelineExecutionStepFailure": self.send_failure,
        }

    # --- the start ---

    def create(self, request: Request) -> Response:
        """Start an execution. A repeated request with the same token returns the execution that the first request
        started.

        Raises:
            ServiceError: the pipeline or its version does not exist, a parameter is not valid, or the token belongs to
                a request with other members.
        """
        with pipelines_lock:
            pipeline = find_pipeline(self.context, request["PipelineName"])
            name = make_execution_id(pipeline.arn, request[TOKEN])
            record = self._find_started_execution(name, request) or self._start_execution(pipeline, name, request)
        return {EXECUTION_ARN: record.arn}

    def _find_started_execution(self, name: str, request: Request) -> Record | None:
        """Return the execution that an earlier request with the same token has started; None if there is none.

        Raises:
            ServiceError: the earlier request had other members.
        """
        execution = self.context.state.get(PIPELINE_EXECUTION.arn_type, name)
        if execution is not None and any(execution.request.get(member) != value for member, value in request.items()):
            message = f"{TOKEN} {request[TOKEN]!r} belongs to an earlier request with other members: use a new token."
            raise ServiceError("ConflictException", message)
        return execution

    def _start_execution(self, pipeline: Record, name: str, request: Request) -> Record:
        version = find_version(self.context.state, pipeline.name, request)
        text = version.description["PipelineDefinition"]
        definition = parse_definition(text)
        items = request.get("PipelineParameters", [])
        inputs.check_unique("names of PipelineParameters", [item["Name"] for item in items])
        values = {item["Name"]: item["Value"] for item in items}
        earlier_parameters = self._read_earlier_parameters(pipeline, definition, request)
        parameters = bind_parameters(definition, {**earlier_parameters, **values})
        arn, status = f"{pipeline.arn}/execution/{name}", PIPELINE_EXECUTION.status_member
        tracking = read_mlflow_config(self.context, definition, request, arn, parameters)
        description = {
            "ParallelismConfiguration": pipeline.description.get("ParallelismConfiguration"),
            "RoleArn": pipeline.description.get("RoleArn"),
            **{member: request[member] for member in DESCRIBED_MEMBERS if member in request},
            **read_parallelism(request),
            **tracking,
            "PipelineArn": pipeline.arn,
            EXECUTION_ARN: arn,
            status: ExecutionStatus.EXECUTING,
            "PipelineVersionId": version.version,
            "PipelineExperimentConfig": {"ExperimentName": pipeline.name, "TrialName": name},
        }
        record = self.context.state.add(
            PIPELINE_EXECUTION.arn_type,
            name,
            arn,
            ExecutionStatus.EXECUTING,
            {**request, DEFINITION: text, PARAMETERS: parameters},
            {member: value for member, value in description.items() if value is not None},
            owner=Owner(PIPELINE.arn_type, pipeline.name),
        )
        record_execution(self.context.state, version, arn)
        self.registry.start(self.make_runnable(record))
        return record

    def _read_earlier_parameters(self, pipeline: Record, definition: Definition, request: Request) -> dict[str, str]:
        """Return the parameters of the earlier execution that SelectiveExecutionConfig names; empty if there is none.
        The request may replace them.

        Raises:
            ServiceError: a step or the earlier execution does not exist, the earlier execution belongs to another
                pipeline, or a reused step did not succeed in the earlier execution.
        """
        selection = read_selection(definition, request)
        if selection is None:
            return {}
        for step in sorted(selection.reused_steps):
            selection.find_result(self.context.state, step)
        if not selection.source_arn:
            return {}
        source = find_execution(self.context, selection.source_arn)
        if source.owner != Owner(PIPELINE.arn_type, pipeline.name):
            raise ValidationError(f"{SOURCE_ARN} {source.arn} is not an execution of pipeline {pipeline.name}.")
        parameter_names = {parameter.name for parameter in definition.parameters}
        return {name: to_text(value) for name, value in source.request[PARAMETERS].items() if name in parameter_names}

    # --- the current state ---

    def find(self, request: Request) -> Record:
        return find_execution(self.context, request[EXECUTION_ARN])

    def describe(self, request: Request) -> Response:
        return describe_resource(PIPELINE_EXECUTION, self.find(request), {})

    def list(self, request: Request) -> Response:
        owner = Owner(PIPELINE.arn_type, find_pipeline(self.context, request["PipelineName"]).name)
        list_request = convert_list_request(request)
        if list_request.get("SortBy") == EXECUTION_ARN:
            list_request["SortBy"] = "Name"
        return list_resources(self.context.state, PIPELINE_EXECUTION, list_request, _compute_summary, owner=owner)

    def list_steps(self, request: Request) -> Response:
        if EXECUTION_ARN not in request:
            raise ValidationError(f"{EXECUTION_ARN} is missing: it names the execution whose steps are listed.")
        descending = request.get("SortOrder", "Descending") == "Descending"
        steps = list_steps(self.context.state, self.find(request).name, descending=descending)
        page, token = cut_page([record.description for record in steps], request)
        return {"PipelineExecutionSteps": page, **token}

    def list_parameters(self, request: Request) -> Response:
        parameters = self.find(request).request[PARAMETERS]
        items = [{"Name": name, "Value": to_text(value)} for name, value in parameters.items()]
        page, token = cut_page(items, request)
        return {"PipelineParameters": page, **token}

    def describe_definition(self, request: Request) -> Response:
        record = self.find(request)
        return {"PipelineDefinition": record.request[DEFINITION], "CreationTime": record.created}

    # --- changes ---

    def update(self, request: Request) -> Response:
        record = self.find(request)
        members = {member: request[member] for member in CHANGEABLE_MEMBERS if member in request}
        changes = {**members, **read_parallelism(request)}
        self.context.state.update(PIPELINE_EXECUTION.arn_type, record.name, changes)
        if (runnable := self.registry.find(_make_plan_name(record))) is not None:
            runnable.events.send(Change.OWNED_RESOURCE_CHANGED)  # with a higher limit, more steps can start
        return {EXECUTION_ARN: record.arn}

    def stop(self, request: Request) -> Response:
        record, stopping = self.find(request), ExecutionStatus.STOPPING
        if self._change_status(record, stopping, self.lifecycle.transitional_statuses) is None:
            status = self.find(request).status
            raise ValidationError(f"The execution {record.arn} is {status}: only a running execution can be stopped.")
        self.registry.stop(_make_plan_name(record))
        return {EXECUTION_ARN: record.arn}

    def retry(self, request: Request) -> Response:
        """Continue a failed or stopped execution with its failed and stopped steps.

        Raises:
            ServiceError: the execution has another status.
        """
        record, executing = self.find(request), ExecutionStatus.EXECUTING
        if record.internal.get(RETRY_TOKEN) == request[TOKEN]:
            return {EXECUTION_ARN: record.arn}
        if record.status in RETRIABLE_STATUSES:
            self.registry.wait_for_end(_make_plan_name(record))
        retry_token, parallelism = {RETRY_TOKEN: request[TOKEN]}, read_parallelism(request)
        changed_record = self._change_status(record, executing, RETRIABLE_STATUSES, retry_token, **parallelism)
        if changed_record is None:
            reason = "only a failed or stopped execution can be retried"
            raise ServiceError("ConflictException", f"The execution {record.arn} is {record.status}: {reason}.")
        for step in list_steps(self.context.state, record.name):
            if step.status != StepStatus.SUCCEEDED:
                reset_step(self.context.state, step)
        runnable = self.make_runnable(changed_record)
        self.registry.start(runnable, partial(runnable.recover, ()))
        return {EXECUTION_ARN: record.arn}

    def send_success(self, request: Request) -> Response:
        outputs = {item["Name"]: item["Value"] for item in request.get("OutputParameters", [])}
        return self._answer_callback(request["CallbackToken"], {"Outputs": outputs})

    def send_failure(self, request: Request) -> Response:
        reason = request.get("FailureReason", "The callback reported a failure.")
        return self._answer_callback(request["CallbackToken"], {REASON: reason})

    def _answer_callback(self, token: str, answer: Mapping[str, Any]) -> Response:
        """Store the answer to a Callback step, and wake its execution.

        Raises:
            ServiceError: no step waits for an answer with this token.
        """
        record = callbacks.answer_callback(self.context.state, token, answer)
        execution = record and record.owner and self.context.state.get(*record.owner)
        if not execution:
            message = f"No Callback step waits for an answer with the token {token!r}."
            raise ServiceError("ResourceNotFound", message)
        if (runnable := self.registry.find(_make_plan_name(execution))) is not None:
            runnable.events.send(Change.OWNED_RESOURCE_CHANGED)
        return {EXECUTION_ARN: execution.arn}

    def _change_status(
        self,
        record: Record,
        status: ExecutionStatus,
        only_if: tuple[str, ...],
        internal: Mapping[str, Any] | None = None,
        **members: Any,
    ) -> Record | None:
        """Return the changed record; None if the current status is not in `only_if`."""
        changes = {PIPELINE_EXECUTION.status_member: status, REASON: None, **members}
        update, kind = self.context.state.update, PIPELINE_EXECUTION.arn_type
        return update(kind, record.name, changes, status, internal=internal, only_if=only_if)


def make_execution_id(pipeline_arn: str, token: str) -> str:
    """Return the id of the execution that a request with a token starts."""
    number = int.from_bytes(hashlib.sha256(f"{pipeline_arn} {token}".encode()).digest(), "big")
    digits = []
    for _ in range(ID_CHARACTERS):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)


def _make_plan_name(record: Record) -> str:
    return f"{record.kind}/{record.name}"


def _compute_summary(record: Record) -> Mapping[str, Any]:
    return {"StartTime": record.created, "PipelineExecutionFailureReason": record.description.get(REASON)}


def delete_executions(context: Context, registry: Registry, pipeline: str) -> None:
    """Delete the executions of a pipeline that is deleted, and their steps.

    Raises:
        ServiceError: an execution is running.
    """
    owner = Owner(PIPELINE.arn_type, pipeline)
    executions = context.state.find(Query(PIPELINE_EXECUTION.arn_type, owner=owner, limit=MAX_EXECUTIONS))
    running_arns = [record.arn for record in executions if record.status in RUNNING_STATUSES]
    if running_arns:
        count, example = len(running_arns), running_arns[0]
        problem = f"Pipeline {pipeline} has running executions ({count}), such as {example}: stop all of them first."
        raise ServiceError("ConflictException", problem)
    for record in executions:
        registry.wait_for_end(_make_plan_name(record))
        for step in list_steps(context.state, record.name):
            context.state.delete(step.kind, step.name)
        callbacks.delete_callbacks(context.state, record.name)
        context.state.delete(record.kind, record.name)
    cache.forget_results(context.state, pipeline)
