"""JSON values that every client can read, and values that are not known yet."""

import math
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.terminal import escape_bytes


@dataclass(frozen=True)
class Deferred:
    """A value of a request that is not known yet, such as a property of a pipeline's step."""

    text: str
    """The expression, for error messages."""
    type_name: str = ""
    """The type of the value, as in botocore's models; empty if it is not known."""

    def __str__(self) -> str:
        return self.text


def to_valid_json(value: Any) -> Any:
    """Return a copy of a value. The copy is valid JSON in UTF-8.

    Members and list items that are null or not finite are dropped. List items that lose a member in this way, such as a
    metric without its value, are dropped, too. Bytes that are not UTF-8, as in some file names, are escaped.
    """
    if isinstance(value, str):
        return escape_bytes(value)
    if isinstance(value, dict):
        members = {escape_bytes(name): to_valid_json(content) for name, content in value.items()}
        return {name: content for name, content in members.items() if is_valid(content)}
    if isinstance(value, list):
        items = ((item, to_valid_json(item)) for item in value)
        return [cleaned for item, cleaned in items if is_valid(cleaned) and not _has_lost_member(item, cleaned)]
    return value


def is_valid(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _has_lost_member(before: Any, after: Any) -> bool:
    return isinstance(before, dict) and len(after) < len(before)
