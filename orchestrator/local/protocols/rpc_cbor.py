"""Smithy RPC v2 CBOR, which botocore calls "smithy-rpc-v2-cbor", for CloudWatch. The path names the operation, and the
body is a CBOR map with the members.

Source: https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html
"""

import base64
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from botocore.parsers import ResponseParserError, RpcV2CBORParser
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.aws_json import check_depth
from microjobs_orchestrator.local.protocols.results import OperationResult, select_members
from microjobs_orchestrator.local.protocols.text import parse_float

CONTENT_TYPE = "application/cbor"
PROTOCOL_HEADER = "smithy-protocol"
PROTOCOL = "rpc-v2-cbor"
UNKNOWN_OPERATION = ("UnknownOperationException", 404)

PATH_PATTERN = re.compile("/service/[^/]+/operation/([^/]+)")

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG = range(7)
"""Major types of CBOR."""
TIME_TAG = 1
FLOAT_CODE = 0xFB
FALSE_CODE, TRUE_CODE = 0xF4, 0xF5

_parser = RpcV2CBORParser(timestamp_parser=lambda seconds: seconds)
"""Botocore's parser of CBOR. It supports only the part of CBOR that the protocol uses. The only tag that it supports is
the tag of times."""


class _Stream(BytesIO):
    """The input of the parser. It replaces botocore's own stream, which reserves memory for any length that a body
    states."""

    def peek(self, size: int) -> bytes:
        start = self.tell()
        return bytes(self.getbuffer()[start : start + size])


def find_operation(_: str, request: Request) -> str:
    match = PATH_PATTERN.fullmatch(request.path)
    return match[1] if match else ""


def parse(operation: OperationModel, request: Request) -> dict[str, Any]:
    """Parse the body. Raise ServiceError SerializationException if it is not a CBOR map of valid values."""
    if operation.input_shape is None or not (body := request.get_data()):
        return {}
    try:
        content = _load(body)
    except (ResponseParserError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ServiceError("SerializationException", f"{operation.name} takes a CBOR map: {error}") from error
    if isinstance(content, dict):
        return content
    raise ServiceError("SerializationException", f"{operation.name} takes a CBOR map, not {content!r:.60}")


def _load(body: bytes) -> Any:
    stream = _Stream(body)
    content = _parser.parse_data_item(stream)
    if stream.tell() < len(body):
        raise ValueError(f"{len(body) - stream.tell()} bytes follow the map")
    check_depth(content)
    return _convert(content)


def _convert(value: Any) -> Any:
    """Return a value in JSON's types. Raise ValueError for a key that is not a text, or a number that is not finite."""
    if isinstance(value, dict):
        if invalid_keys := [name for name in value if not isinstance(name, str)]:
            raise ValueError(f"the key {invalid_keys[0]!r:.40} is not a text")
        return {name: _convert(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_convert(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return parse_float(repr(value)) if isinstance(value, float) else value


# --- results ---


def format_result(operation: OperationModel, result: OperationResult, _: Request) -> Response:
    shape = operation.output_shape
    return _make_response(b"".join(_encode(shape, result.members, "")) if shape else b"", 200)


def format_error(error: ServiceError, _: Request) -> Response:
    members = {"__type": error.code, "message": error.message}
    pairs = (part for name, text in members.items() for part in (*_encode_text(name), *_encode_text(text)))
    response = _make_response(b"".join([_encode_head(MAP, len(members)), *pairs]), error.status)
    response.headers["x-amzn-ErrorType"] = error.code
    return response


def _make_response(content: bytes, status: int) -> Response:
    return Response(content, status, {PROTOCOL_HEADER: PROTOCOL}, content_type=CONTENT_TYPE)


def _encode(shape: Shape, value: Any, path: str) -> Iterator[bytes]:
    """Yield the parts of a value. Raise ResultError for an unknown member."""
    if isinstance(shape, StructureShape):
        members = select_members(shape, value, path)
        yield _encode_head(MAP, len(members))
        for name, content in members.items():
            yield from (*_encode_text(name), *_encode(shape.members[name], content, f"{path}.{name}"))
    elif isinstance(shape, MapShape):
        yield _encode_head(MAP, len(value))
        for name, content in value.items():
            yield from (*_encode_text(name), *_encode(shape.value, content, f"{path}.{name}"))
    elif isinstance(shape, ListShape):
        yield _encode_head(ARRAY, len(value))
        for item in value:
            yield from _encode(shape.member, item, f"{path}[]")
    else:
        yield from ENCODERS[shape.type_name](value)


def _encode_head(major: int, number: int) -> bytes:
    """Encode a major type with a number or a length below 2 ** 64."""
    if number < 24:
        return bytes([major << 5 | number])
    exponent = next(exponent for exponent in range(4) if number < 1 << (8 << exponent))
    return bytes([major << 5 | 24 + exponent]) + number.to_bytes(1 << exponent)


def _encode_text(text: str) -> tuple[bytes, bytes]:
    content = text.encode(errors="replace")
    return _encode_head(TEXT, len(content)), content


def _encode_integer(value: int) -> tuple[bytes]:
    return (_encode_head(UNSIGNED, value) if value >= 0 else _encode_head(NEGATIVE, -1 - value),)


def _encode_float(value: float) -> tuple[bytes]:
    return (struct.pack(">Bd", FLOAT_CODE, value),)


def _encode_time(value: float) -> tuple[bytes, ...]:
    return _encode_head(TAG, TIME_TAG), *_encode_float(value)


def _encode_boolean(value: bool) -> tuple[bytes]:
    return (bytes([TRUE_CODE if value else FALSE_CODE]),)


ENCODERS: Mapping[str, Callable[[Any], tuple[bytes, ...]]] = {
    "string": _encode_text,
    "integer": _encode_integer,
    "long": _encode_integer,
    "float": _encode_float,
    "double": _encode_float,
    "timestamp": _encode_time,
    "boolean": _encode_boolean,
}
"""Encoders by the type of the shape. `_encode` encodes structures, lists and maps. No result of a supported operation
has another type, such as a blob."""
