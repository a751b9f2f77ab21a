"""Members of REST protocols: they are in the address, the headers, the status and the body. Botocore's models state
which member is where.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from werkzeug import Request, Response

from microjobs_orchestrator.local.protocols import event_stream
from microjobs_orchestrator.local.protocols.answer import Answer
from microjobs_orchestrator.local.protocols.http import get_headers, get_target
from microjobs_orchestrator.local.protocols.rest_routes import (
    Codes,
    PathTemplate,
    decode,
    make_error,
    parse_query,
    wire_name,
)
from microjobs_orchestrator.local.protocols.results import select_members
from microjobs_orchestrator.local.protocols.text import format_text, parse_text

UNBOUND = frozenset({"AWSAccessKeyId", "Expires", "Signature", "x-id"})
"""Parameters that belong to no operation: those of addresses presigned with version 2, and the operation's name, which
newer SDKs send."""

_BESIDE_BODY = frozenset({"uri", "querystring", "header", "headers", "statusCode"})
"""Places of members outside of the body."""


def is_beside_body(member: Shape) -> bool:
    """Return whether a member is in the address, the headers or the status."""
    return member.serialization.get("location") in _BESIDE_BODY


# --- requests ---


@dataclass(frozen=True)
class Bindings:
    """Members of an operation's request by their places, with the name and the shape of each."""

    path: PathTemplate
    literals: frozenset[str]
    labels: Mapping[str, tuple[str, Shape]]
    parameters: Mapping[str, tuple[str, Shape]]
    all_parameters: Sequence[tuple[str, MapShape]]
    """Members that hold all parameters."""
    headers: Mapping[str, tuple[str, Shape]]
    prefixes: Mapping[str, str]
    """Members that hold all headers of a prefix."""


@cache
def _bind(operation: OperationModel) -> Bindings:
    path, _, query = operation.http["requestUri"].partition("?")
    places: dict[str, dict[str, tuple[str, Shape]]] = {}
    for name, member in (operation.input_shape.members if operation.input_shape else {}).items():
        location = member.serialization.get("location", "")
        places.setdefault(location, {})[wire_name(name, member)] = (name, member)
    parameters = places.get("querystring", {})
    return Bindings(
        PathTemplate.parse(path),
        frozenset(dict(parse_qsl(query, keep_blank_values=True))),
        places.get("uri", {}),
        {wire: bound for wire, bound in parameters.items() if not isinstance(bound[1], MapShape)},
        [(name, member) for name, member in parameters.values() if isinstance(member, MapShape)],
        places.get("header", {}),
        {prefix.lower(): name for prefix, (name, _) in places.get("headers", {}).items()},
    )


def parse_address(operation: OperationModel, request: Request, codes: Codes) -> dict[str, Any]:
    """Return the members in the address and the headers; members that are absent have no entry.

    Raises:
        ServiceError: a value is not of its type, a parameter is repeated, or the operation does not have it.
    """
    bindings, (path, query) = _bind(operation), get_target(request)
    labels = bindings.path.read_labels(path)
    members = {
        name: _convert(name, shape, decode(labels[wire], codes), codes)
        for wire, (name, shape) in bindings.labels.items()
    }
    if query:
        members |= _parse_parameters(operation, bindings, query, codes)
    return members | _parse_headers(bindings, get_headers(request), codes)


def _parse_headers(bindings: Bindings, headers: Mapping[str, str], codes: Codes) -> dict[str, Any]:
    members = {
        name: _parse_header(name, shape, headers[wire], codes)
        for wire, (name, shape) in bindings.headers.items()
        if wire in headers
    }
    for prefix, name in bindings.prefixes.items():
        if found := {key.removeprefix(prefix): text for key, text in headers.items() if key.startswith(prefix)}:
            members[name] = found
    return members


def _parse_header(name: str, shape: Shape, text: str, codes: Codes) -> Any:
    if isinstance(shape, ListShape):
        return [_convert(name, shape.member, item.strip(), codes) for item in text.split(",")]
    return _convert(name, shape, text, codes)


def _parse_parameters(operation: OperationModel, bindings: Bindings, query: str, codes: Codes) -> dict[str, Any]:
    values: dict[str, list[str]] = {}
    for parameter, value in parse_query(query, codes):
        values.setdefault(parameter, []).append(value)
    _check_parameters(operation, bindings, values, codes)
    members = {
        name: _parse_values(name, shape, values[wire], codes)
        for wire, (name, shape) in bindings.parameters.items()
        if wire in values
    }
    for name, shape in bindings.all_parameters:
        members[name] = {key: _parse_values(key, shape.value, texts, codes) for key, texts in values.items()}
    return members


def _check_parameters(
    operation: OperationModel, bindings: Bindings, values: Mapping[str, Sequence[str]], codes: Codes
) -> None:
    """Refuse parameters that are repeated, and those that could change the meaning of the request unnoticed."""
    if bindings.all_parameters:
        return
    # Headers may be parameters, too: in addresses that are presigned with version 2.
    known = {*bindings.literals, *bindings.parameters, *bindings.headers, *UNBOUND}
    for name, texts in values.items():
        member = bindings.parameters.get(name)
        if len(texts) > 1 and not (member and isinstance(member[1], ListShape)):
            raise make_error(codes.malformed_value, f"The parameter {name!r} came more than once; send it once.")
        if name not in known and not name.lower().startswith("x-amz-"):
            raise make_error(codes.unknown_parameter, f"{operation.name} has no query parameter {name!r} here.")


def _parse_values(name: str, shape: Shape, texts: Sequence[str], codes: Codes) -> Any:
    if isinstance(shape, ListShape):
        return [_convert(name, shape.member, text, codes) for text in texts]
    return _convert(name, shape, texts[0], codes)


def _convert(name: str, shape: Shape, text: str, codes: Codes) -> Any:
    try:
        return parse_text(shape, text)
    except ValueError:
        message = f"{name} is {text!r}, which is no {shape.type_name}."
        raise make_error(codes.malformed_value, message) from None


ParseDocument = Callable[[StructureShape, bytes], dict[str, Any]]
"""Returns the members of a structure that a body holds, without those beside it."""


def parse_members(
    operation: OperationModel,
    request: Request,
    codes: Codes,
    parse_document: ParseDocument,
) -> dict[str, Any]:
    """Return all members of a request, but for a payload that its handler reads as a stream.

    Raises:
        ServiceError: the request is not one of this operation.
    """
    members = parse_address(operation, request, codes)
    shape = operation.input_shape
    if shape is None:
        return members
    name = shape.serialization.get("payload")
    if name is not None:
        return members | _parse_payload(name, shape, request, codes, parse_document)
    return members | (parse_document(shape, request.get_data()) if has_document(shape) else {})


def _parse_payload(
    name: str,
    shape: StructureShape,
    request: Request,
    codes: Codes,
    parse_document: ParseDocument,
) -> dict[str, Any]:
    payload = shape.members[name]
    if payload.serialization.get("streaming"):
        return {}
    body = request.get_data()
    if isinstance(payload, StructureShape):
        return {name: parse_document(payload, body)} if body or name in shape.required_members else {}
    if payload.type_name == "blob":
        return {name: body}
    try:
        return {name: body.decode()}
    except ValueError:
        raise make_error(codes.malformed_value, f"{name} is not UTF-8.") from None


def has_document(shape: StructureShape) -> bool:
    """Return whether members of a structure are in the body."""
    return not all(is_beside_body(member) for member in shape.members.values())


# --- results ---

FormatDocument = Callable[[StructureShape, Mapping[str, Any], str], bytes]
"""Formats the members of a structure that are in the body. The name is that of the member or event which the
structure is; empty if it is the whole result."""


def format_answer(
    operation: OperationModel, answer: Answer, content_type: str, format_document: FormatDocument
) -> Response:
    """Format a result: its status, headers and body.

    Args:
        content_type: of a body that `format_document` formats.
    """
    shape = operation.output_shape
    members = select_members(shape, answer.members, "") if shape else {}
    body, body_type = _format_body(operation, members, answer, content_type, format_document)
    response = Response(body, answer.status or int(operation.http.get("responseCode", 200)), content_type=None)
    response.direct_passthrough = True
    del response.headers["Content-Type"]  # werkzeug's default
    if body_type:
        response.headers["Content-Type"] = body_type
    for name, value in members.items():
        if shape is not None:
            _format_member(response, shape.members[name], value)
    response.headers.update(answer.headers)
    return response


def _format_body(
    operation: OperationModel,
    members: Mapping[str, Any],
    answer: Answer,
    content_type: str,
    format_document: FormatDocument,
) -> tuple[Iterable[bytes] | bytes, str]:
    """Return the body and its type; the type is empty if headers state it."""
    shape = operation.output_shape
    if answer.body is not None or shape is None:
        return answer.body or b"", ""
    if answer.events is not None:
        stream = operation.get_event_stream_output()
        events = event_stream.encode_events(stream, answer.events, content_type, format_document)
        return events, event_stream.CONTENT_TYPE
    name = shape.serialization.get("payload")
    if name is None and not has_document(shape):
        return b"", ""
    if name is None:
        inner = {key: value for key, value in members.items() if not is_beside_body(shape.members[key])}
        return format_document(shape, inner, ""), content_type
    payload, content = shape.members[name], members.get(name)
    if isinstance(payload, StructureShape):
        return format_document(payload, content or {}, name), content_type
    return content.encode() if isinstance(content, str) else content or b"", ""


def _format_member(response: Response, member: Shape, value: Any) -> None:
    """Write a member that is not in the body."""
    match member.serialization.get("location"):
        case "header":
            response.headers[member.serialization["name"]] = _format_header(member, value)
        case "headers":
            for name, text in value.items():
                response.headers[member.serialization["name"] + name] = text
        case "statusCode":
            response.status_code = value


def _format_header(member: Shape, value: Any) -> str:
    if isinstance(member, ListShape):
        return ",".join(format_text(member.member, item, "http") for item in value)
    return format_text(member, value, "http")
