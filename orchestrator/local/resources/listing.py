"""Responses of List and Describe operations, from the state and the members of botocore's model."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.model import StructureShape

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.state import Query, Record, State

PAGE = 100
"""The maximum of resources in one response, as on SageMaker."""

MAX_VERSIONS = 1 << 53
"""The versions of a resource are less than this."""

SORT_COLUMNS = {"Name": "name", "CreationTime": "created", "LastModifiedTime": "modified", "Status": "status"}


def members(record: Record) -> dict[str, Any]:
    """Return all members that a resource's record contains."""
    return {**record.description, "CreationTime": record.created, "LastModifiedTime": record.modified}


def shown(operation: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that an operation's response has in botocore's model."""
    shape = operation_model("sagemaker", operation).output_shape
    assert isinstance(shape, StructureShape)  # noqa: S101  every Describe answers something
    return {name: known[name] for name in shape.members if name in known}


def list_resources(
    state: State, kind: Kind, request: Mapping[str, Any], more: Callable[[Record], Mapping[str, Any]] = lambda _: {}
) -> dict[str, Any]:
    """Return the response of a List request, with SageMaker's filters, order and pages.

    Args:
        more: returns the computed members of a resource.
    """
    limit, status = request.get("MaxResults", PAGE), request.get("StatusEquals", "")
    filters_page = kind.filters_pages and "MaxResults" in request
    query = Query(
        kind.arn_type,
        name_contains=request.get("NameContains", ""),
        status="" if filters_page else status,
        created=_times(request, "CreationTime"),
        modified=_times(request, "LastModifiedTime"),
        order_by=SORT_COLUMNS[request.get("SortBy", kind.sort_by)],
        descending=request.get("SortOrder", "Descending" if kind.newest_first else "Ascending") == "Descending",
        limit=limit + 1,
        after=read_token(request["NextToken"]) if "NextToken" in request else None,
    )
    records = state.find(query)
    page = [record for record in records[:limit] if status in ("", record.status)]
    answer: dict[str, Any] = {kind.summaries_member: [_summary(kind, record, more(record)) for record in page]}
    if len(records) > limit:
        last = records[limit - 1]
        answer["NextToken"] = write_token([getattr(last, query.order_by), last.name, last.version])
    return answer


def _times(request: Mapping[str, Any], member: str) -> tuple[float, float]:
    return request.get(f"{member}After", float("-inf")), request.get(f"{member}Before", float("inf"))


def _summary(kind: Kind, record: Record, more: Mapping[str, Any]) -> dict[str, Any]:
    known = {**members(record), **more}
    listed: Any = operation_model("sagemaker", f"List{kind.noun}s").output_shape
    return {name: known[name] for name in listed.members[kind.summaries_member].member.members if name in known}


def page(items: Sequence[Any], request: Mapping[str, Any], limit: int = PAGE) -> tuple[Sequence[Any], dict[str, str]]:
    """Return one page of a list, and the NextToken if there is another page."""
    begin = read_offset(request["NextToken"]) if "NextToken" in request else 0
    end = begin + request.get("MaxResults", limit)
    return items[begin:end], {"NextToken": write_token([end, ""])} if end < len(items) else {}


def write_token(position: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def read_token(token: str) -> tuple[str | float, str, int]:
    """Parse a token of `write_token`: a value, a name and a version.

    Raises:
        ValidationError: `write_token` did not write it.
    """
    try:
        position: list[Any] = [*json.loads(base64.urlsafe_b64decode(token), parse_int=float), 0.0]
        value, name, version = position[:3]
        is_value = isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))
        if is_value and isinstance(name, str) and isinstance(version, float) and 0 <= version < MAX_VERSIONS:
            return value, name, int(version)
    except (ValueError, TypeError, RecursionError):
        pass
    raise ValidationError(f"NextToken {token!r} is not valid: pass the NextToken of the last response.")


def read_offset(token: str) -> int:
    """Parse a token of a list in memory: an offset.

    Raises:
        ValidationError: the token belongs to another list.
    """
    value, *_ = read_token(token)
    if isinstance(value, str) or value < 0:
        raise ValidationError(
            f"NextToken {token!r} belongs to another list: pass the NextToken of this list's last response."
        )
    return int(value)
