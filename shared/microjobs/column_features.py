"""Computes features from the values of named columns, for preprocessing and for serving. Needs numpy."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import Floats
from microjobs.columns import ONE_HOT, CategoricalColumn, FittedColumns, NumericColumn

Codes = NDArray[np.int64]
"""Array with one code per row: the index of a category, UNKNOWN_CODE or MISSING_CODE."""
UNKNOWN_CODE, MISSING_CODE = -1, -2


class BadCellError(Exception):
    """A value cannot become a feature.

    row: index of the row among the values that were checked.
    problem: completes the sentence "column X …".
    """

    def __init__(self, row: int, column: str, problem: str) -> None:
        super().__init__(f"row {row}: column {column!r} {problem}")
        self.row = row
        self.column = column
        self.problem = problem


def make_features(fitted: FittedColumns, values: Mapping[str, NDArray[Any]]) -> Floats:
    """Return features of shape (rows, features).

    Args:
        values: one array of shape (rows,) per column, by the column's name. A numeric column has doubles, with NaN for
            missing values. A categorical column has codes.

    Raises:
        BadCellError: a value is missing, infinite or not a known category, and the column does not allow it.
    """
    rows = len(values[fitted.columns[0].name])
    features = np.zeros((rows, len(fitted.feature_names)))
    start = 0
    for column in fitted.columns:
        block = features[:, start : start + len(column.feature_names)]
        if isinstance(column, NumericColumn):
            block[:, 0] = scale_numbers(column, values[column.name])
        else:
            _encode_categories(column, values[column.name], block)
        start += len(column.feature_names)
    return features


def scale_numbers(column: NumericColumn, values: Floats) -> Floats:
    """Return the feature of a numeric column, shape (rows,). Raise BadCellError if a value is missing or infinite."""
    filled_values = values if column.fill is None else np.where(np.isnan(values), column.fill, values)
    check_numbers(column.name, filled_values)
    feature: Floats = (filled_values - column.mean) / column.scale
    return feature


def check_numbers(name: str, values: Floats, *, allow_missing: bool = False) -> None:
    """Raise BadCellError if a value is infinite, or if a value is NaN and missing values are not allowed."""
    is_bad = np.isinf(values) if allow_missing else ~np.isfinite(values)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        problem = "is missing" if np.isnan(values[row]) else "is infinite"
        raise BadCellError(row, name, problem)


def encode_texts(column: CategoricalColumn, texts: Iterable[str | None]) -> Codes:
    """Return the codes of texts; None is a missing text."""
    codes = column.codes
    return np.array([MISSING_CODE if text is None else codes.get(text, UNKNOWN_CODE) for text in texts], np.int64)


def fill_codes(column: CategoricalColumn, codes: Codes) -> Codes:
    """Replace the codes of missing texts with the code of the column's `fill`.

    Raises:
        BadCellError: a text is missing or not a known category, and the column does not allow it.
    """
    if column.fill is not None:
        codes = np.where(codes == MISSING_CODE, encode_texts(column, [column.fill])[0], codes)
    invalid_codes = [(MISSING_CODE, "is missing")] if column.fill is None else []
    if column.unknown is None:
        invalid_codes.append((UNKNOWN_CODE, "is not one of the categories of the column"))
    for code, problem in invalid_codes:
        if (is_bad := codes == code).any():
            raise BadCellError(int(np.argmax(is_bad)), column.name, problem)
    return codes


def _encode_categories(column: CategoricalColumn, codes: Codes, features: Floats) -> None:
    """Write the features of a categorical column into an array of zeros of shape (rows, features of the column)."""
    codes = fill_codes(column, codes)
    is_known = codes >= 0
    if column.type == ONE_HOT:
        (rows,) = np.nonzero(is_known)
        features[rows, codes[rows]] = 1.0
    else:
        features[:, 0] = np.where(is_known, codes, column.unknown or 0.0)
