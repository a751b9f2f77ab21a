"""Parity rows, which state how the local server treats each member of a request, and the check of requests.

Rows have the form of the request, with one row in place of each value. A `Members` row is for a structure that is
honoured, and has one row for each of the structure's members. For a list of structures, these rows apply to each
structure. Each other row covers the whole value, even if the value is a list.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, ClassVar, Union

from microjobs_orchestrator.local.values import Deferred

MAX_QUOTED_CHARACTERS = 100
"""Maximum number of characters of a value that an error message quotes."""


@dataclass(frozen=True)
class Honoured:
    """The member has the effect that it has on AWS."""

    meaning: str = "as on AWS"
    values: tuple[object, ...] = ()
    """The honoured values; other values are refused. Empty if all values are honoured."""
    reason: str = ""
    """The reason why other values are refused, or a remedy."""
    required: bool = False
    """Whether the local server requires the member, although AWS does not."""
    minimum: float = -inf
    """Smallest number that is honoured."""
    maximum: float = inf
    """Largest number that is honoured."""


@dataclass(frozen=True)
class NoEffect:
    """The member is accepted and has no effect, for example because it concerns only AWS's own machines."""

    required: ClassVar[bool] = False
    meaning: str


@dataclass(frozen=True)
class Refused:
    """The member would have an effect that is not supported: it is refused unless it is empty or false."""

    required: ClassVar[bool] = False
    reason: str
    """The reason, or a remedy."""


@dataclass(frozen=True)
class Members:
    """A structure or a list of structures, with a row for each of its members."""

    rows: "Rows"
    required: bool = False
    """Whether the local server requires the member, although AWS does not."""


Row = Union[Honoured, NoEffect, Refused, Members]  # noqa: UP007  a forward reference needs `Union`
Rows = Mapping[str, Row]


def list_refusals(rows: Rows, members: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield a text about each member that is not supported, and about each missing member that this server requires.

    The text has the member's path, its value, and the reason or a remedy.

    Args:
        path: the path of the structure with these members, with a dot at the end; empty for the request itself.
    """
    for name, value in members.items():
        if (row := rows.get(name)) is None:  # the model of a newer botocore has members without rows
            yield f"{path}{name} {_quote(value)} (unknown to this version)"
        elif not (type(value) in (str, bytes) and isinstance(row, Honoured) and not row.values):
            # The condition skips `_check` for most members, to save time.
            yield from _check(row, value, f"{path}{name}")
    for name, row in rows.items():
        if row.required and name not in members:
            yield f"{path}{name} is missing: {_describe_remedy(row)}"


def _describe_remedy(row: Row) -> str:
    """Return the remedy for a missing member. If only some values are honoured, the remedy names one of them."""
    if isinstance(row, Honoured) and row.values:
        return f"set it to {_quote(row.values[0])} ({row.reason})"
    return "set it"


def _check(row: Row, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Deferred) and not isinstance(row, Refused):  # the value is checked when it is known
        return
    if isinstance(row, Refused) and not _is_empty(value):
        yield f"{path} {_quote(value)} ({row.reason})"
    elif isinstance(row, Honoured) and row.values and value not in row.values:
        yield f"{path} {_quote(value)} (honoured: {', '.join(map(str, row.values))}; {row.reason})"
    elif isinstance(row, Honoured) and isinstance(value, int | float) and not row.minimum <= value <= row.maximum:
        yield f"{path} {_quote(value)} (honoured: {format_limits(row)}; {row.reason})"
    elif isinstance(row, Members):
        yield from _check_structures(row, value, path)


def _check_structures(row: Members, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield from list_refusals(row.rows, value, f"{path}.")
        return
    for index, item in enumerate(value):
        if not isinstance(item, Deferred):
            yield from list_refusals(row.rows, item, f"{path}[{index}].")


def format_limits(row: Honoured) -> str:
    """Return the range of honoured numbers as text; empty if there are no limits."""
    limits = (("from", row.minimum), ("to", row.maximum))
    return " ".join(f"{word} {limit:g}" for word, limit in limits if isfinite(limit))


def _is_empty(value: Any) -> bool:
    """Return whether a value has no effect: it is empty or false, or a structure or list of such values."""
    if isinstance(value, dict | list):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is False or value == ""


def _quote(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= MAX_QUOTED_CHARACTERS else f"{text[:MAX_QUOTED_CHARACTERS]}..."
