"""Pages of lists that are made in memory: a token is a position in the list."""

import re
from collections.abc import Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError


def cut(items: Sequence[Any], token: str, limit: int, code: str) -> tuple[list[Any], str | None]:
    """One page of a list, and the token of the next one if there is more.

    Args:
        token: where the page begins; empty for the first one.
        code: of the error for a token that is not valid.

    Raises:
        ServiceError: the token is not one that this function returned.
    """
    if not re.fullmatch("[0-9]{0,15}", token):
        raise ServiceError(code, f"The token {token!r} is invalid: give the one of the last answer.")
    begin = int(token or 0)
    end = begin + limit
    return list(items[begin:end]), str(end) if end < len(items) else None
