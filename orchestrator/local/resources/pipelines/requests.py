"""Functions that several operations on pipelines and executions use, and the lock that these operations share."""

import threading
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.parity.common import PAGE_MEMBERS
from microjobs_orchestrator.local.resources.operations import Request
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE, PIPELINE_EXECUTION
from microjobs_orchestrator.local.state import Record

pipelines_lock = threading.Lock()
"""This lock is held while a pipeline or its versions change, and while an execution starts. Therefore, no execution
starts while its pipeline is deleted."""


def find_pipeline(context: Context, name: str) -> Record:
    """Return the record of a pipeline, by its name or ARN. Raise ServiceError ResourceNotFound if it does not exist."""
    arn = name if name.startswith("arn:") else format_arn(f"{PIPELINE.arn_type}/{name}", context.settings.region)
    record = context.state.get_by_arn(arn)
    if record is None or record.kind != PIPELINE.arn_type:
        raise make_missing_pipeline_error(arn)
    return record


def find_execution(context: Context, arn: str) -> Record:
    """Return the record of an execution by its ARN. Raise ServiceError ResourceNotFound if it does not exist."""
    record = context.state.get_by_arn(arn)
    if record is None or record.kind != PIPELINE_EXECUTION.arn_type:
        raise ServiceError("ResourceNotFound", f'Could not find pipeline execution "{arn}".')
    return record


def make_missing_pipeline_error(arn: str) -> ServiceError:
    """Return the error for a pipeline that does not exist."""
    return ServiceError("ResourceNotFound", f'Could not find pipeline "{arn}".')


def convert_list_request(request: Request) -> dict[str, Any]:
    """Return a List request in the form that `list_resources` reads: its common members, with the common names of the
    time filters."""
    names = {"CreatedAfter": "CreationTimeAfter", "CreatedBefore": "CreationTimeBefore"}
    members = (*PAGE_MEMBERS, *names)
    return {names.get(member, member): request[member] for member in members if member in request}


def read_parallelism(request: Request) -> dict[str, Any]:
    """Return the member ParallelismConfiguration of a request, or no member if the request does not have it."""
    if "ParallelismConfiguration" not in request:
        return {}
    limit = request["ParallelismConfiguration"]["MaxParallelExecutionSteps"]
    return {"ParallelismConfiguration": {"MaxParallelExecutionSteps": limit}}
