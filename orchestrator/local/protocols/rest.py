"""Members of REST protocols: they are in the address, the headers, the status and the body. Botocore's models state
which member is where.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

SIGNATURE = frozenset({"AWSAccessKeyId", "Expires", "Signature"})
"""Parameters of addresses presigned with version 2. Those of version 4 begin with `X-Amz-`."""

_BESIDE_BODY = frozenset({"uri", "querystring", "header", "headers", "statusCode"})
"""Places of members outside of the body."""


def is_beside_body(member: Shape) -> bool:
    """Return whether a member is in the address, the headers or the status."""
    return member.serialization.get("location") in _BESIDE_BODY


# --- requests ---


@dataclass(frozen=True)
class _Source:
    """What the members of one request are read from."""

    labels: Mapping[str, str]
    parameters: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    codes: Codes

    def read(self, name: str, member: Shape) -> Iterator[Any]:
        """Yield the value of a member, if the request has it."""
        wire = member.serialization.get("name", name)
        location = member.serialization.get("location")
        if location == "uri":
            yield self._convert(name, member, self.labels[wire])
        elif location == "querystring" and isinstance(member, MapShape):
            yield {key: self._parse_parameter(name, member.value, key) for key in self.parameters}
        elif location == "querystring" and wire in self.parameters:
            yield self._parse_parameter(name, member, wire)
        elif location == "header" and wire.lower() in self.headers:
            yield self._parse_header(name, member, self.headers[wire.lower()])
        elif location == "headers":
            yield from self._read_prefixed(wire.lower())

    def _read_prefixed(self, prefix: str) -> Iterator[dict[str, str]]:
        found = {name.removeprefix(prefix): text for name, text in self.headers.items() if name.startswith(prefix)}
        if found:
            yield found

    def _parse_parameter(self, name: str, member: Shape, wire: str) -> Any:
        values = self.parameters[wire]
        if isinstance(member, ListShape):
            return [self._convert(name, member.member, value) for value in values]
        return self._convert(name, member, values[0])

    def _parse_header(self, name: str, member: Shape, value: str) -> Any:
        if isinstance(member, ListShape):
            return [self._convert(name, member.member, item.strip()) for item in value.split(",")]
        return self._convert(name, member, value)

    def _convert(self, name: str, shape: Shape, text: str) -> Any:
        try:
            return parse_text(shape, text)
        except ValueError:
            raise make_error(
                self.codes.malformed_value, f"{name} is {text!r}, which is no {shape.type_name}."
            ) from None


def parse_address(operation: OperationModel, request: Request, codes: Codes) -> dict[str, Any]:
    """Return the members in the address and the headers; members that are absent have no entry.

    Raises:
        ServiceError: a value is not of its type, a parameter is repeated, or the operation does not have it.
    """
    template, _, literals = operation.http["requestUri"].partition("?")
    path, query = get_target(request)
    encoded = PathTemplate.parse(template).match(path) or {}
    labels = {label: decode(text, codes) for label, text in encoded.items()}
    parameters: dict[str, list[str]] = {}
    for parameter, value in parse_query(query, codes):
        parameters.setdefault(parameter, []).append(value)
    source = _Source(labels, parameters, get_headers(request), codes)
    known = operation.input_shape.members if operation.input_shape else {}
    if parameters:
        _check_parameters(operation, parameters, dict(parse_qsl(literals, keep_blank_values=True)).keys(), codes)
    return {name: value for name, member in known.items() for value in source.read(name, member)}


def _check_parameters(
    operation: OperationModel, parameters: Mapping[str, Sequence[str]], literals: Collection[str], codes: Codes
) -> None:
    """Refuse parameters that are repeated, and those that could change the meaning of the request unnoticed."""
    shape = operation.input_shape
    # Headers may be parameters, too: in addresses that are presigned with version 2.
    members = [
        (wire_name(name, member), member)
        for name, member in (shape.members if shape else {}).items()
        if member.serialization.get("location") in ("querystring", "header")
    ]
    takes_all = any(isinstance(member, MapShape) for _, member in members)
    lists = {name for name, member in members if isinstance(member, ListShape)}
    known = {name for name, _ in members} | SIGNATURE | {"x-id", *literals}
    for name, values in parameters.items():
        if len(values) > 1 and name not in lists and not takes_all:
            raise make_error(codes.malformed_value, f"The parameter {name!r} came more than once; send it once.")
        if not (name in known or takes_all or name.lower().startswith("x-amz-")):
            raise make_error(codes.unknown_parameter, f"{operation.name} has no query parameter {name!r} here.")


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
    body, body_type = _format_body(operation, replace(answer, members=members), content_type, format_document)
    response = Response(body, answer.status or int(operation.http.get("responseCode", 200)), content_type=None)
    response.direct_passthrough = True
    if body_type:
        response.headers["Content-Type"] = body_type
    for name, value in members.items():
        if shape is not None:
            _format_member(response, shape.members[name], value)
    response.headers.update(answer.headers)
    return response


def _format_body(
    operation: OperationModel, answer: Answer, content_type: str, format_document: FormatDocument
) -> tuple[Iterable[bytes] | bytes, str]:
    """Return the body and its type; the type is empty if headers state it."""
    shape, stream = operation.output_shape, operation.get_event_stream_output()
    if answer.body is not None or shape is None:
        return answer.body or b"", ""
    if stream is not None:
        events = event_stream.encode_events(stream, answer.events, content_type, format_document)
        return events, event_stream.CONTENT_TYPE
    name = shape.serialization.get("payload")
    if name is None and not has_document(shape):
        return b"", ""
    if name is None:
        inner = {key: value for key, value in answer.members.items() if not is_beside_body(shape.members[key])}
        return format_document(shape, inner, ""), content_type
    payload, content = shape.members[name], answer.members.get(name)
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
