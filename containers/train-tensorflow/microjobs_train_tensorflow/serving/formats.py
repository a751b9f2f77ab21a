"""Formats of `/invocations`: converts bodies to requests for `:predict`, and predictions to responses."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from microjobs.hosting import formats
from microjobs.hosting.content_negotiation import choose_media_type
from microjobs.hosting.formats.csv_rows import decode_csv, read_fields
from microjobs.hosting.formats.npy_rows import decode_npy
from microjobs.hosting.media_types import CSV, FORMATS, JSON, JSON_LINES, NPY, SUPPORTED_FORMATS, parse_media_type
from microjobs.hosting.responses import HttpError, HttpResponse, quote

from .rest_api import Prediction, parse_json
from .tensors import Signature, TensorSpec

MAX_EXACT_INTEGER = 2**53
"""CSV is decoded to float64. From this absolute value on, a float64 may differ from the integer in the text."""


def find_format(content_type: str) -> str:
    """Return the format of a request.

    Raises:
        HttpError: 415, the media type is not supported.
    """
    media_type = parse_media_type(content_type) or JSON
    if media_type not in FORMATS:
        raise HttpError(415, f"Content-Type {quote(content_type)} is not supported: send {SUPPORTED_FORMATS}")
    return FORMATS[media_type]


def to_predict_request(body: bytes, content_type: str, find_signature: Callable[[], Signature]) -> Any:
    """Return the content of a request for `:predict`, as AWS's image makes it.

    Args:
        find_signature: function that returns the signature. Only CSV needs it, because the type of the input decides
            how fields are read.

    Raises:
        HttpError: 415, the media type is not supported; 400, the body is malformed.
    """
    body_format = find_format(content_type)
    if body_format == NPY:
        return {"inputs": decode_npy(body)}
    text = formats.to_utf8(body, content_type)
    if body_format == CSV:
        return {"instances": _read_csv(text, find_signature().inputs)}
    if body_format == JSON_LINES:
        return {"instances": [parse_json(line) for line in text.splitlines() if line.strip()]}
    return _wrap_json(parse_json(text))


def _wrap_json(content: Any) -> Any:
    """Return a request for `:predict` unchanged. Put other JSON, a list of rows or one row, into a request."""
    if isinstance(content, dict) and content.keys() & {"instances", "inputs"}:
        return content
    is_list_of_rows = isinstance(content, list) and content and isinstance(content[0], list | dict)
    return {"instances": content if is_list_of_rows else [content]}


def _read_csv(text: bytes, inputs: Mapping[str, TensorSpec]) -> Any:
    """Return the rows. A row with one column is a single value if the input has one dimension.

    Raises:
        HttpError: 400, the body is not CSV, a field is not a number of the input's kind, or there are several inputs.
    """
    if len(inputs) != 1:
        raise HttpError(400, f"the signature has the inputs {', '.join(inputs)}: send them by name, as JSON")
    spec = next(iter(inputs.values()))
    if spec.kind == "O":
        rows: Any = read_fields(text)
    else:
        rows = _read_integers(text) if spec.kind in "iu" else decode_csv(text).tolist()
    is_flat = spec.shape is not None and len(spec.shape) == 1 and all(len(row) == 1 for row in rows)
    return [row[0] for row in rows] if is_flat else rows


def _read_integers(text: bytes) -> Any:
    text = text.strip(b"\r\n")
    numbers = decode_csv(text)
    if (abs(numbers) < MAX_EXACT_INTEGER).all() and (numbers == numbers.round()).all():
        return numbers.astype(np.int64).tolist()
    return [[_parse_integer(field, row) for field in fields] for row, fields in enumerate(read_fields(text))]


def _parse_integer(field: str, row: int) -> int:
    try:
        return int(field)
    except ValueError:
        raise HttpError(400, f"row {row} has {quote(field)}: the signature expects integers") from None


def make_response(prediction: Prediction, content_type: str, accept: str) -> HttpResponse:
    """Encode a prediction. The default format is JSON, as in AWS's image. For a request in npy, the default is npy.

    Raises:
        HttpError: 406, Accept is not supported, or its format cannot represent the outputs.
    """
    media_type = choose_media_type(accept, NPY if find_format(content_type) == NPY else JSON)
    row_count = prediction.row_count or 0
    if FORMATS[media_type] == JSON:
        return HttpResponse(200, [("content-type", media_type)], prediction.to_json(), row_count=row_count)
    arrays = list(prediction.outputs.values())
    if len(arrays) != 1 or arrays[0].dtype.kind not in "fiu" or not 1 <= arrays[0].ndim <= 2:
        raise HttpError(
            406, f"{media_type} can contain only one numeric output with one or two dimensions: send Accept: {JSON}"
        )
    rows = arrays[0].reshape(len(arrays[0]), -1)
    body = formats.encode(rows, media_type)
    return HttpResponse(200, [("content-type", media_type)], body, row_count=row_count or len(rows))
