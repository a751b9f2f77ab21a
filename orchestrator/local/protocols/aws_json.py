"""AWS JSON 1.1, which botocore calls "json", for services such as SageMaker, CloudWatch Logs and ECR.

A header names the operation, and the body is a JSON object with the members. Bodies of REST JSON are such objects, too.
"""

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import OperationResult, select_members
from microjobs_orchestrator.local.protocols.text import parse_float
from microjobs_orchestrator.local.values import to_valid_json

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/x-amz-json-1.1"
CONTENT_TYPES = (CONTENT_TYPE, "application/x-amz-json-1.0")
"""The content types of both versions, which have the same format. SQS uses version 1.0."""
UNKNOWN_OPERATION = ("UnknownOperationException", 404)

MAX_DEPTH = 100
"""Limit for nested lists and objects; AWS's requests have at most 20 levels."""

MAX_DIGITS = 20
"""Maximum number of characters of an integer: enough for 64 bits and a sign."""

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def find_operation(_: str, request: Request) -> str:
    """Return the name of the operation: `CreateModel` if the header is `SageMaker.CreateModel`."""
    return request.headers.get("X-Amz-Target", "").rpartition(".")[2]


def parse(operation: OperationModel, request: Request) -> dict[str, Any]:
    return parse_object(operation.name, request.get_data())


def format_result(operation: OperationModel, result: OperationResult, request: Request) -> Response:
    content = format_object(operation.output_shape, result.members)
    return Response(content, content_type=_choose_content_type(request))


def format_error(error: ServiceError, request: Request) -> Response:
    content = json.dumps({"__type": error.code, "message": error.message})
    return Response(content, error.status, {"x-amzn-ErrorType": error.code}, content_type=_choose_content_type(request))


def _choose_content_type(request: Request) -> str:
    """Return the content type of the request, so that the response has the same version."""
    return request.mimetype if request.mimetype in CONTENT_TYPES else CONTENT_TYPE


# --- objects ---


def parse_object(operation: str, body: bytes) -> dict[str, Any]:
    """Parse a JSON object, and drop members that are null; an empty body has no members.

    Raises:
        ServiceError: the body is not a JSON object, or it has a value that no response could contain, such as a lone
            surrogate (SerializationException).
    """
    try:
        content = _load(body or b"{}")
        if isinstance(content, dict):
            return content
    except (ValueError, RecursionError) as error:
        raise ServiceError(
            "SerializationException", f"the body of {operation} is not a valid JSON object: {error}"
        ) from error
    raise ServiceError("SerializationException", f"{operation} takes a JSON object, not {content!r:.60}")


def _load(body: bytes) -> Any:
    content = json.loads(
        body.decode(),
        object_hook=_drop_nulls,
        parse_constant=parse_float,
        parse_float=parse_float,
        parse_int=_parse_integer,
    )
    if SURROGATE.search(body):
        json.dumps(content, ensure_ascii=False).encode()  # a lone surrogate raises ValueError
    check_depth(content)
    return content


def check_depth(content: Any) -> None:
    """Raise ValueError if lists and objects are nested too deep."""
    level, depth = [content], 0
    while level := [inner for outer in level for inner in _list_items(outer)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_DEPTH} levels")


def _list_items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _drop_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in value.items() if content is not None}


def _parse_integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text:.40} is too large")
    return int(text)


def format_object(shape: Shape | None, result: Mapping[str, Any]) -> str:
    """Format a result without its members that are None.

    Raises:
        ResultError: a member is unknown.
    """
    content = _to_json_value(shape, result, "") if shape else {}
    try:
        return json.dumps(content, separators=(",", ":"), allow_nan=False)
    except ValueError:
        # The numbers are infinity or NaN. The client cannot repair them, so the response leaves them out.
        log.exception("a response has numbers that are not valid in JSON")
        return json.dumps(to_valid_json(content), separators=(",", ":"))


def _to_json_value(shape: Shape, value: Any, path: str) -> Any:
    if isinstance(shape, StructureShape):
        return {
            shape.members[name].serialization.get("name", name): _to_json_value(
                shape.members[name], content, f"{path}.{name}"
            )
            for name, content in select_members(shape, value, path).items()
        }
    if isinstance(shape, ListShape):
        return [_to_json_value(shape.member, item, f"{path}[]") for item in value]
    if isinstance(shape, MapShape):
        return {key: _to_json_value(shape.value, item, f"{path}.{key}") for key, item in value.items()}
    return value
