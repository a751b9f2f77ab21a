"""Requests against botocore's model of them, refused in AWS's own words.

AWS ignores members that it does not know; here nothing is ignored in silence, so they are refused.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

import regex
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from microjobs_orchestrator.local.errors import ServiceError, ValidationError

SHOWN = 256
"""Characters of a value that an error message repeats."""

INTEGERS: Mapping[str, int] = {"integer": 1 << 31, "long": 1 << 63}
"""Whole numbers are below this, and not below its negative."""
LATEST = 253_402_300_799
"""The end of the year 9999, in seconds since 1970; times are as far from 1970 at most."""

MATCH_SECONDS = 2.0
"""CPU time of one pattern on one value."""

SURROGATES = r"\uD800\uDC00-\uDBFF\uDFFF"
"""How Java's patterns spell every character beyond the 16 bits of its `char`."""


def validate(operation: OperationModel, params: Mapping[str, Any]) -> None:
    """Check a request as the wire has it: times in seconds, blobs in base64.

    Raises:
        ValidationError: members are missing, unknown, or break the model's constraints; it lists them all.
        ServiceError: a `SerializationException`; a value is of the wrong type.
    """
    shape = operation.input_shape
    found = list(_structure(shape, params, "")) if shape else []
    if found:
        plural = "s" if len(found) > 1 else ""
        raise ValidationError(f"{len(found)} validation error{plural} detected: {'; '.join(found)}")


def _failed(value: object, path: str, constraint: str) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    quoted = "null" if value is None else f"'{shown}'"
    return f"Value {quoted} at '{path}' failed to satisfy constraint: {constraint}"


def _below(path: str, member: str) -> str:
    """AWS writes members with a small first letter in its errors: `resourceConfig.instanceCount`."""
    return f"{path}.{member[:1].lower()}{member[1:]}".lstrip(".")


# --- one check a type; each yields what is wrong ---


def _any(shape: Shape, value: Any, path: str) -> Iterator[str]:
    expected, name = PYTHON_TYPES[shape.type_name]
    if not isinstance(value, expected) or (isinstance(value, bool) and shape.type_name != "boolean"):
        raise ServiceError("SerializationException", f"{_wire_type(value)} can not be converted to {name} at '{path}'")
    if shape.type_name in CHECKS:
        yield from CHECKS[shape.type_name](shape, value, path)


def _structure(shape: Any, value: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in value:
            yield _failed(None, _below(path, name), "Member must not be null")
    if shape.is_tagged_union and len(value) != 1:
        yield _failed(value, path, f"Member must have exactly one member set of: [{', '.join(shape.members)}]")
    for name, content in value.items():
        if name in shape.members:
            yield from _any(shape.members[name], content, _below(path, name))
        else:
            yield _failed(content, _below(path, name), _unknown(name, shape))


def _unknown(name: str, shape: StructureShape) -> str:
    near = get_close_matches(name, shape.members, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(shape.members) or 'none'}"
    return f"Member {name} is not known ({hint})"


def _list(shape: ListShape, value: list[Any], path: str) -> Iterator[str]:
    yield from _length(shape, value, path)
    for number, item in enumerate(value, start=1):
        yield from _any(shape.member, item, f"{path}.{number}.member")


def _map(shape: MapShape, value: dict[str, Any], path: str) -> Iterator[str]:
    yield from _length(shape, value, path)
    for key, item in value.items():
        for wrong in _string(shape.key, key, path):
            yield f"Map keys must be valid: {wrong}"
        yield from _any(shape.value, item, f"{path}.{key[:SHOWN]}")


def _string(shape: Shape, value: str, path: str) -> Iterator[str]:
    wrong_length = list(_length(shape, value, path))
    yield from wrong_length
    if shape.metadata.get("enum") and value not in shape.metadata["enum"]:
        yield _failed(value, path, f"Member must satisfy enum value set: [{', '.join(shape.metadata['enum'])}]")
    # One reason is enough, and patterns are slow on what is much too long.
    pattern = None if wrong_length else shape.metadata.get("pattern")
    if pattern and not _matches(pattern, value):
        yield _failed(value, path, f"Member must satisfy regular expression pattern: {pattern}")


def _matches(pattern: str, value: str) -> bool:
    """Whether a value has a pattern; no, if that takes too long to find out. Other requests do not wait meanwhile."""
    try:
        return compiled(pattern).fullmatch(value, timeout=MATCH_SECONDS, concurrent=True) is not None
    except TimeoutError:
        return False


def _length(shape: Shape, value: Any, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and len(value) < least:
        yield _failed(value, path, f"Member must have length greater than or equal to {least}")
    if most is not None and len(value) > most:
        yield _failed(value, path, f"Member must have length less than or equal to {most}")


def _blob(shape: Shape, value: str | bytes, path: str) -> Iterator[str]:
    """Check the content of a payload. A blob of a document is base64, and its length is not checked."""
    most = shape.metadata.get("max")
    if isinstance(value, bytes) and most is not None and len(value) > most:
        yield f"Member {path} must have length less than or equal to {most}"


def _integer(shape: Shape, value: int, path: str) -> Iterator[str]:
    beyond = INTEGERS[shape.type_name]
    if not -beyond <= value < beyond:
        raise ServiceError("SerializationException", f"{value} is too large for {_name(shape)} at '{path}'")
    yield from _number(shape, value, path)


def _timestamp(shape: Shape, value: float, path: str) -> Iterator[str]:
    if abs(value) > LATEST:
        raise ServiceError("SerializationException", f"{value} is too large for {_name(shape)} at '{path}'")
    yield from ()


def _name(shape: Shape) -> str:
    return PYTHON_TYPES[shape.type_name][1]


def _number(shape: Shape, value: float, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and value < least:
        yield _failed(value, path, f"Member must have value greater than or equal to {least}")
    if most is not None and value > most:
        yield _failed(value, path, f"Member must have value less than or equal to {most}")


@cache
def compiled(pattern: str) -> regex.Pattern[str]:
    """A model's pattern, which is Java's: `regex` knows its character classes, and Python has no surrogates.

    Java's `\\w` and `\\d` are those of ASCII, so that no name looks like another one; its `\\p{L}` is Unicode's.
    """
    alphabet = regex.UNICODE if r"\p{" in pattern else regex.ASCII
    return regex.compile(pattern.replace(SURROGATES, r"\U00010000-\U0010FFFF"), alphabet)


CHECKS: Mapping[str, Callable[[Any, Any, str], Iterator[str]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "blob": _blob,
    "integer": _integer,
    "long": _integer,
    "timestamp": _timestamp,
    "float": _number,
    "double": _number,
}

PYTHON_TYPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "structure": (dict, "a structure"),
    "list": (list, "a list"),
    "map": (dict, "a map"),
    "string": (str, "a String"),
    "blob": ((str, bytes), "a blob in base64"),
    "integer": (int, "an Integer"),
    "long": (int, "a Long"),
    "float": ((int, float), "a Float"),
    "double": ((int, float), "a Double"),
    "boolean": (bool, "a Boolean"),
    "timestamp": ((int, float), "a Timestamp (seconds since 1970)"),
}


def _wire_type(value: Any) -> str:
    """A JSON value's type as AWS's parser calls it."""
    if isinstance(value, bool):
        return f"{str(value).upper()}_VALUE"
    names = {str: "STRING_VALUE", dict: "START_OBJECT", list: "START_ARRAY", type(None): "NULL_VALUE"}
    return names.get(type(value), "NUMBER_VALUE")
