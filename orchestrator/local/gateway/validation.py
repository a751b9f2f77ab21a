"""Validation of requests by botocore's models, with AWS's error messages.

AWS ignores unknown members. This server refuses them, because it ignores nothing silently.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

import regex
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from microjobs_orchestrator.local.errors import ServiceError, ValidationError

MAX_QUOTED_CHARACTERS = 256
"""Characters of a value that an error message repeats."""

INTEGERS: Mapping[str, int] = {"integer": 1 << 31, "long": 1 << 63}
"""Limits of whole numbers: they are smaller than this, and at least its negative."""

MAX_TIME = 253_402_300_799
"""Limit of times, in seconds before or since 1970: the end of the year 9999."""

MATCH_TIMEOUT = 2.0
"""CPU seconds for matching one pattern with one value."""

SURROGATES = r"\uD800\uDC00-\uDBFF\uDFFF"
"""The spelling, in Java's patterns, of all characters beyond 16 bits."""


def validate(operation: OperationModel, params: Mapping[str, Any]) -> None:
    """Validate the members of a request: times in seconds, blobs of documents in base64.

    Raises:
        ValidationError: members are missing, unknown, or violate constraints of the model; the message lists all.
        ServiceError: SerializationException, a value is of the wrong type.
    """
    shape = operation.input_shape
    found = list(_structure(shape, params, "")) if shape else []
    if found:
        plural = "s" if len(found) > 1 else ""
        raise ValidationError(f"{len(found)} validation error{plural} detected: {'; '.join(found)}")


def _describe(value: object, path: str, constraint: str) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    shown = text if len(text) <= MAX_QUOTED_CHARACTERS else f"{text[:MAX_QUOTED_CHARACTERS]}..."
    quoted = "null" if value is None else f"'{shown}'"
    return f"Value {quoted} at '{path}' failed to satisfy constraint: {constraint}"


def _extend_path(path: str, member: str) -> str:
    """Return the path of a member, in which names have a small first letter, such as `resourceConfig.instanceCount`."""
    return f"{path}.{member[:1].lower()}{member[1:]}".lstrip(".")


# --- one check per type; each yields the violated constraints ---


def _any(shape: Shape, value: Any, path: str) -> Iterator[str]:
    expected, name = PYTHON_TYPES[shape.type_name]
    if not isinstance(value, expected) or (isinstance(value, bool) and shape.type_name != "boolean"):
        raise ServiceError("SerializationException", f"{_name_type(value)} can not be converted to {name} at '{path}'")
    if shape.type_name in CHECKS:
        yield from CHECKS[shape.type_name](shape, value, path)


def _structure(shape: Any, value: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in value:
            yield _describe(None, _extend_path(path, name), "Member must not be null")
    if shape.is_tagged_union and len(value) != 1:
        yield _describe(value, path, f"Member must have exactly one member set of: [{', '.join(shape.members)}]")
    for name, content in value.items():
        if name in shape.members:
            yield from _any(shape.members[name], content, _extend_path(path, name))
        else:
            yield _describe(content, _extend_path(path, name), _unknown(name, shape))


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
        yield from _any(shape.value, item, f"{path}.{key[:MAX_QUOTED_CHARACTERS]}")


def _string(shape: Shape, value: str, path: str) -> Iterator[str]:
    wrong_length = list(_length(shape, value, path))
    yield from wrong_length
    if shape.metadata.get("enum") and value not in shape.metadata["enum"]:
        yield _describe(value, path, f"Member must satisfy enum value set: [{', '.join(shape.metadata['enum'])}]")
    # One error is enough, and patterns are slow on very long values.
    pattern = None if wrong_length else shape.metadata.get("pattern")
    if pattern and not _matches(pattern, value):
        yield _describe(value, path, f"Member must satisfy regular expression pattern: {pattern}")


def _matches(pattern: str, value: str) -> bool:
    """Return whether a value matches a pattern; False if that takes too long. Other requests do not wait for it."""
    try:
        return compile_pattern(pattern).fullmatch(value, timeout=MATCH_TIMEOUT, concurrent=True) is not None
    except TimeoutError:
        return False


def _length(shape: Shape, value: Any, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and len(value) < least:
        yield _describe(value, path, f"Member must have length greater than or equal to {least}")
    if most is not None and len(value) > most:
        yield _describe(value, path, f"Member must have length less than or equal to {most}")


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
    if abs(value) > MAX_TIME:
        raise ServiceError("SerializationException", f"{value} is too large for {_name(shape)} at '{path}'")
    yield from ()


def _name(shape: Shape) -> str:
    return PYTHON_TYPES[shape.type_name][1]


def _number(shape: Shape, value: float, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and value < least:
        yield _describe(value, path, f"Member must have value greater than or equal to {least}")
    if most is not None and value > most:
        yield _describe(value, path, f"Member must have value less than or equal to {most}")


@cache
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern of the model. It is Java's: `regex` has its character classes, and Python has no surrogates.

    Java's `\\w` and `\\d` match ASCII only, so that no name looks like another one; its `\\p{L}` matches Unicode.
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


def _name_type(value: Any) -> str:
    """Return the type of a JSON value under the name that AWS's parser has for it."""
    if isinstance(value, bool):
        return f"{str(value).upper()}_VALUE"
    names = {str: "STRING_VALUE", dict: "START_OBJECT", list: "START_ARRAY", type(None): "NULL_VALUE"}
    return names.get(type(value), "NUMBER_VALUE")
