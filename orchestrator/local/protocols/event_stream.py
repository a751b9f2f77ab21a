"""Event streams, the response bodies of operations such as InvokeEndpointWithResponseStream: one binary message per
event, with headers and a payload. https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from struct import pack
from typing import Any
from zlib import crc32

from botocore.model import StructureShape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.results import Event, ResultError, select_members

CONTENT_TYPE = "application/vnd.amazon.eventstream"

MAX_PAYLOAD_BYTES = 24 << 20
"""Maximum size of the payload of one message. Clients refuse larger messages."""

_STRING = 7
"""The type code of a header whose value is a string."""

FormatDocument = Callable[[StructureShape, Mapping[str, Any], str], bytes]
"""Formats the members of a structure that are in the body. The last argument is the name of the member or event whose
value is the structure; it is empty for the whole result."""


def encode_events(
    stream: Any, events: Iterable[Event], content_type: str, format_document: FormatDocument
) -> Iterator[bytes]:
    """Yield the messages of a stream. For the event None, which stands for a pause, yield an empty part.

    If the iteration over the events raises a ServiceError, the error becomes the last message.

    Args:
        stream: shape with the stream's events as members.
        events: the name of each event, which is a member of `stream`, and the members of the event.
        content_type: the type of payloads that `format_document` formats.

    Raises:
        ResultError: an event, or one of its members, is unknown.
    """
    try:
        for event in events:
            if event is None:
                yield b""
                continue
            name, members = event
            if name not in stream.members:
                raise ResultError(f"{stream.name} has no event {name}")
            yield _encode_event(stream.members[name], name, members, content_type, format_document)
    except ServiceError as error:
        yield _encode_error(stream, error, content_type, format_document)


def _encode_event(
    event_shape: Any, name: str, members: Mapping[str, Any], content_type: str, format_document: FormatDocument
) -> bytes:
    content = select_members(event_shape, members, name)
    blob_name = next(
        (member for member, shape in event_shape.members.items() if shape.serialization.get("eventpayload")), ""
    )
    payload = bytes(content.get(blob_name, b"")) if blob_name else format_document(event_shape, content, name)
    payload_type = "application/octet-stream" if blob_name else content_type
    return encode_message({":message-type": "event", ":event-type": name, ":content-type": payload_type}, payload)


def _encode_error(stream: Any, error: ServiceError, content_type: str, format_document: FormatDocument) -> bytes:
    """Encode an error as the stream's exception with the same code; if there is none, as a message of type `error`."""
    for name, shape in stream.members.items():
        if shape.metadata.get("exception") and error.code == shape.name:
            headers = {":message-type": "exception", ":exception-type": name, ":content-type": content_type}
            return encode_message(headers, format_document(shape, {"Message": error.message, **error.members}, name))
    headers = {":message-type": "error", ":error-code": error.code, ":error-message": error.message}
    return encode_message(headers, b"")


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message: its lengths, their CRC, the headers, the payload, and the CRC of all these bytes.

    Raises:
        ValueError: the payload is larger than clients accept.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"An event has a payload of {len(payload)} bytes; the limit is {MAX_PAYLOAD_BYTES}.")
    block = b"".join(_encode_header(name.encode(), value.encode()) for name, value in headers.items())
    prelude = pack(">II", 12 + len(block) + len(payload) + 4, len(block))
    content = prelude + pack(">I", crc32(prelude)) + block + payload
    return content + pack(">I", crc32(content))


def _encode_header(name: bytes, value: bytes) -> bytes:
    return pack(">B", len(name)) + name + pack(">BH", _STRING, len(value)) + value
