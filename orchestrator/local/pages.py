"""Pages of lists in memory. A token is the offset of a page."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError


def cut_page(
    items: Sequence[Any],
    request: Mapping[str, Any],
    member_names: tuple[str, str] = ("NextToken", "MaxResults"),
    default_limit: int = 100,
    code: str = "ValidationException",
) -> tuple[Sequence[Any], dict[str, str]]:
    """Return the requested page of a list, and a mapping with the token of the next page, if there is another page.

    Args:
        member_names: the members with the token and with the maximum number of items.
        code: error code for an invalid token or number.

    Raises:
        ServiceError: the token is invalid, or the maximum number is not positive.
    """
    token_name, limit_name = member_names
    token = request.get(token_name) or "0"
    if not re.fullmatch("[0-9]{1,15}", token):
        raise ServiceError(code, f"{token_name} {token!r} is not valid: pass the {token_name} of the last response.")
    limit = request.get(limit_name, default_limit)
    if limit < 1:  # with a limit of 0, the client would get the same empty page again and again
        raise ServiceError(code, f"{limit_name} {limit} must be at least 1.")
    begin = int(token)
    end = begin + limit
    return items[begin:end], {token_name: str(end)} if end < len(items) else {}
