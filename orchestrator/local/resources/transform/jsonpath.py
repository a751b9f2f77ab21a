"""The part of JSONPath that the filters of batch transform support.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html#data-processing-operators

No library has these rules: several names select an object with these members, a missing name or index is an error, and
AWS limits the characters of a path. A slice ends before its second number, as in all JSONPath. One sentence of AWS's
page includes the second number, but programs that run on AWS use `$[:-1]` for all items but the last.
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
"""The characters that a path may have besides letters and digits, by content type. Rows of CSV have no names."""


class MissingValueError(Exception):
    """A value lacks a member or an item that a path selects."""


@dataclass(frozen=True)
class Step:
    """One part of a path. It selects parts of a value."""

    select: Callable[[Any], list[Any]]
    selects_many: bool = False
    """Whether the part can select several values: then the path selects a list."""


@dataclass(frozen=True)
class Path:
    """A path. Without steps it selects the whole value."""

    text: str
    steps: tuple[Step, ...]

    def select(self, value: Any) -> Any:
        """Return the selected part of a value, or a list of parts. Raise MissingValueError if a part is missing."""
        values = [value]
        for step in self.steps:
            values = [found for item in values for found in step.select(item)]
        return values if any(step.selects_many for step in self.steps) else values[0]


def parse(text: str, member: str, content_type: str) -> Path:
    """Parse the path of a `member`. Raise ValidationError if AWS does not support it for the content type."""
    operators, is_allowed = OPERATORS[content_type], str.isdigit if content_type == "text/csv" else str.isalnum
    unexpected = [character for character in text if character not in operators and not is_allowed(character)]
    if unexpected:
        listed = ", ".join(f"'{character}'" for character in operators)
        raise ValidationError(
            f'Invalid {member}: "{text}". Unexpected "{unexpected[0]}" in JsonPath. '
            f'Supported operators for "{content_type}" are [{listed}]'
        )
    if not text.startswith("$"):
        raise ValidationError(f'Invalid {member}: "{text}". It must begin with $.')
    return Path(text, tuple(_parse_steps(text, member)))


def _parse_steps(text: str, member: str) -> Iterator[Step]:
    position = 1
    while position < len(text):
        matches = ((pattern.match(text, position), make) for pattern, make in STEPS.items())
        match, make = next(((match, make) for match, make in matches if match), (None, None))
        if match is None or make is None:
            raise _unsupported_error(text, text[position:], member)
        position = match.end()
        yield make(match)


def _unsupported_error(text: str, rest: str, member: str) -> ValidationError:
    bracket = rest[: rest.find("]") + 1]
    if ":" in bracket:
        return ValidationError(
            f"Invalid JsonPath: {text}: only single range filters of format (eg: [1:5]) are supported. "
            f"Format {bracket} is not supported"
        )
    return ValidationError(
        f"Invalid {member}: \"{text}\". {rest!r} must be one of .name, .*, [*], ['name','name'], [1,3] and [1:5]."
    )


# --- the kinds of steps ---


def _parse_wildcard(_: re.Match[str]) -> Step:
    return Step(lambda value: list(value.values()) if isinstance(value, dict) else _get_items(value), selects_many=True)


def _parse_name(match: re.Match[str]) -> Step:
    return Step(lambda value: [_get_member(value, match[1])])


def _parse_names(match: re.Match[str]) -> Step:
    names = re.findall("'([^']*)'", match[1])
    if len(names) == 1:
        return Step(lambda value: [_get_member(value, names[0])])
    return Step(lambda value: [{name: _get_member(value, name) for name in names}])


def _parse_indexes(match: re.Match[str]) -> Step:
    numbers = [int(number) for number in match[1].split(",")]
    return Step(lambda value: [_get_item(value, number) for number in numbers], selects_many=len(numbers) > 1)


def _parse_slice(match: re.Match[str]) -> Step:
    begin, end = (int(number) if number else None for number in match.groups())
    return Step(lambda value: _get_items(value)[begin:end], selects_many=True)


STEPS: Mapping[re.Pattern[str], Callable[[re.Match[str]], Step]] = {
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
