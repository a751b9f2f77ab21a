"""Decoder for CSV without a header."""

import csv
import io
import sys

import numpy as np

from ..responses import HttpError, quote
from .json_rows import parse_plain_rows
from .rows import Numbers, make_ragged_rows_error

csv.field_size_limit(sys.maxsize)  # a text may be as long as the body, whose size is already limited

HINTS = {
    "\0": "send UTF-8, or name the encoding in Content-Type, as in text/csv; charset=utf-16-le",
    "\n": "close each quote",
    ";": "separate the values by commas",
    "\t": "separate the values by commas",
    ",": "write numbers such as 1234.5, without commas",
}
"""Remedies for a field that is not a number, by a character that the field contains."""


def decode_csv(body: bytes) -> Numbers:
    """Decode CSV. If it has only plain numbers, rewrite it as JSON, for which there is a fast parser."""
    body = body.strip(b"\r\n")
    rows = None if b"[" in body else parse_plain_rows(b"[[" + body.replace(b"\n", b"],[") + b"]]")
    return _decode_any_csv(body) if rows is None else rows


def read_fields(body: bytes) -> list[list[str]]:
    """Return the rows, each as a list of the texts of its fields.

    Raises:
        HttpError: 400, the body is not CSV.
    """
    try:
        return list(csv.reader(io.StringIO(body.decode(), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise HttpError(400, f"the body is not CSV: {error}") from None


def _decode_any_csv(body: bytes) -> Numbers:
    rows = [
        [_parse_number(fields, row, column) for column in range(len(fields))]
        for row, fields in enumerate(read_fields(body))
    ]
    try:
        return np.array(rows, np.float64)
    except ValueError:
        raise make_ragged_rows_error(rows) from None


def _parse_number(fields: list[str], row: int, column: int) -> float:
    field = fields[column]
    if is_number(field):
        return float(field)
    remedy = next((f": {hint}" for mark, hint in HINTS.items() if mark in field), "")
    if row == 0 and _is_header(fields):
        remedy = ": send no header line"
    raise HttpError(400, f"row {row} has {quote(field)} in column {column}, which is not a number{remedy}")


def is_number(field: str) -> bool:
    """Return whether a field is a number, which may be infinite or NaN."""
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # `float` accepts digit separators


def _is_header(fields: list[str]) -> bool:
    """Return whether the fields are names: each field begins with a letter, and no field is a number."""
    return all(field.strip()[:1].isalpha() and not is_number(field) for field in fields)
