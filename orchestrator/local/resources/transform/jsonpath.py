"""The part of JSONPath that the filters of batch transform support.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html#data-processing-operators

No library implements AWS's rules. The path `$['a','b']` selects an object with the members `a` and `b`. A missing name
or index is an error. AWS limits the characters of a path. A slice ends before its second number, as in standard
JSONPath. One sentence of AWS's page says that a slice includes the item at its second number. This is wrong: programs
that run on AWS use `$[:-1]` for all items except the last.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError

OPERATORS: Mapping[str, str] = {
    "text/csv": "$[]* ,:-",
    "application/json": "$[]*. ,:-'",
    "application/jsonlines": "$[]*. ,:-'",
}
"""The characters that a path may have in addition to digits and letters, by content type. A path for CSV may have no
letters, because the columns of a row have no names."""


class MissingValueError(Exception):
    """A value lacks a member or an item that a path selects."""


@dataclass(frozen=True)
class PathStep:
    """One step of a path. It selects parts of a value."""

    select: Callable[[Any], list[Any]]
    selects_list: bool = False
    """Whether the step can select several parts. The path then selects a list."""


@dataclass(frozen=True)
class Path:
    """A path. Without steps it selects the whole value."""

    text: str
    steps: tuple[PathStep, ...]

    def select(self, value: Any) -> Any:
        """Return the selected part of a value, or a list of parts. Raise MissingValueError if a part is missing."""
        values = [value]
        for step in self.steps:
            values = [part for item in values for part in step.select(item)]
        return values if any(step.selects_list for step in self.steps) else values[0]


def parse(text: str, member: str, content_type: str) -> Path:
    """Parse the path in a `member` such as InputFilter. Raise ValidationError if AWS does not support the path for the
    content type."""
    operators, is_allowed = OPERATORS[content_type], str.isdigit if content_type == "text/csv" else str.isalnum
    unexpected_characters = [
        character for character in text if character not in operators and not is_allowed(character)
    ]
    if unexpected_characters:
        operator_list = ", ".join(f"'{character}'" for character in operators)
        raise ValidationError(
            f'Invalid {member}: "{text}". Unexpected "{unexpected_characters[0]}" in JsonPath. '
            f'Supported operators for "{content_type}" are [{operator_list}]'
        )
    if not text.startswith("$"):
        raise ValidationError(f'Invalid {member}: "{text}". It must begin with $.')
    return Path(text, tuple(_parse_steps(text, member)))


def _parse_steps(text: str, member: str) -> Iterator[PathStep]:
    position = 1
    while position < len(text):
        matches = ((pattern.match(text, position), make) for pattern, make in STEP_PARSERS.items())
        match, make = next(((match, make) for match, make in matches if match), (None, None))
        if match is None or make is None:
            raise _make_unsupported_error(text, text[position:], member)
        position = match.end()
        yield make(match)


def _make_unsupported_error(text: str, remainder: str, member: str) -> ValidationError:
    bracket = remainder[: remainder.find("]") + 1]
    if ":" in bracket:
        return ValidationError(
            f"Invalid JsonPath: {text}: only single range filters of format (eg: [1:5]) are supported. "
            f"Format {bracket} is not supported"
        )
    return ValidationError(
        f"Invalid {member}: \"{text}\". {remainder!r} must be one of .name, .*, [*], ['name','name'], [1,3] and [1:5]."
    )


# --- the types of steps ---


def _parse_wildcard(_: re.Match[str]) -> PathStep:
    return PathStep(
        lambda value: list(value.values()) if isinstance(value, dict) else _get_items(value), selects_list=True
    )


def _parse_name(match: re.Match[str]) -> PathStep:
    return PathStep(lambda value: [_get_member(value, match[1])])


def _parse_names(match: re.Match[str]) -> PathStep:
    names = re.findall("'([^']*)'", match[1])
    if len(names) == 1:
        return PathStep(lambda value: [_get_member(value, names[0])])
    return PathStep(lambda value: [{name: _get_member(value, name) for name in names}])


def _parse_indexes(match: re.Match[str]) -> PathStep:
    numbers = [int(number) for number in match[1].split(",")]
    return PathStep(lambda value: [_get_item(value, number) for number in numbers], selects_list=len(numbers) > 1)


def _parse_slice(match: re.Match[str]) -> PathStep:
    begin, end = (int(number) if number else None for number in match.groups())
    return PathStep(lambda value: _get_items(value)[begin:end], selects_list=True)


# The functions that make the steps of a path, by the patterns of the steps.
STEP_PARSERS: Mapping[re.Pattern[str], Callable[[re.Match[str]], PathStep]] = {
    re.compile(r"\.\*|\.?\[ *\* *\]"): _parse_wildcard,
    re.compile(r"\.([^\W_][^\W_-]*(?:-[^\W_-]+)*)"): _parse_name,
    re.compile(r"\.?\[ *('[^']*'(?: *, *'[^']*')*) *\]"): _parse_names,
    re.compile(r"\.?\[ *(-?\d+(?: *, *-?\d+)*) *\]"): _parse_indexes,
    re.compile(r"\.?\[ *(-?\d+)? *: *(-?\d+)? *\]"): _parse_slice,
}


def _get_member(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise MissingValueError(f"{_describe(value)} has no member {name!r}")
    return value[name]


def _get_item(value: Any, number: int) -> Any:
    items = _get_items(value)
    if not -len(items) <= number < len(items):
        raise MissingValueError(f"an array of {len(items)} items has no index {number}")
    return items[number]


def _get_items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise MissingValueError(f"{_describe(value)} has no items")
    return value


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the members {', '.join(map(repr, value))}" if value else "an empty object"
    return "an array" if isinstance(value, list) else "a single value"
