"""Members of REST protocols, which are in the address, the headers and the body. Botocore's models state the location
of each member. Locations that neither S3 nor SageMaker Runtime uses are not supported.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from http import HTTPStatus
from typing import Any

from botocore.model import ListShape, OperationModel, Shape, StructureShape
from werkzeug import Request, Response
from werkzeug.wsgi import ClosingIterator

from microjobs_orchestrator.local.protocols import event_stream
from microjobs_orchestrator.local.protocols.event_stream import FormatDocument
from microjobs_orchestrator.local.protocols.http import get_headers, get_target
from microjobs_orchestrator.local.protocols.responses import CompleteResponse, HttpResponse
from microjobs_orchestrator.local.protocols.rest_routes import (
    RestErrorCodes,
    Route,
    decode,
    get_route,
    make_error,
    parse_query,
)
from microjobs_orchestrator.local.protocols.results import OperationResult, select_members
from microjobs_orchestrator.local.protocols.text import format_text, parse_text

COMMON_PARAMETERS = frozenset({"AWSAccessKeyId", "Expires", "Signature", "x-id"})
"""Parameters that every operation accepts: those of URLs that are presigned with signature version 2, and `x-id`, in
which newer SDKs send the operation's name."""

_OK = HTTPStatus.OK.value
_OUTSIDE_BODY = frozenset({"uri", "querystring", "header", "headers"})
"""Locations of members outside of the body."""


def is_outside_body(member: Shape) -> bool:
    """Return whether a member is in the address or the headers."""
    return member.serialization.get("location") in _OUTSIDE_BODY


@cache
def has_document(shape: StructureShape) -> bool:
    """Return whether members of a structure are in the body."""
    return not all(is_outside_body(member) for member in shape.members.values())


# --- requests ---

ParseDocument = Callable[[StructureShape, bytes], dict[str, Any]]
"""Returns the members of a structure that are in the body."""


def parse_members(
    operation: OperationModel, request: Request, codes: RestErrorCodes, parse_document: ParseDocument
) -> dict[str, Any]:
    """Return the members of a request, except a payload that the handler reads as a stream.

    Raises:
        ServiceError: a value has the wrong type, or a parameter is repeated or unknown.
    """
    route, shape, (path, query) = get_route(operation), operation.input_shape, get_target(request)
    members = dict(_parse_path(operation, path, codes))
    if query:
        members |= _parse_parameters(route, query, codes)
    members |= _parse_headers(route, get_headers(request), codes)
    if shape is None:
        return members
    if name := shape.serialization.get("payload"):
        return members | _parse_payload(name, shape, request, codes, parse_document)
    return members | (parse_document(shape, request.get_data()) if has_document(shape) else {})


@lru_cache(maxsize=1024)
def _parse_path(operation: OperationModel, path: str, codes: RestErrorCodes) -> Mapping[str, Any]:
    route = get_route(operation)
    match, members_by_name = route.path_pattern.fullmatch(path), route.members_by_location.get("uri", {})
    labels = zip(route.labels, match.groups(), strict=True) if match else ()
    values = ((*members_by_name[label], text) for label, text in labels)
    return {name: _convert(name, shape, decode(text, codes), codes) for name, shape, text in values}


def _parse_headers(route: Route, headers: Mapping[str, str], codes: RestErrorCodes) -> dict[str, Any]:
    members = {
        name: _convert(name, shape, headers[wire_name], codes)
        for wire_name, (name, shape) in route.members_by_location.get("header", {}).items()
        if wire_name in headers
    }
    for prefix, (name, _) in route.members_by_location.get("headers", {}).items():
        if prefixed_headers := {
            key.removeprefix(prefix): text for key, text in headers.items() if key.startswith(prefix)
        }:
            members[name] = prefixed_headers
    return members


def _parse_parameters(route: Route, query: str, codes: RestErrorCodes) -> dict[str, Any]:
    """Parse parameters. Refuse repeated parameters, and unknown ones, which could change the meaning of a request."""
    members_by_name, parameters = route.members_by_location.get("querystring", {}), parse_query(query, codes)
    # In a URL that is presigned with signature version 2, parameters replace headers.
    known_names = {
        *dict(route.fixed_parameters),
        *members_by_name,
        *route.members_by_location.get("header", {}),
        *COMMON_PARAMETERS,
    }
    for name, count in Counter(name for name, _ in parameters).items():
        if count > 1:
            raise make_error(codes.malformed_value, f"The parameter {name!r} is repeated; send it once.")
        if name not in known_names and not name.lower().startswith("x-amz-"):
            raise make_error(codes.unknown_parameter, f"{route.operation.name} has no query parameter {name!r}.")
    return {
        members_by_name[wire_name][0]: _convert(*members_by_name[wire_name], text, codes)
        for wire_name, text in parameters
        if wire_name in members_by_name
    }


def _convert(name: str, shape: Shape, text: str, codes: RestErrorCodes) -> Any:
    if isinstance(shape, ListShape):
        return [_convert(name, shape.member, item.strip(), codes) for item in text.split(",")]
    try:
        return parse_text(shape, text)
    except ValueError:
        raise make_error(codes.malformed_value, f"{name} is {text!r}; its type must be {shape.type_name}.") from None


def _parse_payload(
    name: str, shape: StructureShape, request: Request, codes: RestErrorCodes, parse_document: ParseDocument
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


# --- results ---


class RestResponse(Response):
    """A response without werkzeug's default content type."""

    default_mimetype = None


def format_result(
    operation: OperationModel, result: OperationResult, content_type: str, format_document: FormatDocument
) -> HttpResponse:
    """Format a result: its status, headers and body.

    Args:
        content_type: the type of a body that `format_document` formats.
    """
    shape = operation.output_shape
    members = select_members(shape, result.members, "") if shape else {}
    body, body_type = _format_body(operation, members, result, content_type, format_document)
    headers = {"Content-Type": body_type} if body_type else {}
    for name, value in members.items():
        if shape is not None:
            headers |= _format_member(shape.members[name], value)
    status = result.status or int(operation.http.get("responseCode", _OK))
    headers |= result.headers
    # Responses with a Location header are RestResponses, because werkzeug makes the address in this header absolute.
    if status == _OK and isinstance(body, bytes) and "Location" not in headers:
        return CompleteResponse(body, headers)
    response = RestResponse(body, status, direct_passthrough=True)
    response.headers.update(headers)  # for HeadObject, this also replaces werkzeug's Content-Length
    return response


def _format_body(
    operation: OperationModel,
    members: Mapping[str, Any],
    result: OperationResult,
    content_type: str,
    format_document: FormatDocument,
) -> tuple[Iterable[bytes] | bytes, str]:
    """Return the body and its type; the type is empty if a header states it."""
    shape = operation.output_shape
    if result.body is not None or shape is None:
        return result.body or b"", ""
    if result.events is not None:
        stream = operation.get_event_stream_output()
        messages = event_stream.encode_events(stream, result.events, content_type, format_document)
        return ClosingIterator(messages, getattr(result.events, "close", None)), event_stream.CONTENT_TYPE
    if name := shape.serialization.get("payload"):
        payload, content = shape.members[name], members.get(name)
        if isinstance(payload, StructureShape):
            return format_document(payload, content or {}, name), content_type
        return content.encode() if isinstance(content, str) else content or b"", ""
    if has_document(shape):
        body_members = {key: value for key, value in members.items() if not is_outside_body(shape.members[key])}
        return format_document(shape, body_members, ""), content_type
    return b"", ""


def _format_member(member: Shape, value: Any) -> Mapping[str, str]:
    """Return the headers of a member; a member of the body has none."""
    match member.serialization.get("location"):
        case "header":
            return {member.serialization["name"]: format_text(member, value, time_format="http")}
        case "headers":
            return {member.serialization["name"] + name: text for name, text in value.items()}
    return {}
