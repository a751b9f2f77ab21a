"""The protocol of the console's operations: AWS JSON for all services.

In the service's own protocol, a blob can be the whole body, such as `Body` of InvokeEndpoint. In the console's
protocol, such a blob is a member of the JSON object: a text in base64. An event stream is a sequence of lines, and each
line is a JSON object.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from botocore.model import OperationModel, StructureShape
from werkzeug import Request, Response
from werkzeug.wsgi import ClosingIterator

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols import aws_json
from microjobs_orchestrator.local.protocols.results import Event, OperationResult, select_members

CONTENT_TYPE = "application/json"
LINES_TYPE = "application/jsonlines"
"""The media type of event streams, which have one JSON value per line."""


class ConsoleProtocol:
    """The `WireProtocol` of the console's operations."""

    UNKNOWN_OPERATION = aws_json.UNKNOWN_OPERATION

    def find_operation(self, service: str, request: Request, /) -> str:
        """Return the operation of a path such as `sagemaker/ListModels`, without the service."""
        return request.path.rpartition(f"/{service}/")[2]

    def parse(self, operation: OperationModel, request: Request, /) -> dict[str, Any]:
        members = aws_json.parse(operation, request)
        if name := _find_payload(operation.input_shape):
            members[name] = _decode(name, members.get(name, ""))
        return members

    def format_result(self, operation: OperationModel, result: OperationResult, request: Request, /) -> Response:
        shape = operation.output_shape
        if shape is not None and result.events is not None:
            lines = _format_events(select_members(shape, result.members, ""), result.events)
            return Response(ClosingIterator(lines, getattr(result.events, "close", None)), content_type=LINES_TYPE)
        if shape is None or (name := _find_payload(shape)) is None:
            response = aws_json.format_result(operation, result, request)
            response.content_type = CONTENT_TYPE
            return response
        members = select_members(shape, result.members, "")
        encoded_members = {**members, name: base64.b64encode(members[name]).decode()}
        return Response(json.dumps(encoded_members), content_type=CONTENT_TYPE)

    def format_error(self, error: ServiceError, _: Request, /) -> Response:
        return Response(json.dumps(_describe_error(error)), error.status, content_type=CONTENT_TYPE)


def _describe_error(error: ServiceError) -> dict[str, Any]:
    return {**error.members, "__type": error.code, "message": error.message}


def _format_events(members: Mapping[str, Any], events: Iterable[Event]) -> Iterator[bytes]:
    """Yield lines of JSON: the members of the result, then the bytes of each event in base64. If an error ends the
    events, the last line describes it.

    An event that is None stands for a pause; it becomes empty bytes.
    """
    yield _format_line(members)
    try:
        for event in events:
            blobs = [] if event is None else [value for value in event[1].values() if isinstance(value, bytes)]
            yield b"".join(_format_line({"bytes": base64.b64encode(value).decode()}) for value in blobs)
    except ServiceError as error:
        yield _format_line(_describe_error(error))


def _format_line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _find_payload(shape: StructureShape | None) -> str | None:
    """Return the member that is the whole body in the service's protocol, if it is a blob."""
    name = shape.serialization.get("payload") if shape else None
    return name if shape and name and shape.members[name].type_name == "blob" else None


def _decode(name: str, value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ServiceError("SerializationException", f"{name} must be text in base64: {error}") from error
