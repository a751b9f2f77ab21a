"""Event streams, the response bodies of operations such as InvokeEndpointWithResponseStream: a binary message for each
event, with headers and a payload. https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from struct import pack
from typing import Any
from zlib import crc32

from botocore.model import Shape, StructureShape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import ResultError, select_members

CONTENT_TYPE = "application/vnd.amazon.eventstream"

MAX_HEADER_BYTES = 128 << 10
MAX_PAYLOAD_BYTES = 24 << 20
"""Limits of one message, which clients check."""

FormatDocument = Callable[[StructureShape, Mapping[str, Any], str], bytes]
"""Formats a structure in the protocol of the service. The name is that of the event."""

Event = tuple[str, Mapping[str, Any]]
"""Name of an event, which is a member of the stream's shape, and its members."""


def encode_events(
    stream: Any, events: Iterable[Event], content_type: str, format_document: FormatDocument
) -> Iterator[bytes]:
    """Yield the messages of a stream. A ServiceError that the events raise becomes the last message.

    Args:
        stream: shape with the stream's events as members.
        content_type: of a payload that `format_document` formats.

    Raises:
        ResultError: an event, or a member of it, is unknown.
    """
    try:
        for name, members in events:
            yield _encode_event(stream, name, members, content_type, format_document)
    except ServiceError as error:
        yield _encode_error(stream, error, content_type, format_document)


def _encode_event(
    stream: Any,
    name: str,
    members: Mapping[str, Any],
    content_type: str,
    format_document: FormatDocument,
) -> bytes:
    if name not in stream.members:
        raise ResultError(f"{stream.name} has no event {name}")
    event: Any = stream.members[name]
    headers: dict[str, bytes] = {":message-type": _string("event"), ":event-type": _string(name)}
    rest: dict[str, Any] = {}
    payload = b""
    for member_name, value in select_members(event, members, name).items():
        member = event.members[member_name]
        if member.serialization.get("eventheader"):
            headers[member_name] = _encode_value(member, value)
        elif member.serialization.get("eventpayload"):
            payload, content_type = _encode_payload(member, value, content_type, format_document)
        else:
            rest[member_name] = value
    if rest:
        payload = format_document(event, rest, name)
    return encode_message(headers | {":content-type": _string(content_type)}, payload)


def _encode_payload(member: Shape, value: Any, content_type: str, format_document: FormatDocument) -> tuple[bytes, str]:
    if isinstance(member, StructureShape):
        return format_document(member, value, member.name), content_type
    if member.type_name == "blob":
        return bytes(value), "application/octet-stream"
    return str(value).encode(), "text/plain"


def _encode_error(stream: Any, error: ServiceError, content_type: str, format_document: FormatDocument) -> bytes:
    """Encode an error as the exception of that code, if the stream has one."""
    for name, shape in stream.members.items():
        if shape.metadata.get("exception") and error.code in (name, shape.name):
            headers = {":message-type": "exception", ":exception-type": name, ":content-type": content_type}
            message = next((member for member in shape.members if member.lower() == "message"), None)
            members = {message: error.message} if message else {}
            return encode_message(_strings(headers), format_document(shape, members | dict(error.members), name))
    headers = {":message-type": "error", ":error-code": error.code, ":error-message": error.message}
    return encode_message(_strings(headers), b"")


def encode_message(headers: Mapping[str, bytes], payload: bytes) -> bytes:
    """Return one message: lengths, their CRC, headers, payload, and the CRC of all.

    Args:
        headers: encoded values by name.

    Raises:
        ValueError: clients would not accept the size.
    """
    block = b"".join(pack(">B", len(name.encode())) + name.encode() + value for name, value in headers.items())
    if len(block) > MAX_HEADER_BYTES or len(payload) > MAX_PAYLOAD_BYTES:
        message = f"An event has {len(block)} bytes of headers and {len(payload)} of payload"
        raise ValueError(f"{message}; the limits are {MAX_HEADER_BYTES} and {MAX_PAYLOAD_BYTES}.")
    prelude = pack(">II", 12 + len(block) + len(payload) + 4, len(block))
    content = prelude + pack(">I", crc32(prelude)) + block + payload
    return content + pack(">I", crc32(content))


def _strings(headers: Mapping[str, str]) -> dict[str, bytes]:
    return {name: _string(text) for name, text in headers.items()}


def _string(text: str) -> bytes:
    return pack(">BH", 7, len(text.encode())) + text.encode()


def _blob(value: bytes) -> bytes:
    return pack(">BH", 6, len(value)) + value


def _timestamp(value: datetime | float) -> bytes:
    seconds = value.timestamp() if isinstance(value, datetime) else value
    return pack(">Bq", 8, round(seconds * 1000))


ENCODERS: Mapping[str, Callable[[Any], bytes]] = {
    "boolean": lambda value: pack(">B", 0 if value else 1),
    "byte": lambda value: pack(">Bb", 2, value),
    "short": lambda value: pack(">Bh", 3, value),
    "integer": lambda value: pack(">Bi", 4, value),
    "long": lambda value: pack(">Bq", 5, value),
    "blob": _blob,
    "string": _string,
    "timestamp": _timestamp,
}
"""Encoders of header values, by the type of their shape: a byte for the type, the length if it varies, the value."""


def _encode_value(shape: Shape, value: Any) -> bytes:
    return ENCODERS[shape.type_name](value)
