"""Handlers of operations, and their results before a protocol formats them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.model import StructureShape

Event = tuple[str, Mapping[str, Any]] | None
"""The name and the members of an event; None for a pause, in which the server checks whether the client has left."""


@dataclass
class OperationResult:
    """Output members of an operation, and the settings of the response that contains them."""

    members: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None
    """The HTTP status; None for the status in the model."""
    body: Iterable[bytes] | None = None
    """Content of a streaming payload. If the content has a method `close`, the server calls it."""
    events: Iterable[Event] | None = None
    """The events, if the result is an event stream. If the iterable has a method `close`, the server calls it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that are not in the model."""


Handler = Callable[[dict[str, Any]], "Mapping[str, Any] | OperationResult"]
"""Function that performs an operation. It takes the members of a validated request, with times in seconds since 1970,
returns the members of the result, and raises ServiceError."""

Service = Mapping[str, Handler]
"""Handlers of a service, by the names of the operations."""


class ResultError(Exception):
    """A bug of a handler: its result has a member that the operation's output does not have."""


def select_members(shape: StructureShape, members: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return the members that are not None.

    Raises:
        ResultError: a member is unknown. Clients would never see it.
    """
    if unknown_names := members.keys() - shape.members.keys():
        raise ResultError(f"{path or shape.name} has no {', '.join(sorted(unknown_names))}")
    return {name: value for name, value in members.items() if value is not None}
