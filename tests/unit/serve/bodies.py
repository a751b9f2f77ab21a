"""Random request bodies of all formats, with the rows that the server must read from them."""

import csv
import io
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

WIDTH = 3
JSON, CSV, LINES, NPY = "application/json", "text/csv", "application/jsonlines", "application/x-npy"
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Body:
    """A body, and its rows; None instead of the rows if the body is invalid or damaged."""

    media_type: str
    content: bytes
    rows: list[list[float]] | None


numbers = st.one_of(
    st.integers(-1000, 1000),
    st.floats(-1e6, 1e6, width=32),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 1e-45, 3.5e38, 10**20, 2**63, 2**64, 9007199254740993]),
)
mixed_values = st.one_of(numbers, st.none(), st.booleans(), st.text(max_size=3), st.lists(numbers, max_size=3))
valid_rows = st.lists(st.lists(numbers, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=4)
mixed_rows = st.lists(st.one_of(mixed_values, st.lists(mixed_values, max_size=4)), max_size=4)
any_rows = st.one_of(
    valid_rows, valid_rows, mixed_rows, st.recursive(mixed_values, lambda inner: st.lists(inner, max_size=3))
)
separator_pairs = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")])


def parse_rows(rows: Any) -> list[list[float]] | None:
    """Return the rows of parsed JSON, where a flat list is one row; None if they are invalid."""
    if not isinstance(rows, list) or not rows:
        return None
    row_lists = rows if isinstance(rows[0], list) else [rows]
    if not all(isinstance(row, list) and len(row) == WIDTH and all(map(is_number, row)) for row in row_lists):
        return None
    return [[float(value) for value in row] for row in row_lists]


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= LARGEST_FLOAT32


@st.composite
def json_bodies(draw: st.DrawFn) -> Body:
    rows, separators = draw(any_rows), draw(separator_pairs)
    content: Any = draw(
        st.sampled_from([{"instances": rows}, {"instances": rows}, {"inputs": rows}, rows, {"x": rows}])
    )
    is_known = not (isinstance(content, dict) and "x" in content)
    return Body(JSON, json.dumps(content, separators=separators).encode(), parse_rows(rows) if is_known else None)


@st.composite
def json_lines_bodies(draw: st.DrawFn) -> Body:
    rows = draw(st.one_of(valid_rows, mixed_rows))
    are_objects = draw(st.booleans())
    lines = [json.dumps({"features": row} if are_objects else row) for row in rows]
    row_lists = rows if all(isinstance(row, list) for row in rows) else None
    return Body(LINES, "\n".join(lines).encode() + b"\n" * draw(st.integers(0, 2)), parse_rows(row_lists))


@st.composite
def csv_bodies(draw: st.DrawFn) -> Body:
    fields = st.one_of(numbers.map(repr), numbers.map(repr), st.sampled_from(["+1", ".5", "1.", "1e3", " 2 "]))
    odd_fields = st.one_of(fields, st.text(alphabet="0123456789,.[]eE+-\"' \nx{}:", max_size=4))
    rows = draw(
        st.lists(st.lists(fields, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=4)
        | st.lists(st.lists(odd_fields))
    )
    text = draw(st.sampled_from(["\n", "\r\n"])).join(",".join(row) for row in rows)
    return Body(CSV, text.encode(), parse_csv(text))


def parse_csv(text: str) -> list[list[float]] | None:
    try:
        lines = list(csv.reader(io.StringIO(text.strip("\r\n"), newline="")))
        rows = [[float(field) for field in line] for line in lines]
    except (ValueError, csv.Error):
        return None
    if any("_" in field for line in lines for field in line):
        return None
    return parse_rows(rows)


@st.composite
def npy_bodies(draw: st.DrawFn) -> Body:
    dtype = draw(st.sampled_from(["<f4", ">f8", "<f8", "<i4", ">u2", "<f2", "?", "<U3", "<c8"]))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3) | st.tuples(st.integers(1, 4), st.just(WIDTH))))
    values = draw(st.lists(st.integers(0, 99), min_size=64, max_size=64))
    array = np.array(values[: math.prod(shape)]).reshape(shape).astype(dtype)
    file = io.BytesIO()
    np.save(file, np.asfortranarray(array) if draw(st.booleans()) else array)
    is_valid = (
        dtype[1:] in ("f4", "f8", "i4", "u2", "f2") and array.size and len(shape) in (1, 2) and shape[-1] == WIDTH
    )
    return Body(NPY, file.getvalue(), array.reshape(-1, WIDTH).astype(float).tolist() if is_valid else None)


@st.composite
def damage(draw: st.DrawFn, bodies: st.SearchStrategy[Body]) -> Body:
    """Return a body with a few bytes removed, changed or added. `rows` is None even if the content is still valid."""
    body = draw(bodies)
    content, position = bytearray(body.content), draw(st.integers(0, max(0, len(body.content) - 1)))
    content[position : position + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return Body(body.media_type, bytes(content), None)


undamaged_bodies = st.one_of(json_bodies(), csv_bodies(), json_lines_bodies(), npy_bodies())
damaged_bodies = damage(undamaged_bodies)
