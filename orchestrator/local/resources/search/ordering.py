"""The order of results, and the tokens of their pages.

A token contains the sort key of a page's last resource. Therefore, no page skips or repeats resources if other
resources are added or deleted between two requests.
"""

import base64
import heapq
import json
import math
from collections.abc import Iterable
from operator import itemgetter
from typing import Any, TypeVar

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.search.comparisons import read_number
from microjobs_orchestrator.local.resources.search.properties import Property, Structure, ValueType
from microjobs_orchestrator.local.state import Record

Item = TypeVar("Item")

SortKey = tuple[int, float, str, str, int]
"""A rank, a number, a text, and the resource's name and version, which make the key unique."""

NUMBER_RANK, TEXT_RANK = 1, 2
MISSING_RANKS = {False: 3, True: 0}
"""The rank of resources without the property. The key states whether the order is descending. These resources come last
in both orders."""


class Order:
    """An order of the resources of one kind."""

    def __init__(self, sort_property: Property, *, descending: bool) -> None:
        self._property = sort_property
        self._is_descending = descending

    def make_key(self, record: Record, structure: Structure) -> SortKey:
        values = self._property.read(structure)
        value = self._convert(values[0]) if values else (MISSING_RANKS[self._is_descending], 0.0, "")
        return (*value, record.name, record.version)

    def _convert(self, value: Any) -> tuple[int, float, str]:
        if self._property.type is ValueType.TEXT_OR_NUMBER and (number := read_number(value)) is not None:
            return NUMBER_RANK, number, ""
        return (TEXT_RANK, 0.0, value) if isinstance(value, str) else (NUMBER_RANK, float(value), "")

    def is_after(self, key: SortKey, position: SortKey | None) -> bool:
        """Return whether a key comes after a position: the key of the last resource on the previous page, or None for
        the first page."""
        return position is None or (key < position if self._is_descending else key > position)

    def take_first(self, items: Iterable[tuple[SortKey, Item]], count: int) -> list[tuple[SortKey, Item]]:
        select = heapq.nlargest if self._is_descending else heapq.nsmallest
        return select(count, items, key=itemgetter(0))


def format_token(key: SortKey) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def read_token(token: str) -> SortKey:
    """Return the sort key in a NextToken.

    Raises:
        ValidationError: the token does not come from `format_token`.
    """
    try:
        rank, number, text, name, version = json.loads(base64.urlsafe_b64decode(token))
        key = (rank, number, text, name, version)
        if tuple(map(type, key)) == (int, float, str, str, int) and not math.isnan(number):
            return key
    except (ValueError, TypeError, RecursionError):
        pass
    raise ValidationError(f"NextToken {token!r} is not valid: pass the NextToken of the last response.")
