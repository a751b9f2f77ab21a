"""Mean and variance of each feature in one streaming pass, mergeable: over blocks, files and hosts alike.

Block by block with Chan, Golub and LeVeque's update (1979, "Updating formulae and a pairwise algorithm"), which loses
no digits where the mean is large against the spread.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import ArrayFile, Floats, each_part, first_bad_row, folded
from microjobs.errors import UserError
from microjobs.scaler import Scaler


@dataclass(frozen=True)
class Moments:
    """Per feature: values seen, their mean, and the sum of squared distances to it."""

    count: NDArray[np.int64]
    mean: Floats
    squares: Floats

    @classmethod
    def none(cls, features: int) -> "Moments":
        return cls(np.zeros(features, np.int64), np.zeros(features), np.zeros(features))

    def merge(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * share,
            self.squares + other.squares + apart * apart * self.count * share,
        )

    def scaler(self) -> Scaler:
        """Mean and population standard deviation; a feature that does not vary is scaled by 1.

        "Does not vary" allows for rounding, by the bound that scikit-learn's StandardScaler uses.

        Raises:
            UserError: a feature has no value in any training row.
        """
        if not self.count.all():
            raise UserError(f"feature {int(np.argmin(self.count))} has no value in any training row: drop the column")
        variance = self.squares / self.count
        epsilon = np.finfo(np.float64).eps
        constant = variance <= self.count * epsilon * variance + (self.count * self.mean * epsilon) ** 2
        scale = np.where(constant, 1.0, np.sqrt(variance))
        return Scaler(self.count.tolist(), self.mean.tolist(), scale.tolist())


def measure(array: ArrayFile, *, allow_missing: bool = False) -> Moments:
    """Read a features file once, checking every value.

    Raises:
        UserError: a row holds infinity, or NaN when missing values are not allowed; names file and row.
    """

    def measure_part(part: range) -> Moments:
        moments = Moments.none(array.width)
        for start, block in array.blocks(part):
            measured = _measure_block(block, allow_missing)
            if not np.isfinite(measured.squares).all():
                raise UserError(_what_is_wrong(array, block, start, allow_missing))
            moments = moments.merge(measured)
        return moments

    return reduce(Moments.merge, each_part(array, measure_part), Moments.none(array.width))


def merge_all(parts: list[Moments]) -> Moments:
    return reduce(Moments.merge, parts)


def _measure_block(block: NDArray[Any], allow_missing: bool) -> Moments:
    values = block.astype(np.float64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity show in the result, at no cost a value
        if allow_missing and np.isnan(values).any():
            return _measure_present(values)
        count, features = values.shape
        rows = folded(values)
        mean = _unfolded_sum(rows.sum(axis=0), features) / count
        apart = rows - np.tile(mean, rows.shape[1] // features)
        # The mean's own rounding error, taken out again: a feature that does not vary then has variance 0, whatever
        # its size (the "corrected two-pass algorithm" of Chan, Golub and LeVeque).
        error = _unfolded_sum(apart.sum(axis=0), features) / count
        squares = _unfolded_sum(np.einsum("ij,ij->j", apart, apart), features) - count * error * error
        return Moments(np.full(features, count), mean + error, np.maximum(squares, 0.0))


def _unfolded_sum(sums: Floats, features: int) -> Floats:
    total: Floats = sums.reshape(-1, features).sum(axis=0)
    return total


def _measure_present(values: Floats) -> Moments:
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    apart = np.where(present, values - mean, 0.0)
    return Moments(count, mean, np.einsum("ij,ij->j", apart, apart))


def _what_is_wrong(array: ArrayFile, block: NDArray[Any], start: int, allow_missing: bool) -> str:
    row = first_bad_row(block, allow_nan=allow_missing)
    if row is None:
        return f"{array.path.name} rows {start} to {start + len(block) - 1}: values too large to square; rescale them"
    bad = block[row][~np.isfinite(block[row])][0]
    remedy = "fill or drop the row" if allow_missing or np.isinf(bad) else "fill or drop the row, or --allow-missing"
    return f"{array.path.name} row {start + row} holds {bad}: {remedy}"
