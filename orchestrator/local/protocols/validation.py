"""Validation of requests by botocore's models, with AWS's error messages.

AWS ignores unknown members. This server refuses them: it ignores nothing silently.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache, lru_cache
from math import inf
from typing import Any

import regex
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.values import Deferred

MAX_QUOTED_CHARACTERS = 256
"""Maximum number of characters of a value that an error message quotes."""

LIMITS: Mapping[str, tuple[int, int]] = {
    "integer": (-(1 << 31), (1 << 31) - 1),
    "long": (-(1 << 63), (1 << 63) - 1),
    "timestamp": (-253_402_300_799, 253_402_300_799),
}
"""Minimum and maximum by type. Times, in seconds since 1970, end with the year 9999."""

GENERAL_NUMBER_TYPES: Mapping[str, str] = {"long": "integer", "double": "float", "timestamp": "float"}
"""The general type of each number type. While the value of an expression is not known, an integer may stand for a long,
and a float for a double or a timestamp. Therefore, the types of the expression and of the member are replaced by
general types before they are compared."""

MATCH_TIMEOUT_SECONDS = 2.0
"""CPU seconds for matching one pattern with one value."""

MAX_CACHED_CHARACTERS = 256
"""Maximum length of the values whose validity is cached."""

SURROGATES = r"\uD800\uDC00-\uDBFF\uDFFF"
"""The part of a pattern that matches all characters above U+FFFF in Java's syntax."""


def validate(operation: OperationModel, members: Mapping[str, Any]) -> None:
    """Validate the members of a request. Times are in seconds since 1970; blobs are in base64, but payloads are bytes.

    Raises:
        ValidationError: members are missing, unknown, or violate constraints of the model; the message lists all.
        ServiceError: a value has the wrong type (SerializationException).
    """
    violations = list_violations(operation, members)
    if violations:
        plural = "s" if len(violations) > 1 else ""
        raise ValidationError(f"{len(violations)} validation error{plural} detected: {'; '.join(violations)}")


def list_violations(operation: OperationModel, members: Mapping[str, Any]) -> list[str]:
    """Return the violated constraints of a request. Its values may be `Deferred`.

    Raises:
        ServiceError: a value has the wrong type (SerializationException).
    """
    return list(_check_structure(operation.input_shape, members, "")) if operation.input_shape else []


def _describe_violation(value: object, path: str, constraint: str) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    short_text = text if len(text) <= MAX_QUOTED_CHARACTERS else f"{text[:MAX_QUOTED_CHARACTERS]}..."
    quoted_value = "null" if value is None else f"'{short_text}'"
    return f"Value {quoted_value} at '{path}' failed to satisfy constraint: {constraint}"


@lru_cache(maxsize=4096)
def _extend_path(path: str, member: str) -> str:
    """Return the path of a member, such as `resourceConfig.instanceCount`: names start in lower case."""
    return f"{path}.{member[:1].lower()}{member[1:]}".lstrip(".")


# --- one check per type; each yields the violated constraints ---


def _check_value(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Deferred):
        yield from _check_deferred(shape, value, path)
        return
    python_types, name = PYTHON_TYPES[shape.type_name]
    if not isinstance(value, python_types) or (isinstance(value, bool) and shape.type_name != "boolean"):
        raise ServiceError("SerializationException", f"{_name_type(value)} can not be converted to {name} at '{path}'")
    if shape.type_name in CHECKS:
        yield from CHECKS[shape.type_name](shape, value, path)


def _check_deferred(shape: Shape, value: Deferred, path: str) -> Iterator[str]:
    """Check the type of a value that is not known yet. General types are compared, and an integer is a valid float."""
    types = [GENERAL_NUMBER_TYPES.get(name, name) for name in (value.type_name, shape.type_name)]
    if value.type_name and types[0] != types[1] and types != ["integer", "float"]:
        expected_type, actual_type = (PYTHON_TYPES[name][1] for name in (shape.type_name, value.type_name))
        remedy = ": convert it with Std:Join, which is `Join` in the SDK" if shape.type_name == "string" else ""
        constraint = f"Member must be {expected_type}, but the expression is {actual_type}{remedy}"
        yield _describe_violation(value.text, path, constraint)


def _check_structure(shape: Any, value: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in value:
            yield _describe_violation(None, _extend_path(path, name), "Member must not be null")
    if shape.is_tagged_union and len(value) != 1:
        yield _describe_violation(
            value, path, f"Member must have exactly one member set of: [{', '.join(shape.members)}]"
        )
    for name, content in value.items():
        if (member := shape.members.get(name)) is None:
            yield _describe_violation(content, _extend_path(path, name), _describe_unknown_member(name, shape))
        elif not (type(content) is str and len(content) <= MAX_CACHED_CHARACTERS and _is_valid_text(member, content)):
            yield from _check_value(member, content, _extend_path(path, name))


def _describe_unknown_member(name: str, shape: StructureShape) -> str:
    similar_names = get_close_matches(name, shape.members, n=1)
    hint = (
        f"did you mean {similar_names[0]}?" if similar_names else f"valid members: {', '.join(shape.members) or 'none'}"
    )
    return f"Member {name} is unknown ({hint})"


def _check_list(shape: ListShape, value: list[Any], path: str) -> Iterator[str]:
    yield from _check_length(shape, value, path)
    for number, item in enumerate(value, start=1):
        yield from _check_value(shape.member, item, f"{path}.{number}.member")


def _check_map(shape: MapShape, value: dict[str, Any], path: str) -> Iterator[str]:
    yield from _check_length(shape, value, path)
    for key, item in value.items():
        yield from (f"Map keys must be valid: {error}" for error in _check_string(shape.key, key, path))
        yield from _check_value(shape.value, item, f"{path}.{key[:MAX_QUOTED_CHARACTERS]}")


def _check_string(shape: Shape, value: str, path: str) -> Iterator[str]:
    length_errors = list(_check_length(shape, value, path))
    yield from length_errors
    if shape.metadata.get("enum") and value not in shape.metadata["enum"]:
        yield _describe_violation(
            value, path, f"Member must satisfy enum value set: [{', '.join(shape.metadata['enum'])}]"
        )
    # Patterns are slow on very long values.
    pattern = None if length_errors else shape.metadata.get("pattern")
    if pattern and not _matches(pattern, value):
        yield _describe_violation(value, path, f"Member must satisfy regular expression pattern: {pattern}")


@lru_cache(maxsize=4096)
def _is_valid_text(shape: Shape, value: str) -> bool:
    """Return whether a short value, such as a name, is valid. Cached, because requests often repeat a value."""
    return shape.type_name == "string" and not any(_check_string(shape, value, ""))


def _matches(pattern: str, value: str) -> bool:
    """Return whether a value matches a pattern; False after a timeout. Matching does not block other threads."""
    try:
        return compile_pattern(pattern).fullmatch(value, timeout=MATCH_TIMEOUT_SECONDS, concurrent=True) is not None
    except TimeoutError:
        return False


def _check_length(shape: Shape, value: Any, path: str) -> Iterator[str]:
    return _check_range(shape, len(value), value, path, "length")


def _check_range(shape: Shape, size: float, value: Any, path: str, quantity: str) -> Iterator[str]:
    minimum, maximum = shape.metadata.get("min"), shape.metadata.get("max")
    if minimum is not None and size < minimum:
        yield _describe_violation(value, path, f"Member must have {quantity} greater than or equal to {minimum}")
    if maximum is not None and size > maximum:
        yield _describe_violation(value, path, f"Member must have {quantity} less than or equal to {maximum}")


def _check_blob(shape: Shape, value: str | bytes, path: str) -> Iterator[str]:
    """Check the size of a payload, which is bytes. The size of other blobs, which are in base64, is not checked."""
    maximum = shape.metadata.get("max")
    if isinstance(value, bytes) and maximum is not None and len(value) > maximum:
        yield f"Member {path} must have length less than or equal to {maximum}"


def _check_number(shape: Shape, value: float, path: str) -> Iterator[str]:
    minimum, maximum = LIMITS.get(shape.type_name, (-inf, inf))
    if not minimum <= value <= maximum:
        name = PYTHON_TYPES[shape.type_name][1]
        raise ServiceError("SerializationException", f"{value} is too large for {name} at '{path}'")
    yield from _check_range(shape, value, value, path, "value")


@cache
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern of the model, which has Java's syntax. Python's `re` does not support its character classes.

    In Java, `\\w` and `\\d` match only ASCII characters, and `\\p{L}` matches the letters of all languages. Therefore,
    only patterns with `\\p{` are compiled for Unicode.
    """
    alphabet = regex.UNICODE if r"\p{" in pattern else regex.ASCII
    return regex.compile(pattern.replace(SURROGATES, r"\U00010000-\U0010FFFF"), alphabet)


CHECKS: Mapping[str, Callable[[Any, Any, str], Iterator[str]]] = {
    "structure": _check_structure,
    "list": _check_list,
    "map": _check_map,
    "string": _check_string,
    "blob": _check_blob,
    **dict.fromkeys(("integer", "long", "float", "double", "timestamp"), _check_number),
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
    """Return the name of a JSON value's type in AWS's error messages."""
    if isinstance(value, bool):
        return f"{str(value).upper()}_VALUE"
    names = {str: "STRING_VALUE", dict: "START_OBJECT", list: "START_ARRAY", type(None): "NULL_VALUE"}
    return names.get(type(value), "NUMBER_VALUE")
