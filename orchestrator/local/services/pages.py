"""Pagination of lists in memory: a token is a position in the list."""

import re
from collections.abc import Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError


def cut(items: Sequence[Any], token: str, limit: int, code: str) -> tuple[list[Any], str | None]:
    """Return one page of a list, and the token of the next page; None if it is the last page.

    Args:
        token: of the page; empty for the first one.
        code: error code for an invalid token.

    Raises:
        ServiceError: the token is invalid.
    """
    if not re.fullmatch("[0-9]{0,15}", token):
        raise ServiceError(code, f"The token {token!r} is invalid: use the token of the last response.")
    begin = int(token or 0)
    end = begin + limit
    return list(items[begin:end]), str(end) if end < len(items) else None
