"""Requests against the table."""

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from microjobs_orchestrator.local.parity.rows import Honoured, Members, Refused, Row, Rows

SHOWN = 100
"""Characters of a value that an error message repeats."""


def refusals(rows: Rows, params: Mapping[str, Any]) -> list[str]:
    """Each member of a request that is not supported: its path, its value, and the reason or what to do instead."""
    return list(_members(rows, params, ""))


def _members(rows: Rows, params: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, row in rows.items():
        below = f"{path}.{name}" if path else name
        if name in params:
            yield from _value(row, params[name], below)
        elif isinstance(row, Honoured | Members) and row.needed:
            yield f"{below} is missing, and is needed{_how(row)}"
    for name in params.keys() - rows.keys():
        # botocore's model is newer than the table.
        yield f"{path}.{name}".lstrip(".") + f" {_shown(params[name])} (this version does not know it)"


def _how(row: Honoured | Members) -> str:
    only = f" as {_shown(row.only[0])}" if isinstance(row, Honoured) and row.only else ""
    return f"{only}: {row.why}" if row.why else only


def _value(row: Row, value: Any, path: str) -> Iterator[str]:
    if isinstance(row, Refused) and not _idle(value):
        yield f"{path} {_shown(value)} ({row.why})"
    elif isinstance(row, Honoured) and row.only and value not in row.only:
        yield f"{path} {_shown(value)} (honoured: {', '.join(map(str, row.only))}; {row.why})"
    elif isinstance(row, Honoured) and isinstance(value, int | float) and not row.least <= value <= row.most:
        yield f"{path} {_shown(value)} (honoured: {limits(row)}; {row.why})"
    elif isinstance(row, Members):
        yield from _structures(row, value, path)


def _structures(row: Members, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield from _members(row.rows, value, path)
        return
    if row.most is not None and len(value) > row.most:
        yield f"{path} with {len(value)} items, more than {row.most} ({row.why})"
    for index, item in enumerate(value):
        yield from _members(row.rows, item, f"{path}[{index}]")


def limits(row: Honoured) -> str:
    """The numbers that are honoured, in words; empty for all."""
    ends = [f"from {row.least:g}"] * isfinite(row.least) + [f"to {row.most:g}"] * isfinite(row.most)
    return " ".join(ends)


def _idle(value: Any) -> bool:
    """Whether a value asks for nothing: empty, false, or a structure or list of such."""
    if isinstance(value, dict):
        return all(_idle(item) for item in value.values())
    if isinstance(value, list):
        return all(_idle(item) for item in value)
    return value is False or value == ""


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
