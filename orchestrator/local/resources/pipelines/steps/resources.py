"""Steps that create a resource: jobs, models, model packages, endpoints and their configurations.

A step is converted to the Create request that AWS would send. The execution owns the created resource.
"""

import hashlib
import secrets
import string
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from botocore.model import Shape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.resources.operation_calls import SERVICE
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import to_text
from microjobs_orchestrator.local.resources.pipelines.definition.step_types import STEP_TYPE_FACTS, StepTypeFacts
from microjobs_orchestrator.local.resources.pipelines.definition.values import StepType
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE_EXECUTION
from microjobs_orchestrator.local.resources.pipelines.retries import read_failure
from microjobs_orchestrator.local.resources.pipelines.step_run import (
    EXECUTION_KIND,
    REQUEST,
    RESOURCE,
    Failure,
    StepChange,
    StepRun,
    StepStatus,
)
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner, Tools
from microjobs_orchestrator.local.resources.pipelines.tracking import add_mlflow_config
from microjobs_orchestrator.local.resources.tuning.results import FINAL_METRIC
from microjobs_orchestrator.local.state import Owner, Record, State

MAX_NAME_CHARACTERS = 63
MAX_TUNING_NAME_CHARACTERS = 32
"""AWS's limit for the name of a tuning job. The names of its training jobs begin with this name, and are longer."""
SUFFIX_CHARACTERS = 10
METADATA_NAMES: Mapping[StepType, str] = {
    StepType.TUNING: "TuningJob",
    StepType.REGISTER_MODEL: "RegisterModel",
}
"""Members of a step's Metadata whose names differ from the name of the Create operation without `Create`."""
GROUP_NAME = "ModelPackageGroupName"
CONFIG_NAME = "EndpointConfigName"
STARTING_STATUSES = ("Creating", "Updating")
"""Statuses of an endpoint that is about to have the requested configuration."""
TOKEN_CHARACTERS = 36

_ALPHABET = string.ascii_letters + string.digits


class ResourceRunner(Runner):
    """Runs steps that create a resource, and wait until it has ended or is ready."""

    def __init__(self, tools: Tools, step_type: StepType) -> None:
        super().__init__(tools)
        self._facts: StepTypeFacts = STEP_TYPE_FACTS[step_type]
        self._noun = self._facts.create_operation.removeprefix("Create")
        self._metadata_name = METADATA_NAMES.get(step_type, self._noun)

    @property
    def _kind(self) -> Kind:
        return next(kind for kind in load_kinds() if kind.noun == self._noun)

    @property
    def _state(self) -> State:
        return self.tools.context.state

    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> StepChange:
        """Create the resource, unless a server that was killed has created it."""
        if run.record.internal.get(REQUEST) is None:
            self._store_request(run, arguments)
            self._create(run)
        elif not self._is_created(run):
            self._create(run)
        self._set_owner(run)
        return self.poll(run)

    def _set_owner(self, run: StepRun) -> None:
        """Make the execution the owner of the resource, so that the execution is notified of the resource's end."""
        if self._kind.lifecycle is not None:
            owner = Owner(EXECUTION_KIND, self.tools.execution_id)
            self._state.set_owner(self._kind.arn_type, run.record.internal[RESOURCE], owner)

    def _store_request(self, run: StepRun, arguments: Mapping[str, Any]) -> None:
        """Store the request and the resource's name before the resource is created, so that a later server finds it."""
        shape = load_operation_model(SERVICE, self._facts.create_operation).input_shape
        request = self._complete_request(run, _convert(shape, arguments))
        request = add_mlflow_config(request, run.step.type, run.name, self.tools.mlflow_config)
        name = request.get(self._facts.name_member, "")
        run.store(StepChange(StepStatus.STARTING, internal={REQUEST: request, RESOURCE: name}))

    def _complete_request(self, run: StepRun, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the request with the name that AWS would choose."""
        return {**request, self._facts.name_member: self.choose_name(run)}

    def choose_name(self, run: StepRun) -> str:
        if not run.chosen_name:
            prefix = run.step.arguments.get(self._facts.name_member, "")
            run.chosen_name = make_name(self.tools.execution_id, run.name, str(prefix), self._noun)
        return run.chosen_name

    def _create(self, run: StepRun) -> None:
        self.tools.operation_caller.call(self._facts.create_operation, run.record.internal[REQUEST])

    def _is_created(self, run: StepRun) -> bool:
        """Return whether an earlier server has created the resource."""
        return self._find_record(run) is not None

    def _find_record(self, run: StepRun) -> Record | None:
        """Return the record of the step's resource; None if it does not exist, or has no name yet."""
        name_or_arn = run.record.internal.get(RESOURCE)
        return self._get_record(name_or_arn) if name_or_arn else None

    def _get_record(self, name_or_arn: str) -> Record | None:
        """Return the record of a resource, by the value of RESOURCE in the internal state."""
        return self._state.get(self._kind.arn_type, name_or_arn)

    def has_result(self, internal: Mapping[str, Any]) -> bool:
        return self._get_record(internal[RESOURCE]) is not None

    def poll(self, run: StepRun) -> StepChange:
        record = self._find_record(run)
        if record is None:
            failure = Failure(f"ClientError: {self._kind.display_name} {run.record.internal[RESOURCE]} was deleted.")
            return StepChange(StepStatus.FAILED, run.metadata, failure)
        return self._make_change(run, record)

    def _make_change(self, run: StepRun, record: Record) -> StepChange:
        """Return the change of the step, from the record of its resource."""
        metadata, lifecycle = {self._metadata_name: {"Arn": record.arn}}, self._kind.lifecycle
        if lifecycle is None or record.status == lifecycle.success_status:
            return StepChange(StepStatus.SUCCEEDED, metadata)
        if record.status not in lifecycle.transitional_statuses:
            status = StepStatus.STOPPED if record.status == "Stopped" else StepStatus.FAILED
            return StepChange(status, metadata, read_failure(record) if status is StepStatus.FAILED else None)
        is_stopping = run.status is StepStatus.STOPPING
        return StepChange(StepStatus.STOPPING if is_stopping else StepStatus.EXECUTING, metadata)

    def stop(self, run: StepRun) -> StepChange:
        if "Stop" not in self._kind.verbs or self._find_record(run) is None:
            return StepChange(StepStatus.STOPPED, run.metadata)
        self._set_owner(run)  # a server that was killed may have created the resource without its owner
        with suppress(ServiceError):  # the resource has ended, or another request has stopped it
            self.tools.operation_caller.call(f"Stop{self._noun}", self._identify(run))
        return StepChange(StepStatus.STOPPING, run.metadata)

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        return self.tools.operation_caller.call(f"Describe{self._noun}", self._identify(run))

    def _identify(self, run: StepRun) -> Mapping[str, str]:
        """Return the request that names the step's resource."""
        return {self._facts.name_member: run.record.internal[RESOURCE]}


class TuningRunner(ResourceRunner):
    """Runs Tuning steps. Their properties also contain the training jobs with a final objective value, sorted from the
    best to the worst."""

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        properties = super().read_properties(run)
        objective = properties["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        jobs = [job for job in self._list_jobs(run) if FINAL_METRIC in job]
        jobs.sort(key=lambda job: job[FINAL_METRIC]["Value"], reverse=objective["Type"] == "Maximize")
        return {**properties, "TrainingJobSummaries": jobs}

    def _list_jobs(self, run: StepRun) -> Iterator[Mapping[str, Any]]:
        request = dict(self._identify(run))
        while True:
            page = self.tools.operation_caller.call("ListTrainingJobsForHyperParameterTuningJob", request)
            yield from page["TrainingJobSummaries"]
            if "NextToken" not in page:
                return
            request["NextToken"] = page["NextToken"]


class ModelPackageRunner(ResourceRunner):
    """Runs RegisterModel steps. If the request names a group that does not exist, the step creates the group."""

    def _complete_request(self, run: StepRun, request: Mapping[str, Any]) -> Mapping[str, Any]:
        token = hashlib.sha256(f"{run.record.name} {run.attempt_count} {run.record.created}".encode()).hexdigest()
        named_request = request if GROUP_NAME in request else super()._complete_request(run, request)
        return {**named_request, "ClientToken": token[:TOKEN_CHARACTERS]}

    def _create(self, run: StepRun) -> None:
        """Create the package. After a crash, the repeated request has the same ClientToken, so it returns the package
        that the earlier server has created."""
        request = run.record.internal[REQUEST]
        if GROUP_NAME in request:
            # an error means that the group exists; CreateModelPackage reports other errors
            with suppress(ServiceError):
                self.tools.operation_caller.call("CreateModelPackageGroup", {GROUP_NAME: request[GROUP_NAME]})
        response = self.tools.operation_caller.call(self._facts.create_operation, request)
        run.store(StepChange(StepStatus.STARTING, internal={RESOURCE: response["ModelPackageArn"]}))

    def _is_created(self, run: StepRun) -> bool:  # noqa: ARG002
        return False

    def _get_record(self, name_or_arn: str) -> Record | None:
        return self._state.get_by_arn(name_or_arn)


class EndpointConfigRunner(ResourceRunner):
    """Runs EndpointConfig steps. A name in the definition is used without a suffix."""

    def _complete_request(self, run: StepRun, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return request if self._facts.name_member in request else super()._complete_request(run, request)

    def _is_created(self, run: StepRun) -> bool:
        # If a configuration with the requested name is older than the step, another step or a client created it.
        record = self._find_record(run)
        return record is not None and record.created >= float(run.record.description["StartTime"])


class EndpointRunner(EndpointConfigRunner):
    """Runs Endpoint steps. A step creates its endpoint, or updates an existing endpoint with the same name, and waits
    until the endpoint serves."""

    def _create(self, run: StepRun) -> None:
        request = run.record.internal[REQUEST]
        if self._find_record(run) is None:
            self.tools.operation_caller.call("CreateEndpoint", request)
        else:
            shape: Any = load_operation_model(SERVICE, "UpdateEndpoint").input_shape
            members = {name: value for name, value in request.items() if name in shape.members}
            self.tools.operation_caller.call("UpdateEndpoint", members)

    def _is_created(self, run: StepRun) -> bool:
        """Return whether the endpoint has the configuration, or is about to have it."""
        record = self._find_record(run)
        return record is not None and (record.status in STARTING_STATUSES or self._has_config(run, record))

    def _has_config(self, run: StepRun, record: Record) -> bool:
        config_name = run.record.internal[REQUEST][CONFIG_NAME]
        return bool(record.description.get(CONFIG_NAME) == config_name)

    def _make_change(self, run: StepRun, record: Record) -> StepChange:
        step_change = super()._make_change(run, record)
        if step_change.status is StepStatus.SUCCEEDED and not self._has_config(run, record):
            return StepChange(StepStatus.FAILED, step_change.metadata, read_failure(record))
        return step_change

    def stop(self, run: StepRun) -> StepChange:
        """Stop waiting. The endpoint continues to start, because no request deletes it."""
        return StepChange(StepStatus.STOPPED, run.metadata)


def make_name(execution_id: str, step: str, prefix: str, noun: str) -> str:
    """Return a new name for a step's resource, in the form that AWS uses.

    Args:
        prefix: the name in the definition. It replaces the prefix `pipelines-<execution id>-<step name>`, or
            `<execution id>-<step name>` for a tuning job.
    """
    is_tuning = noun == "HyperParameterTuningJob"
    limit = MAX_TUNING_NAME_CHARACTERS if is_tuning else MAX_NAME_CHARACTERS
    default_prefix = f"{execution_id}-" if is_tuning else PIPELINE_EXECUTION.owned_prefix.format(name=execution_id)
    words = prefix or f"{default_prefix}{step}"
    valid_name = "-".join(filter(None, words.replace("_", "-").split("-")))
    suffix = "".join(secrets.choice(_ALPHABET) for _ in range(SUFFIX_CHARACTERS))
    return f"{valid_name[: limit - SUFFIX_CHARACTERS - 1].rstrip('-')}-{suffix}"


def _convert(shape: Shape | None, value: Any) -> Any:
    """Return resolved arguments, with numbers and Booleans as text where the operation's model requires text."""
    type_name = shape.type_name if shape else ""
    if type_name == "string" and isinstance(value, bool | int | float):
        return to_text(value)
    if type_name == "list" and isinstance(value, list):
        return [_convert(shape.member, item) for item in value]  # type: ignore[union-attr]
    if type_name == "map" and isinstance(value, dict):
        return {name: _convert(shape.value, item) for name, item in value.items()}  # type: ignore[union-attr]
    if type_name == "structure" and isinstance(value, dict):
        members: Mapping[str, Shape] = shape.members  # type: ignore[union-attr]
        return {name: _convert(members.get(name), item) for name, item in value.items()}
    return value
