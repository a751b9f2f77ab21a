"""Responses of List and Describe operations, from the state and the members of botocore's model."""

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.protocols.models import load_operation_model, load_service_model
from microjobs_orchestrator.local.state import Query, Record, State

PAGE_SIZE = 100
"""The maximum number of resources in one response, as on SageMaker."""

VERSION_LIMIT = 1 << 53
"""Exclusive upper limit of a resource's version number."""

COLUMNS_BY_SORT_KEY = {"Name": "name", "CreationTime": "created", "LastModifiedTime": "modified", "Status": "status"}
"""The columns of the state's database by the values of SortBy."""


def describe_resource(kind: Kind, record: Record, computed_members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response of a Describe request.

    Args:
        computed_members: members that the record does not contain.
    """
    return _select_members(
        load_operation_model("sagemaker", f"Describe{kind.noun}").output_shape, record, computed_members
    )


def describe_as(shape: str, record: Record) -> dict[str, Any]:
    """Return a resource in the form of a structure of SageMaker's model.

    Args:
        shape: the name of the structure.
    """
    return _select_members(load_service_model("sagemaker").shape_for(shape), record, {})


def _select_members(shape: Any, record: Record, computed_members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a resource that a structure of botocore's model has."""
    times = {"CreationTime": record.created, "LastModifiedTime": record.modified}
    values = {**record.description, **times, **computed_members}
    return {name: values[name] for name in shape.members if name in values}


def list_resources(
    state: State,
    kind: Kind,
    request: Mapping[str, Any],
    compute_members: Callable[[Record], Mapping[str, Any]] = lambda _: {},
    **filters: Any,
) -> dict[str, Any]:
    """Return the response of a List request, with SageMaker's filters, order and pages.

    Args:
        compute_members: returns the members of a resource that its record does not contain.
        filters: fields of `Query` that replace those that the request defines.
    """
    limit, status = request.get("MaxResults", PAGE_SIZE), request.get("StatusEquals", "")
    # If true, each page may have fewer resources than MaxResults: see `Kind.filters_pages`.
    filters_page = kind.filters_pages and "MaxResults" in request
    query = Query(
        kind.arn_type,
        name_contains=request.get("NameContains", ""),
        status="" if filters_page else status,
        created=_read_time_range(request, "CreationTime"),
        modified=_read_time_range(request, "LastModifiedTime"),
        order_by=COLUMNS_BY_SORT_KEY[request.get("SortBy", kind.sort_by)],
        descending=request.get("SortOrder", "Descending" if kind.newest_first else "Ascending") == "Descending",
        limit=limit + 1,
        after=_read_token(request["NextToken"]) if "NextToken" in request else None,
    )
    query = replace(query, **filters)
    records = state.find(query)
    list_shape: Any = load_operation_model("sagemaker", f"List{kind.noun}s").output_shape
    shape = list_shape.members[kind.summaries_member].member
    page = [record for record in records[:limit] if status in ("", record.status)]
    response: dict[str, Any] = {
        kind.summaries_member: [_select_members(shape, record, compute_members(record)) for record in page]
    }
    if len(records) > limit:
        last = records[limit - 1]
        position = [getattr(last, query.order_by), last.name, last.version]
        response["NextToken"] = base64.urlsafe_b64encode(json.dumps(position).encode()).decode()
    return response


def _read_time_range(request: Mapping[str, Any], member: str) -> tuple[float, float]:
    return request.get(f"{member}After", float("-inf")), request.get(f"{member}Before", float("inf"))


def _read_token(token: str) -> tuple[str | float, str, int]:
    """Return the position in a NextToken: a value of the column that sorts the list, a name and a version."""
    try:
        value, name, version = json.loads(base64.urlsafe_b64decode(token), parse_int=float)
        is_sort_value = isinstance(value, str) or math.isfinite(value)
        if is_sort_value and isinstance(name, str) and 0 <= version < VERSION_LIMIT:
            return value, name, int(version)
    except (ValueError, TypeError, RecursionError):
        pass
    raise ValidationError(f"NextToken {token!r} is not valid: pass the NextToken of the last response.")
