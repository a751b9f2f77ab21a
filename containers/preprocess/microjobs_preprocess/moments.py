"""Mean and variance of each feature in one pass over the data. Results of blocks, files and hosts can be merged.

Blocks are merged by the update of Chan, Golub and LeVeque (1979, "Updating formulae and a pairwise algorithm"), which
stays precise if the mean is much larger than the standard deviation.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import ArrayFile, Floats, find_bad_row, fold_rows, map_parts
from microjobs.errors import UserError
from microjobs.scaler import Scaler


@dataclass(frozen=True)
class Moments:
    """Number of values, mean, and sum of squared deviations from the mean, of each feature."""

    count: NDArray[np.int64]
    mean: Floats
    squared_deviations: Floats

    @classmethod
    def empty(cls, features: int) -> "Moments":
        return cls(np.zeros(features, np.int64), np.zeros(features), np.zeros(features))

    def merge(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        deviations = other.mean - self.mean
        return Moments(
            count,
            self.mean + deviations * share,
            self.squared_deviations + other.squared_deviations + deviations * deviations * self.count * share,
        )

    def make_scaler(self) -> Scaler:
        """Return mean and population standard deviation; the scale of a constant feature is 1.

        A feature is constant if its variance is within the rounding error that scikit-learn's StandardScaler allows.

        Raises:
            UserError: a feature has no value in any training row.
        """
        if not self.count.all():
            raise UserError(f"feature {int(np.argmin(self.count))} has no value in any training row: drop the column")
        variance = self.squared_deviations / self.count
        epsilon = np.finfo(np.float64).eps
        is_constant = variance <= self.count * epsilon * variance + (self.count * self.mean * epsilon) ** 2
        scale = np.where(is_constant, 1.0, np.sqrt(variance))
        return Scaler(self.count.tolist(), self.mean.tolist(), scale.tolist())


def measure(array: ArrayFile, *, allow_missing: bool = False) -> Moments:
    """Return the moments of a file of features. Read the file once, and check each value.

    Raises:
        UserError: a value is infinite, too large to square, or NaN if missing values are not allowed; the message names
            the file and the row or rows.
    """

    def measure_part(part: range) -> Moments:
        moments = Moments.empty(array.width)
        for start, block in array.blocks(part):
            block_moments = measure_block(block, allow_missing)
            if not np.isfinite(block_moments.squared_deviations).all():
                raise UserError(_describe_bad_block(array, block, start, allow_missing))
            moments = moments.merge(block_moments)
        return moments

    return reduce(Moments.merge, map_parts(array, measure_part), Moments.empty(array.width))


def measure_block(block: NDArray[Any], allow_missing: bool) -> Moments:
    """Return the moments of a block of shape (rows, features). The moments of a feature with a bad value are not
    finite."""
    values = block.astype(np.float64, copy=False)
    # NaN and infinity make the result not finite, so no check per value is necessary
    with np.errstate(over="ignore", invalid="ignore"):
        if allow_missing and np.isnan(values).any():
            return _measure_without_nan(values)
        count, features = values.shape
        rows = fold_rows(values)
        mean = _sum_per_feature(rows.sum(axis=0), features) / count
        deviations = rows - np.tile(mean, rows.shape[1] // features)
        # The rounding error of the mean is computed here and corrected below, so that a constant feature has variance 0
        # for any value (the "corrected two-pass algorithm" of Chan, Golub and LeVeque).
        error = _sum_per_feature(deviations.sum(axis=0), features) / count
        squared_deviations = (
            _sum_per_feature(np.einsum("ij,ij->j", deviations, deviations), features) - count * error * error
        )
        return Moments(np.full(features, count), mean + error, np.maximum(squared_deviations, 0.0))


def _sum_per_feature(sums: Floats, features: int) -> Floats:
    """Return one sum per feature. `sums` has several per feature, because `fold_rows` joined several rows into one."""
    total: Floats = sums.reshape(-1, features).sum(axis=0)
    return total


def _measure_without_nan(values: Floats) -> Moments:
    is_present = ~np.isnan(values)
    count = is_present.sum(axis=0)
    mean = np.where(is_present, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    deviations = np.where(is_present, values - mean, 0.0)
    return Moments(count, mean, np.einsum("ij,ij->j", deviations, deviations))


def _describe_bad_block(array: ArrayFile, block: NDArray[Any], start: int, allow_missing: bool) -> str:
    row = find_bad_row(block, allow_nan=allow_missing)
    if row is None:
        return f"{array.path.name} rows {start} to {start + len(block) - 1}: values too large to square; rescale them"
    is_bad = np.isinf(block[row]) if allow_missing else ~np.isfinite(block[row])
    value = block[row][is_bad][0]
    remedy = "replace the value or drop the row"
    if np.isnan(value):
        remedy += ", or use --allow-missing"
    return f"{array.path.name} row {start + row} contains {value}: {remedy}"
