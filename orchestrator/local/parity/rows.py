"""What can become of a request's member. A table has the form of the request, with one of these in place of a value.

A structure that is honoured is a `Members` with a row for each of its own; every other row covers all that is below
it. For a list, rows are about each item.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Union


@dataclass(frozen=True)
class Honoured:
    """It does here what it does on AWS."""

    meaning: str = "as on AWS"
    only: tuple[object, ...] = ()
    """The values that are honoured, if not all; others are refused."""
    why: str = ""
    """Why other values are refused, or what to do instead."""
    needed: bool = False
    """AWS can do without it in ways that are refused here."""
    least: float = -inf
    """Of a number; smaller ones are refused."""
    most: float = inf
    """Of a number; larger ones are refused."""


@dataclass(frozen=True)
class NoMeaning:
    """It is about AWS's own machines: stored, and described back."""

    meaning: str


@dataclass(frozen=True)
class Refused:
    """It would change what happens, and is not done here; refused unless it is empty or false."""

    why: str
    """The reason, or what to do instead."""


@dataclass(frozen=True)
class Members:
    """A structure, or a list of them, that is honoured as its members are."""

    rows: "Rows"
    needed: bool = False
    most: int | None = None
    """Items of a list that are honoured; longer ones are refused."""
    why: str = ""


Row = Union[Honoured, NoMeaning, Refused, Members]  # noqa: UP007  a forward reference needs it
Rows = Mapping[str, Row]
