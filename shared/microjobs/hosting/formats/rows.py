"""Rows of features as arrays, and the checks that all formats share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..responses import HttpError, quote

Numbers = NDArray[Any]

# The value is a numpy scalar: in a comparison with half floats, numpy would convert a Python number to infinity.
FLOAT32_MAX = np.finfo(np.float32).max


def to_valid_rows(numbers: Numbers, feature_count: int) -> Numbers:
    """Return an array of the shape (rows, features). Check the shape, and that each value is finite as a float32.

    An array of one dimension is one row. If the model has one feature, however, each value is a row, as in TensorFlow
    Serving.

    Raises:
        HttpError: 400, the shape is wrong, or a value is not finite; the message names the row.
    """
    if numbers.ndim == 1:
        numbers = numbers.reshape((-1, 1) if feature_count == 1 else (1, -1))
    if numbers.ndim != 2 or not numbers.size or numbers.shape[1] != feature_count:
        shape = quote(numbers.shape)
        raise HttpError(400, f"the rows have shape {shape}: send (rows, {feature_count}), at least one row")
    # If the sum of squares is small enough, no value is NaN, infinite or too large. Otherwise check each value.
    if not np.vdot(numbers, numbers) <= FLOAT32_MAX:
        _check_values(numbers)
    return numbers


def _check_values(rows: Numbers) -> None:
    is_valid = abs(rows) <= FLOAT32_MAX
    if not is_valid.all():
        row, column = np.argwhere(~is_valid)[0]
        value = rows[row, column]
        raise HttpError(400, f"row {row} has {value} as feature {column}: send finite numbers below 3.4e38")


def make_ragged_rows_error(rows: Any) -> HttpError:
    """Return the error for lists that do not form an array; the message names the first wrong row."""
    width = len(rows[0]) if isinstance(rows[0], list) else None
    for number, row in enumerate(rows):
        if not isinstance(row, list) or any(isinstance(value, list | dict) for value in row):
            return HttpError(400, f"row {number} is {quote(row)}: send a flat list of numbers for each row")
        if len(row) != width:
            problem = f"row {number} has length {len(row)}, but row 0 has length {width}"
            return HttpError(400, f"{problem}: send rows of one length")
    return make_not_numbers_error(rows)


def make_not_numbers_error(rows: Any) -> HttpError:
    """Return the error for lists that contain values other than numbers; the message names the row."""
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        for value in row if isinstance(row, list) else [row]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return HttpError(400, f"row {number} contains {quote(value)}: send numbers")
    return HttpError(400, f"the rows are {quote(rows)}: send a list of rows, each a list of numbers below 3.4e38")
