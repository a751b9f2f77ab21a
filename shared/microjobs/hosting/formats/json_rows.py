"""Decoders for JSON and JSON lines, and the encoder for JSON."""

import threading
from typing import Any

import numpy as np
import orjson
import simdjson

from ..responses import HttpError
from .rows import Numbers, make_not_numbers_error, make_ragged_rows_error

MAX_ARRAY_BYTES = 256 << 20
"""Maximum size of an array of text: numpy gives each element the width of the longest element."""
BYTES_PER_CHARACTER = 4


class _ThreadLocal(threading.local):
    """One parser per thread, because a parser reuses its memory for the next document."""

    def __init__(self) -> None:
        self.parser = simdjson.Parser()


_thread_local = _ThreadLocal()


def decode_json(body: bytes) -> Numbers:
    """Decode `{"instances": rows}`, or the rows alone."""
    if (rows := parse_plain_rows(body, "instances")) is not None:
        return rows
    content = parse_json(body)
    return to_array(content.get("instances") if isinstance(content, dict) else content, body)


def decode_json_lines(body: bytes) -> Numbers:
    """Decode one row per line: `[1.0, 2.0]` or `{"features": [1.0, 2.0]}`."""
    rows = parse_plain_rows(b"[" + body.strip().replace(b"\n", b",") + b"]")
    if rows is not None:
        return rows
    lines = parse_json(b"[" + b",".join(line for line in body.splitlines() if line.strip()) + b"]")
    numbers = to_array([line.get("features", line) if isinstance(line, dict) else line for line in lines], body)
    return numbers.reshape(-1, 1) if numbers.ndim == 1 else numbers  # a line that is one number is a row, too


def parse_plain_rows(body: bytes, member: str | None = None) -> Numbers | None:
    """Parse JSON rows of numbers, several times faster than `parse_json` and `to_array`.

    Return None for all other content, including malformed JSON: the slower functions handle it and report errors.

    Args:
        member: name of the object's only member, which contains the rows; None if the body is the rows without an
            object.
    """
    try:
        content: Any = _thread_local.parser.parse(body)
        rows = content if member is None else content[member]
        (width,) = set(map(len, rows))
        numbers = np.frombuffer(rows.as_buffer(of_type="d"))
        # The buffer is flat. It does not show whether lists are nested deeper, or the object has a second member.
        if body.count(b"[") != len(rows) + 1 or numbers.size != len(rows) * width or (member and len(content) > 1):
            return None
        return numbers.reshape(-1, width)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        return None


def parse_json(body: bytes) -> Any:
    """Parse any JSON value.

    Raises:
        HttpError: 400, the body is not JSON, contains NaN or Infinity, or is nested deeper than 1024 levels.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"the body is not JSON: {error}") from None


def to_array(rows: Any, body: bytes) -> Numbers:
    """Convert rows that were parsed from `body` to an array.

    Raises:
        HttpError: 400, the rows differ in length, or a value is not a number; the message names the row.
    """
    if _may_exceed(MAX_ARRAY_BYTES, body) and has_value_of_type(rows, str):
        raise make_not_numbers_error(rows)
    try:
        numbers = np.array(rows)
    except (ValueError, OverflowError):
        raise make_ragged_rows_error(rows) from None
    # numpy converts true to 1. Searching for the words is much faster than checking each value.
    has_booleans = (b"true" in body or b"false" in body) and has_value_of_type(rows, bool)
    if numbers.dtype.kind not in "fiu" or not isinstance(rows, list) or has_booleans:
        raise make_not_numbers_error(rows)
    return numbers


def dump_json(value: object) -> bytes:
    """Return JSON, with arrays as nested lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def has_value_of_type(values: Any, types: type | tuple[type, ...]) -> bool:
    """Return whether a value, or a value in nested lists, has one of these types.

    The function does not recurse, because clients choose the depth.
    """
    remaining_values = [values]
    while remaining_values:
        value = remaining_values.pop()
        if isinstance(value, types):
            return True
        if isinstance(value, list):
            remaining_values.extend(value)
    return False


def _may_exceed(limit: int, body: bytes) -> bool:
    """Return whether an array of the strings in a JSON body may need more bytes than `limit`.

    numpy gives each element the width of the longest element, so that a body of 6 MB could fill the memory.
    """
    max_length = max(map(len, body.split(b'"')))
    return max_length * BYTES_PER_CHARACTER * (body.count(b",") + 1) > limit
