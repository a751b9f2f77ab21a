"""Check of a handler's result against the model."""

from collections.abc import Mapping
from typing import Any

from botocore.model import StructureShape


class ResultError(Exception):
    """A bug of a handler: its result has a member that the operation's output does not have."""


def select_members(shape: StructureShape, value: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return the members that are not None.

    Raises:
        ResultError: a member is unknown. Clients would never see it.
    """
    unknown = value.keys() - shape.members.keys()
    if unknown:
        raise ResultError(f"{path or shape.name} has no {', '.join(sorted(unknown))}")
    return {name: content for name, content in value.items() if content is not None}
