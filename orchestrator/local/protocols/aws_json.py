"""AWS JSON 1.1: SageMaker, CloudWatch Logs, ECR. The operation is in a header, the members in a JSON object."""

import json
import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import members
from microjobs_orchestrator.local.values import clean

log = logging.getLogger(__name__)

MOST_DEPTH = 100
"""Lists and objects in each other; AWS's requests have 20 at most."""

MOST_DIGITS = 20
"""Of an integer: 64 bits, and a sign."""

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

CONTENT_TYPE = "application/x-amz-json-1.1"


def operation_name(request: Request) -> str:
    """`SageMaker.CreateModel` → `CreateModel`."""
    return request.headers.get("X-Amz-Target", "").rpartition(".")[2]


def parse(operation: OperationModel, request: Request) -> dict[str, Any]:
    try:
        content = _loaded(request.get_data() or b"{}")
    except (ValueError, RecursionError) as error:
        raise ServiceError("SerializationException", f"{operation.name} takes a JSON object: {error}") from error
    if not isinstance(content, dict):
        raise ServiceError("SerializationException", f"{operation.name} takes a JSON object, not {content!r:.60}")
    return content


def _loaded(body: bytes) -> Any:
    """JSON without what could not be kept or sent back. Raises ValueError or RecursionError."""
    content = json.loads(
        body.decode(),
        object_hook=_without_nulls,
        parse_constant=_refuse_constant,
        parse_float=_finite,
        parse_int=_integer,
    )
    if SURROGATE.search(body):  # half a character by itself, which UTF-8 does not have
        json.dumps(content, ensure_ascii=False).encode()
    level, depth = [content], 0
    while level := [inner for outer in level for inner in _inside(outer)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"it is more than {MOST_DEPTH} levels deep")
    return content


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """AWS takes a member that is null as one that is absent."""
    return {name: content for name, content in value.items() if content is not None}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is too large a number")
    return value


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"{text:.40} is too large a number")
    return int(text)


def answer(operation: OperationModel, result: Mapping[str, Any], request_id: str) -> Response:  # noqa: ARG001
    shape = operation.output_shape
    content = _plain(shape, result, "") if shape else {}
    return Response(_dumped(content), content_type=CONTENT_TYPE)


def _dumped(content: Any) -> str:
    """JSON; a value that JSON does not have is left out, since a client can do nothing about it."""
    try:
        return json.dumps(content, separators=(",", ":"), allow_nan=False)
    except ValueError:
        log.exception("an answer has values that JSON does not have")
        return json.dumps(clean(content), separators=(",", ":"))


def _plain(shape: Any, value: Any, path: str) -> Any:
    """A result without the members that are None."""
    if shape.type_name == "structure":
        given = members(shape, value, path)
        return {name: _plain(shape.members[name], content, f"{path}.{name}") for name, content in given.items()}
    if shape.type_name == "list":
        return [_plain(shape.member, item, f"{path}[]") for item in value]
    if shape.type_name == "map":
        return {key: _plain(shape.value, item, f"{path}.{key}") for key, item in value.items()}
    return value


def failure(error: ServiceError, request_id: str) -> Response:  # noqa: ARG001  the header has it
    """An error, for REST JSON services (SageMaker Runtime) too: they read the code from the header."""
    content = json.dumps({"__type": error.code, "message": error.message})
    return Response(content, error.status, {"x-amzn-ErrorType": error.code}, content_type=CONTENT_TYPE)
