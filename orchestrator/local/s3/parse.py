"""A request's members, with the types that the service model gives them."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree

from botocore.model import ListShape, OperationModel, Shape, StructureShape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.s3.wire import Incoming

AS_GIVEN = frozenset({"Expires", "ResponseExpires"})
"""Dates that are stored and sent back as they came."""

_WITHOUT_ENUM = frozenset({"BucketLocationConstraint"})
"""The list of regions lacks us-east-1."""

_ANY_VALUE = frozenset({"BucketCannedACL"})
"""AWS accepts bucket-owner-full-control of a bucket, too; parity decides which values are supported."""

_ANY_CASE = frozenset({"ChecksumMode"})
"""AWS's client for C++, and so Arrow's, writes it small."""


def parse_members(operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
    """The members in the address and the headers; those that are absent have no entry.

    Raises:
        ServiceError: InvalidArgument 400; a value is not of its type.
    """
    shape = operation.input_shape
    members: dict[str, Any] = {}
    for name, member in (shape.members if shape else {}).items():
        wire = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "uri":
                members[name] = incoming.key if wire == "Key" else incoming.bucket
            case "querystring" if wire in incoming.query:
                members[name] = _convert(name, member, incoming.query[wire])
            case "header" if wire.lower() in incoming.headers:
                members[name] = _convert(name, member, incoming.headers[wire.lower()])
            case "headers":
                members[name] = _with_prefix(incoming.headers, wire)
    return members


def _with_prefix(headers: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}


def parse_document(shape: Shape, document: bytes) -> Any:
    """An XML body as its shape says.

    Raises:
        ServiceError: MalformedXML 400.
    """
    try:
        text = document.decode()  # in another encoding a document type could hide
        if "<!DOCTYPE" in text:  # no entities: no surprises
            raise malformed("a document type is not allowed")
        root = ElementTree.fromstring(text)  # noqa: S314 - without a document type there is nothing to expand
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise malformed(str(error)) from None
    expected = shape.serialization.get("name", shape.name)
    if _tag(root) != expected:
        raise malformed(f"the document is a <{_tag(root)}> and not a <{expected}>")
    return _element(shape, root)


def malformed(reason: str) -> ServiceError:
    return ServiceError("MalformedXML", f"The XML you provided was not well-formed or not what S3 expects: {reason}.")


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _element(shape: Shape, element: ElementTree.Element) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, element)
    if isinstance(shape, ListShape):
        return [_element(shape.member, child) for child in element]
    return _convert(_tag(element), shape, element.text or "")


def _structure(shape: StructureShape, element: ElementTree.Element) -> dict[str, Any]:
    names = {_element_name(name, member): name for name, member in shape.members.items()}
    values: dict[str, Any] = {}
    for child in element:
        name = names.get(_tag(child))
        if name is None:
            raise malformed(f"<{_tag(element)}> has no <{_tag(child)}>")
        member = shape.members[name]
        if isinstance(member, ListShape) and member.serialization.get("flattened"):
            values.setdefault(name, []).append(_element(member.member, child))
        else:
            values[name] = _element(member, child)
    for name in shape.required_members:
        if name not in values:
            raise malformed(f"<{_tag(element)}> needs a <{name}>")
    return values


def _element_name(name: str, member: Shape) -> str:
    """A flattened list's elements are called as the list, or as its item if that has a name."""
    own = member.serialization.get("name")
    if isinstance(member, ListShape) and member.serialization.get("flattened") and own is None:
        own = member.member.serialization.get("name")
    return own or name


def _convert(name: str, shape: Shape, text: str) -> Any:
    try:
        if isinstance(shape, ListShape):
            return [_convert(name, shape.member, item.strip()) for item in text.split(",")]
        if shape.type_name in ("integer", "long"):
            return _integer(text)
        if shape.type_name == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if shape.type_name == "timestamp" and name not in AS_GIVEN:
            return _timestamp(text)
    except (KeyError, ValueError, OverflowError):
        raise ServiceError("InvalidArgument", f"{name} is {text!r}, which is no {shape.type_name}.") from None
    if shape.name in _ANY_CASE:
        text = text.upper()
    enum = getattr(shape, "enum", None)
    if enum and text not in enum and shape.name not in _WITHOUT_ENUM | _ANY_VALUE:
        raise ServiceError("InvalidArgument", f"{name} is {text!r}; it can be {', '.join(map(str, enum))}.")
    return text


def _integer(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise ValueError(text)
    return int(text)


def _timestamp(text: str) -> datetime:
    """A date of HTTP, or one of ISO 8601."""
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        date = datetime.fromisoformat(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)
