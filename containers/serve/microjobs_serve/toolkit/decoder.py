"""Decoders of the convention: request bodies to numpy arrays with the types and shapes of `sagemaker-inference`."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import DTypeLike

from .. import formats, media
from ..answers import Problem
from . import content_types, errors

MAX_COLUMNS = 100_000
"""Columns of CSV that is not all integers or all decimals: genfromtxt takes 50 µs and 1 KB for each."""
MAX_UNPACKED_BYTES = 1 << 30
"""Size of an .npz archive after decompression."""
EXACT_INTEGER = 2.0**53
OTHER_THAN_NUMBERS = re.compile(r"[^0-9\s,.\-]")
LONG_NUMBER = re.compile(r"\d{19}")
"""orjson makes floats of integers that exceed 64 bits; the standard library keeps them."""


def _json_to_numpy(string_like: str | bytes, dtype: DTypeLike | None = None) -> Any:
    """Convert JSON to an array. An object becomes an array of no dimensions that holds a dict."""
    text = string_like if isinstance(string_like, str) else string_like.decode()
    if dtype is None and text.startswith("[[") and (plain := _plain_rows(text)) is not None:
        return plain
    try:
        value = _parse(text)
        if '"' in text:
            _check_size(re.split(r'[",\[]', text))
        return np.array(value, dtype=dtype)
    except (ValueError, OverflowError, RecursionError) as error:
        raise errors.MalformedBodyError(f"the body is not JSON that fits an array: {_sentence(error)}") from None


def _parse(text: str) -> Any:
    if LONG_NUMBER.search(text) is None:
        try:
            return orjson.loads(text)
        except ValueError:  # NaN, Infinity, or broken: the standard library decides, as it does in the package
            pass
    return json.loads(text)


def _csv_to_numpy(string_like: str, dtype: DTypeLike | None = None) -> Any:
    """Convert CSV to an array; columns of several types make a structured one, a single row or column a flat one."""
    if dtype is None and (plain := _plain_csv(string_like)) is not None:
        return plain
    if string_like.partition("\n")[0].count(",") >= MAX_COLUMNS:
        raise errors.MalformedBodyError(f"the body has more than {MAX_COLUMNS} columns")
    try:
        _check_size(re.split(r"[,\n]", string_like))
        return np.genfromtxt(io.StringIO(string_like), dtype=dtype, delimiter=",")
    except (ValueError, OverflowError) as error:
        raise errors.MalformedBodyError(f"the body is not CSV: {_sentence(error)}") from None


def _plain_csv(text: str) -> Any:
    """What genfromtxt makes of integers only or of decimals only, ten times faster; None for all other text."""
    lines = text.strip("\r\n")
    if OTHER_THAN_NUMBERS.search(lines):
        return None
    rows = _plain_rows("[[" + lines.replace("\n", "],[") + "]]")
    return None if rows is None else np.squeeze(rows)


def _plain_rows(text: str) -> Any:
    """JSON rows of integers only or of decimals only, several times faster; None for all other text."""
    decimals = text.count(".")
    if decimals not in (0, text.count(",") + 1) or "e" in text or "E" in text:
        return None
    rows = formats.plain_rows(text.encode())
    if rows is None or (not decimals and np.abs(rows).max(initial=0) >= EXACT_INTEGER):
        return None
    return rows.astype(np.float64 if decimals else np.int64)


def _npy_to_numpy(npy_array: bytes) -> Any:
    """Convert .npy to an array of its own, without pickle."""
    try:
        return formats.read_npy(npy_array).copy()
    except Problem as problem:
        raise errors.MalformedBodyError(str(problem)) from None


def _npz_to_sparse(npz_bytes: bytes) -> Any:
    """Convert .npz to a sparse matrix, where scipy is installed."""
    try:
        from scipy import sparse
    except ModuleNotFoundError:
        raise errors.UnsupportedFormatError(f"{content_types.NPZ} without scipy (add it to requirements.txt)") from None
    try:
        members = zipfile.ZipFile(io.BytesIO(npz_bytes)).infolist()
        if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
            raise errors.MalformedBodyError(f"the body unpacks to more than {MAX_UNPACKED_BYTES} bytes")
        return sparse.load_npz(io.BytesIO(npz_bytes))
    except Problem:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise errors.MalformedBodyError(f"the body is not a sparse matrix in .npz: {_sentence(error)}") from None


_decoder_map: Mapping[str, Callable[[Any], Any]] = {
    content_types.NPY: _npy_to_numpy,
    content_types.CSV: _csv_to_numpy,
    content_types.JSON: _json_to_numpy,
    content_types.NPZ: _npz_to_sparse,
}


def decode(obj: Any, content_type: str) -> Any:
    """Decode a body.

    Raises:
        UnsupportedFormatError: there is no decoder for the type.
        MalformedBodyError: the body is not of the type.
    """
    if content_type not in _decoder_map:
        raise errors.UnsupportedFormatError(content_type)
    return _decoder_map[content_type](obj)


def _check_size(fields: Iterable[str]) -> None:
    """Refuse text whose array could fill the memory: numpy gives each element the width of the longest."""
    lengths = [len(field) for field in fields]
    if max(lengths) * len(lengths) * formats.BYTES_PER_CHARACTER > formats.MAX_ARRAY_BYTES:
        raise errors.MalformedBodyError(f"a value of {max(lengths)} characters among {len(lengths)}: send shorter text")


def _sentence(error: BaseException) -> str:
    """An error's message on one line."""
    return media.shorten(" ".join(str(error).split()), 200) or type(error).__name__
