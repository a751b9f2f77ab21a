"""Conversion between bodies and arrays, one module per format.

Decoders return an array of shape (rows, width), or of shape (n,) if the body holds one flat list; `rows.to_valid_rows`
defines the meaning of a flat list. Numbers in text have the fewest digits that represent the same float32.
"""

import codecs

from ..content_negotiation import parse_charset
from ..media_types import CSV, FORMATS, JSON, JSON_LINES, NPY
from ..responses import HttpError
from .csv_rows import decode_csv
from .json_rows import decode_json, decode_json_lines, dump_json
from .npy_rows import decode_numeric_npy, encode_npy
from .rows import Numbers

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # UTF-32 comes before UTF-16, whose mark is the first half of this mark
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and their encodings; spreadsheets write them."""
FIRST_BYTES_WITHOUT_MARK = range(1, codecs.BOM_UTF8[0])
"""First bytes that do not begin a byte order mark."""

_DECODERS = {JSON: decode_json, JSON_LINES: decode_json_lines, CSV: decode_csv, NPY: decode_numeric_npy}


def to_utf8(body: bytes, content_type: str) -> bytes:
    """Convert a text body to UTF-8 without a byte order mark.

    Raises:
        HttpError: 400, the body is not valid in its encoding; 415, the encoding is not supported.
    """
    if body.startswith(codecs.BOM_UTF8):
        return body[len(codecs.BOM_UTF8) :]
    mark_codec = next((codec for mark, codec in BYTE_ORDER_MARKS if body.startswith(mark)), None)
    codec = mark_codec or parse_charset(content_type)
    if codec == "utf-8":
        return body
    try:
        return body.decode(codec).encode()
    except UnicodeError as error:
        raise HttpError(400, f"the body is not {codec} text: {error}") from None


def decode(body: bytes, media_type: str) -> Numbers:
    """Return a body's rows as real numbers. Their width and range are not yet checked.

    Raises:
        HttpError: 400, the body is malformed; the message names the row.
    """
    return _DECODERS[FORMATS[media_type]](body)


def encode(predictions: Numbers, media_type: str, member: str = "predictions") -> bytes:
    """Return predictions of shape (rows, n) as a body. In JSON, they are the only member of an object.

    In CSV and JSON lines, each row ends with a newline, including the last row, so that bodies can be concatenated.
    """
    body_format = FORMATS[media_type]
    if body_format == NPY:
        return encode_npy(predictions)
    rows = dump_json(predictions)
    if body_format == JSON:
        return b'{"' + member.encode() + b'":' + rows + b"}"
    if body_format == JSON_LINES:
        return rows[1:-1].replace(b"],[", b"]\n[") + b"\n"
    return rows[2:-2].replace(b"],[", b"\n") + b"\n"
