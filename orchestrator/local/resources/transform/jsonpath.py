"""The part of JSONPath that the filters of batch transform support.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html#data-processing-operators

Not a library's: here several names select an object of these members, a name or an index that is not there is an error,
and the letters that a path may have are AWS's. A slice ends before its second number, as in all JSONPath; AWS's page
says once that it ends with it, but programs that run there take `$[:-1]` for all but the last.
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
"""What a path may have beside letters and digits, by the format that it is for; a row of CSV has no names."""


class NotThereError(Exception):
    """A value does not have what a path selects."""


@dataclass(frozen=True)
class Step:
    """From a value to those that a part of a path selects in it."""

    select: Callable[[Any], list[Any]]
    is_many: bool
    """Whether the part can select several values: then the path selects a list."""


@dataclass(frozen=True)
class Path:
    """A path; the one without steps selects everything."""

    text: str
    steps: tuple[Step, ...]

    def __bool__(self) -> bool:
        """Whether it selects less than everything."""
        return bool(self.steps)

    def __call__(self, value: Any) -> Any:
        """What it selects.

        Raises:
            NotThereError: the value does not have it.
        """
        values = [value]
        for step in self.steps:
            values = [found for one in values for found in step.select(one)]
        return values if any(step.is_many for step in self.steps) else values[0]


def parse(text: str, *, member: str, content_type: str) -> Path:
    """Read a path.

    Args:
        member: of the request, for errors.
        content_type: of the records that it is for, one of `OPERATORS`.

    Raises:
        ValidationError: it is none that AWS takes.
    """
    operators = OPERATORS[content_type]
    strange = next((letter for letter in text if not letter.isalnum() and letter not in operators), None)
    if content_type == "text/csv":
        strange = strange or next((letter for letter in text if letter.isalpha()), None)
    if strange:
        listed = ", ".join(f"'{letter}'" for letter in operators)
        raise ValidationError(
            f'Invalid {member}: "{text}". Unexpected "{strange}" in JsonPath. '
            f'Supported operators for "{content_type}" are [{listed}]'
        )
    if not text.startswith("$"):
        raise ValidationError(f'Invalid {member}: "{text}". It must begin with $.')
    return Path(text, tuple(_steps(text, member)))


def _steps(text: str, member: str) -> Iterator[Step]:
    position = 1
    while position < len(text):
        for pattern, make in STEPS.items():
            if found := pattern.match(text, position):
                position = found.end()
                yield make(found)
                break
        else:
            raise _wrong(text, text[position:], member)


def _wrong(text: str, rest: str, member: str) -> ValidationError:
    bracket = rest[: rest.find("]") + 1]
    if ":" in bracket:
        return ValidationError(
            f"Invalid JsonPath: {text}: only single range filters of format (eg: [1:5]) are supported. "
            f"Format {bracket} is not supported"
        )
    return ValidationError(
        f"Invalid {member}: \"{text}\". {rest!r} is none of .name, .*, [*], ['name','name'], [1,3] and [1:5]."
    )


# --- the kinds of steps ---


def _wildcard(_: re.Match[str]) -> Step:
    def select(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return list(value.values())
        return _list(value)

    return Step(select, is_many=True)


def _name(found: re.Match[str]) -> Step:
    return Step(lambda value: [_member(value, found[1])], is_many=False)


def _names(found: re.Match[str]) -> Step:
    names = re.findall("'([^']*)'", found[1])
    if len(names) == 1:
        return Step(lambda value: [_member(value, names[0])], is_many=False)
    return Step(lambda value: [{name: _member(value, name) for name in names}], is_many=False)


def _indexes(found: re.Match[str]) -> Step:
    numbers = [int(number) for number in found[1].split(",")]
    return Step(lambda value: [_item(value, number) for number in numbers], is_many=len(numbers) > 1)


def _slice(found: re.Match[str]) -> Step:
    begin, end = (int(number) if number else None for number in found.groups())
    return Step(lambda value: _list(value)[begin:end], is_many=True)


STEPS: Mapping[re.Pattern[str], Callable[[re.Match[str]], Step]] = {
    re.compile(r"\.\*|\.?\[ *\* *\]"): _wildcard,
    re.compile(r"\.([^\W_][^\W_-]*(?:-[^\W_-]+)*)"): _name,
    re.compile(r"\.?\[ *('[^']*'(?: *, *'[^']*')*) *\]"): _names,
    re.compile(r"\.?\[ *(-?\d+(?: *, *-?\d+)*) *\]"): _indexes,
    re.compile(r"\.?\[ *(-?\d+)? *: *(-?\d+)? *\]"): _slice,
}


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise NotThereError(f"there is no {name!r} in {_kind(value)}")
    return value[name]


def _item(value: Any, number: int) -> Any:
    items = _list(value)
    if not -len(items) <= number < len(items):
        raise NotThereError(f"there is no index {number} in {len(items)} items")
    return items[number]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NotThereError(f"there are no items in {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object of {', '.join(map(repr, value)) or 'nothing'}"
    return "an array" if isinstance(value, list) else "a single value"
