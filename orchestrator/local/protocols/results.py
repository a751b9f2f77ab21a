"""What is wrong with a handler's result."""

from collections.abc import Mapping
from typing import Any

from botocore.model import StructureShape


class ResultError(Exception):
    """A handler's mistake: its result is not what the operation's answer holds."""


def members(shape: StructureShape, value: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The members that are set, none of them unknown: a client would never see those.

    Raises:
        ResultError: there is a member that the shape does not have.
    """
    unknown = value.keys() - shape.members.keys()
    if unknown:
        raise ResultError(f"{path or shape.name} has no {', '.join(sorted(unknown))}")
    return {name: content for name, content in value.items() if content is not None}
