"""Decoders and encoder for NumPy's .npy format, without pickle."""

import functools
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..responses import HttpError, quote
from .rows import Numbers

MAX_HEADER_CHARACTERS = 10_000
"""Maximum size of a header. numpy parses headers as Python literals, which is slow for long headers."""

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether the array is stored column by column (numpy's `fortran_order`), and type."""


def decode_npy(body: bytes) -> NDArray[Any]:
    """Decode an array of any type except objects, which need pickle. It shares the body's memory, so it is read-only.

    Raises:
        HttpError: 400, the body is not an array of these types, or has the wrong size.
    """
    return _read_array(body, _parse_header)


def decode_numeric_npy(body: bytes) -> Numbers:
    """Decode an array of real numbers."""
    return _read_array(body, _parse_numeric_header)


def encode_npy(array: Numbers) -> bytes:
    return _format_header(array.shape, array.flags.fnc, array.dtype) + array.tobytes("A")


@functools.lru_cache(64)  # many responses have the same header, and numpy formats it slowly
def _format_header(shape: tuple[int, ...], is_column_major: bool, dtype: np.dtype[Any]) -> bytes:
    file = io.BytesIO()
    header = {"shape": shape, "fortran_order": is_column_major, "descr": npy.dtype_to_descr(dtype)}
    npy.write_array_header_1_0(file, header)
    return file.getvalue()


def _read_array(body: bytes, parse_header: Callable[[bytes], Header]) -> Numbers:
    header_length = body[8:10] if body[6:7] == b"\1" else body[8:12]
    start = 8 + len(header_length) + int.from_bytes(header_length, "little")
    shape, is_column_major, dtype = parse_header(body[: min(start, 12 + MAX_HEADER_CHARACTERS)])
    missing_bytes = start + math.prod(shape) * dtype.itemsize - len(body)
    if missing_bytes:
        problem = f"truncated by {missing_bytes}" if missing_bytes > 0 else f"too long by {-missing_bytes}"
        raise HttpError(400, f"the .npy body is {problem} bytes: its header states shape {shape} of {dtype}")
    return np.ndarray(shape, dtype, body, start, order="F" if is_column_major else "C")


@functools.lru_cache(64)  # clients send the same header many times, and numpy parses it slowly
def _parse_numeric_header(head: bytes) -> Header:
    shape, is_column_major, dtype = _parse_header(head)
    if dtype.kind not in "fiu" or min(shape, default=0) < 1:
        raise HttpError(
            400, f"the array has type {dtype} and shape {shape}: save real numbers with shape (rows, features)"
        )
    return shape, is_column_major, dtype


def _parse_header(head: bytes) -> Header:
    file = io.BytesIO(head)
    try:
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, is_column_major, dtype = read_header(file, max_header_size=MAX_HEADER_CHARACTERS)
    except KeyError:
        raise HttpError(400, f"the body is .npy version {version}: send version 1.0 or 2.0") from None
    except Exception as error:  # numpy passes on errors of ast and tokenize, MemoryError among them
        raise HttpError(400, f"the body is not a .npy array: {quote(str(error))}") from None
    if dtype.hasobject or min(shape, default=0) < 0:
        raise HttpError(400, f"the array has type {dtype} and shape {shape}: save numbers or text, without pickle")
    return shape, is_column_major, dtype
