"""Decoders that convert request bodies to numpy arrays with the types and shapes of `sagemaker-inference`."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson
from numpy.typing import DTypeLike

from ..formats.json_rows import BYTES_PER_CHARACTER, MAX_ARRAY_BYTES, parse_plain_rows
from ..formats.npy_rows import decode_npy
from ..responses import HttpError, shorten
from . import content_types, errors

MAX_COLUMNS = 100_000
"""Maximum number of columns of CSV that is given to numpy's genfromtxt, which needs 50 µs and 1 KB per column."""
MAX_UNPACKED_BYTES = 1 << 30
"""Maximum size of an .npz archive after decompression."""
FIRST_INEXACT_INTEGER = 2.0**53
"""From this number on, floats do not represent all integers."""
OTHER_CHARACTER_PATTERN = re.compile(r"[^0-9\s,.\-]")
"""Matches a character that CSV of plain numbers does not contain."""
LONG_NUMBER_PATTERN = re.compile(r"\d{19}")
"""Matches integers that may exceed 64 bits: orjson converts them to floats, and the standard library keeps them."""


def _json_to_numpy(string_like: str | bytes, dtype: DTypeLike | None = None) -> Any:
    """Convert JSON to an array. An object becomes an array without dimensions that holds a dict."""
    text = string_like if isinstance(string_like, str) else string_like.decode()
    if dtype is None and text.startswith("[[") and (rows := _parse_plain_rows(text)) is not None:
        return rows
    try:
        value = _parse(text)
        if '"' in text:
            _check_size(re.split(r'[",\[]', text))
        return np.array(value, dtype=dtype)
    except (ValueError, OverflowError, RecursionError) as error:
        raise errors.MalformedBodyError(f"the body is not JSON that fits an array: {_format_error(error)}") from None


def _parse(text: str) -> Any:
    if LONG_NUMBER_PATTERN.search(text) is None:
        try:
            return orjson.loads(text)
        except ValueError:  # the text contains NaN or Infinity, which the standard library parses, or is malformed
            pass
    return json.loads(text)


def _csv_to_numpy(string_like: str, dtype: DTypeLike | None = None) -> Any:
    """Convert CSV to an array: structured if the columns have several types, flat for a single row or column."""
    if dtype is None and (rows := _parse_plain_csv(string_like)) is not None:
        return rows
    if string_like.partition("\n")[0].count(",") >= MAX_COLUMNS:
        raise errors.MalformedBodyError(f"the body has more than {MAX_COLUMNS} columns")
    try:
        _check_size(re.split(r"[,\n]", string_like))
        return np.genfromtxt(io.StringIO(string_like), dtype=dtype, delimiter=",")
    except (ValueError, OverflowError) as error:
        raise errors.MalformedBodyError(f"the body is not CSV: {_format_error(error)}") from None


def _parse_plain_csv(text: str) -> Any:
    """Return the array that genfromtxt returns, if all numbers are integers or all are decimals; otherwise None.

    This function is ten times faster than genfromtxt.
    """
    stripped_text = text.strip("\r\n")
    if OTHER_CHARACTER_PATTERN.search(stripped_text):
        return None
    rows = _parse_plain_rows("[[" + stripped_text.replace("\n", "],[") + "]]")
    return None if rows is None else np.squeeze(rows)


def _parse_plain_rows(text: str) -> Any:
    """Parse JSON rows if all numbers are integers or all are decimals; otherwise return None.

    This function is several times faster than numpy.
    """
    decimals = text.count(".")
    if decimals not in (0, text.count(",") + 1) or "e" in text or "E" in text:
        return None
    rows = parse_plain_rows(text.encode())
    if rows is None or (not decimals and np.abs(rows).max(initial=0) >= FIRST_INEXACT_INTEGER):
        return None
    return rows.astype(np.float64 if decimals else np.int64)


def _npy_to_numpy(npy_array: bytes) -> Any:
    """Convert .npy to a writable array, without pickle."""
    try:
        return decode_npy(npy_array).copy()
    except HttpError as error:
        raise errors.MalformedBodyError(str(error)) from None


def _npz_to_sparse(npz_bytes: bytes) -> Any:
    """Convert .npz to a sparse matrix, if scipy is installed."""
    try:
        from scipy import sparse
    except ModuleNotFoundError:
        raise errors.UnsupportedFormatError(f"{content_types.NPZ} without scipy (add it to requirements.txt)") from None
    try:
        members = zipfile.ZipFile(io.BytesIO(npz_bytes)).infolist()
        if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
            raise errors.MalformedBodyError(f"the body unpacks to more than {MAX_UNPACKED_BYTES} bytes")
        return sparse.load_npz(io.BytesIO(npz_bytes))
    except HttpError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise errors of many types
        raise errors.MalformedBodyError(f"the body is not a sparse matrix in .npz: {_format_error(error)}") from None


_decoder_map: dict[str, Callable[[Any], Any]] = {
    content_types.NPY: _npy_to_numpy,
    content_types.CSV: _csv_to_numpy,
    content_types.JSON: _json_to_numpy,
    content_types.NPZ: _npz_to_sparse,
}


def decode(obj: Any, content_type: str) -> Any:
    """Decode a body.

    Raises:
        UnsupportedFormatError: the type has no decoder.
        MalformedBodyError: the body does not match the type.
    """
    if content_type not in _decoder_map:
        raise errors.UnsupportedFormatError(content_type)
    return _decoder_map[content_type](obj)


def _check_size(fields: Iterable[str]) -> None:
    """Reject text whose array could fill the memory: numpy gives each element the width of the longest element."""
    lengths = [len(field) for field in fields]
    if max(lengths) * len(lengths) * BYTES_PER_CHARACTER > MAX_ARRAY_BYTES:
        raise errors.MalformedBodyError(f"a value of {max(lengths)} characters among {len(lengths)}: send shorter text")


def _format_error(error: BaseException) -> str:
    """Return an error's message on one line."""
    return shorten(" ".join(str(error).split()), limit=200) or type(error).__name__
