"""Bodies to arrays and arrays to bodies: JSON, CSV, JSON lines and npy.

Every decoder gives an array of shape (rows, width), or (n,) where the body holds one flat list; `as_rows` settles
what such a list means. Numbers in text answers are the shortest that read back as the same float32.
"""

import codecs
import csv
import functools
import io
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import simdjson
from numpy.lib import format as npy
from numpy.typing import NDArray

from . import media
from .answers import Problem, shown
from .media import CSV, FORMATS, JSON, JSON_LINES, NPY

Numbers = NDArray[Any]

# A numpy scalar: compared with half floats, a Python one would become a half float too, and infinite.
FLOAT32_MAX = np.finfo(np.float32).max

NPY_HEADER_LIMIT = 10_000
"""Characters of a .npy header: it is parsed as Python literals, which must not be given more than a header's worth."""

ENCODING_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the first half of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and the encodings that they stand for; spreadsheets write them."""
UNMARKED = range(1, codecs.BOM_UTF8[0])
"""First bytes that begin no byte order mark."""

CSV_HINTS = {
    "\0": "send UTF-8, or name the encoding in Content-Type, as in text/csv; charset=utf-16-le",
    "\n": "close each quote",
    ";": "separate the values by commas",
    "\t": "separate the values by commas",
    ",": "write numbers such as 1234.5, without commas",
}
"""A character of a field that is no number, and what to do about it."""

MAX_ARRAY_BYTES = 256 << 20
"""Size of an array of text; numpy gives each element the width of the longest."""
BYTES_PER_CHARACTER = 4

_parsers = threading.local()
"""A parser's memory is used again by its next document, so each thread has its own."""


def utf8(body: bytes, content_type: str) -> bytes:
    """Convert a text body to UTF-8 without a byte order mark.

    Raises:
        Problem: 400, the body is not in its declared encoding; 415, the encoding is unknown.
    """
    if body.startswith(codecs.BOM_UTF8):
        return body[len(codecs.BOM_UTF8) :]
    marked = next((codec for mark, codec in ENCODING_MARKS if body.startswith(mark)), None)
    codec = marked or media.charset(content_type)
    if codec == "utf-8":
        return body
    try:
        return body.decode(codec).encode()
    except UnicodeError as error:
        raise Problem(400, f"the body is not {codec} text: {error}") from None


def decode(body: bytes, media_type: str) -> Numbers:
    """A body of rows as real numbers, not yet checked for width and range.

    Raises:
        Problem: 400, the body is malformed; says in which row.
    """
    return _DECODERS[FORMATS[media_type]](body)


def encode(predictions: Numbers, media_type: str, member: str = "predictions") -> bytes:
    """Predictions of shape (rows, n) as a body, in JSON as the one `member` of an object.

    In CSV and JSON lines each row ends its line, the last one too, so that bodies can be joined end to end.
    """
    form = FORMATS[media_type]
    if form == NPY:
        return _encode_npy(predictions)
    rows = dumps(predictions)
    if form == JSON:
        return b'{"' + member.encode() + b'":' + rows + b"}"
    if form == JSON_LINES:
        return rows[1:-1].replace(b"],[", b"]\n[") + b"\n"
    return rows[2:-2].replace(b"],[", b"\n") + b"\n"


def dumps(value: object) -> bytes:
    """JSON, with arrays as nested lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def as_rows(numbers: Numbers, features: int) -> Numbers:
    """Shape (rows, features), checked: the width, and that each value is finite as a float32.

    A flat list is one row; where the model has one feature it is one value a row, as TensorFlow Serving has it.

    Raises:
        Problem: 400, says which row is wrong.
    """
    if numbers.ndim == 1:
        numbers = numbers.reshape((-1, 1) if features == 1 else (1, -1))
    if numbers.ndim != 2 or not numbers.size or numbers.shape[1] != features:
        raise Problem(400, f"the rows have shape {shown(numbers.shape)}: send (rows, {features}), at least one row")
    # The sum of squares shows at once that nothing is NaN, infinite or too large; if it does not, each number is asked.
    if not np.vdot(numbers, numbers) <= FLOAT32_MAX and not np.maximum.reduce(abs(numbers), axis=None) <= FLOAT32_MAX:
        row, column = np.argwhere(~(abs(numbers) <= FLOAT32_MAX))[0]
        value = numbers[row, column]
        raise Problem(400, f"row {row} has {value} as feature {column}: send finite numbers below 3.4e38")
    return numbers


def plain_rows(body: bytes, member: str | None = None) -> Numbers | None:
    """Rows of numbers of one length in JSON, several times faster than through Python's own floats.

    None for everything else, also for what is no JSON: it is to be looked at closely, and its mistake told.

    Args:
        member: the rows are the only member of an object, with this name.
    """
    try:
        content: Any = _parser().parse(body)
        rows = content if member is None else content[member]
        (width,) = set(map(len, rows))
        numbers = np.frombuffer(rows.as_buffer(of_type="d"))
        # The buffer is flat: lists in a row would not show in it, nor would a second member.
        if body.count(b"[") != len(rows) + 1 or numbers.size != len(rows) * width or (member and len(content) > 1):
            return None
        return numbers.reshape(-1, width)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        return None


def _parser() -> simdjson.Parser:
    try:
        parser: simdjson.Parser = _parsers.parser
    except AttributeError:
        parser = _parsers.parser = simdjson.Parser()
    return parser


def parse_json(body: bytes) -> Any:
    """Any JSON value.

    Raises:
        Problem: 400, not JSON; NaN and Infinity are not, nor is nesting beyond 1024 levels.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


def numbers_of(rows: Any, body: bytes) -> Numbers:
    """Parsed JSON rows as an array; `body` is where they came from.

    Raises:
        Problem: 400, rows differ in length or hold what is no number; says which row.
    """
    if _may_need(MAX_ARRAY_BYTES, body) and _holds(str, rows):
        raise _no_number(rows)
    try:
        numbers = np.array(rows)
    except (ValueError, OverflowError):
        raise _ragged(rows) from None
    if numbers.dtype.kind not in "fiu" or not isinstance(rows, list):
        raise _no_number(rows)
    # numpy takes true for 1; looking for the words is far cheaper than looking at each value.
    if (b"true" in body or b"false" in body) and _holds(bool, rows):
        raise _no_number(rows)
    return numbers


def _decode_json(body: bytes) -> Numbers:
    """`{"instances": rows}`, or the rows alone."""
    if (plain := plain_rows(body, "instances")) is not None:
        return plain
    content = parse_json(body)
    return numbers_of(content.get("instances") if isinstance(content, dict) else content, body)


def _decode_lines(body: bytes) -> Numbers:
    """A row a line: `[1.0, 2.0]` or `{"features": [1.0, 2.0]}`."""
    plain = plain_rows(b"[" + body.strip().replace(b"\n", b",") + b"]")
    if plain is not None:
        return plain
    rows = parse_json(b"[" + b",".join(line for line in body.splitlines() if line.strip()) + b"]")
    numbers = numbers_of([row.get("features", row) if isinstance(row, dict) else row for row in rows], body)
    return numbers.reshape(-1, 1) if numbers.ndim == 1 else numbers  # a line is a row, also if it is one number


def _decode_csv(body: bytes) -> Numbers:
    """The CSV is rewritten as JSON for the fast parser, which refuses what is not plain numbers."""
    body = body.strip(b"\r\n")
    plain = None if b"[" in body else plain_rows(b"[[" + body.replace(b"\n", b"],[") + b"]]")
    return _decode_csv_slowly(body) if plain is None else plain


def _decode_csv_slowly(body: bytes) -> Numbers:
    try:
        lines = list(csv.reader(io.StringIO(body.decode(), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Problem(400, f"the body is not CSV: {error}") from None
    rows = [[_csv_number(line, row, column) for column in range(len(line))] for row, line in enumerate(lines)]
    try:
        return np.array(rows, np.float64)
    except ValueError:
        raise _ragged(rows) from None


def _csv_number(line: list[str], row: int, column: int) -> float:
    field = line[column]
    if _is_number(field):
        return float(field)
    hint = ": send no header line" if row == 0 and _is_header(line) else _csv_hint(field)
    raise Problem(400, f"row {row} has {shown(field)} in column {column}, which is no number{hint}")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # a digit separator to Python only


def _is_header(line: list[str]) -> bool:
    """Whether these are names: no field begins as a number does, or is empty."""
    return all(field.strip()[:1].isalpha() and not _is_number(field) for field in line)


def _csv_hint(field: str) -> str:
    return next((f": {hint}" for mark, hint in CSV_HINTS.items() if mark in field), "")


def read_npy(body: bytes) -> Numbers:
    """An array of any type but objects, which would need pickle. It is read-only: its numbers stay where they lie.

    Raises:
        Problem: 400, not such an array, or not all of it.
    """
    return _array(body, _npy_header)


def _decode_npy(body: bytes) -> Numbers:
    return _array(body, _numbers_header)


Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether in Fortran's order, and type."""


def _array(body: bytes, read_header: Callable[[bytes], Header]) -> Numbers:
    size = body[8:10] if body[6:7] == b"\1" else body[8:12]
    start = 8 + len(size) + int.from_bytes(size, "little")
    shape, fortran, dtype = read_header(body[: min(start, 12 + NPY_HEADER_LIMIT)])
    missing = start + math.prod(shape) * dtype.itemsize - len(body)
    if missing:
        wrong = f"truncated by {missing}" if missing > 0 else f"too long by {-missing}"
        raise Problem(400, f"the .npy body is {wrong} bytes: its header says shape {shape} of {dtype}")
    return np.ndarray(shape, dtype, body, start, order="F" if fortran else "C")


@functools.lru_cache(64)  # clients send the same shape again and again, and numpy parses it as Python
def _numbers_header(head: bytes) -> Header:
    shape, fortran, dtype = _npy_header(head)
    if dtype.kind not in "fiu" or min(shape, default=0) < 1:
        raise Problem(400, f"the array holds {dtype} in shape {shape}: save real numbers as (rows, features)")
    return shape, fortran, dtype


def _npy_header(head: bytes) -> Header:
    file = io.BytesIO(head)
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file, max_header_size=NPY_HEADER_LIMIT)
    except KeyError:
        raise Problem(400, f"the body is .npy version {version}: send version 1.0 or 2.0") from None
    except Exception as error:  # numpy's parser lets those of ast and tokenize through, MemoryError among them
        raise Problem(400, f"the body is not a .npy array: {shown(str(error))}") from None
    if dtype.hasobject or min(shape, default=0) < 0:
        raise Problem(400, f"the array holds {dtype} in shape {shape}: save numbers or text, without pickle")
    return shape, fortran, dtype


def _encode_npy(array: Numbers) -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
    return file.getvalue() + array.tobytes("A")


_DECODERS = {JSON: _decode_json, JSON_LINES: _decode_lines, CSV: _decode_csv, NPY: _decode_npy}


def _ragged(rows: Any) -> Problem:
    width = len(rows[0]) if isinstance(rows[0], list) else None
    for number, row in enumerate(rows):
        if not isinstance(row, list) or any(isinstance(value, list | dict) for value in row):
            return Problem(400, f"row {number} is {shown(row)}: send a flat list of numbers for each row")
        if len(row) != width:
            return Problem(400, f"row {number} has {len(row)} values but row 0 has {width}: send rows of one length")
    return _no_number(rows)


def _no_number(rows: Any) -> Problem:
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        for value in row if isinstance(row, list) else [row]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return Problem(400, f"row {number} holds {shown(value)}: send numbers")
    return Problem(400, f"the rows are {shown(rows)}: send a list of rows, each a list of numbers below 3.4e38")


def _holds(kind: type, rows: Any) -> bool:
    """Whether nested lists hold a value of this kind. No recursion: clients choose the depth."""
    unseen = [rows]
    while unseen:
        value = unseen.pop()
        if isinstance(value, kind):
            return True
        if isinstance(value, list):
            unseen.extend(value)
    return False


def _may_need(limit: int, body: bytes) -> bool:
    """Whether an array of the strings in a JSON body may need more bytes than this.

    numpy gives each element the width of the longest: a body of 6 MB could fill the memory.
    """
    longest = max(map(len, body.split(b'"')))
    return longest * BYTES_PER_CHARACTER * (body.count(b",") + 1) > limit
