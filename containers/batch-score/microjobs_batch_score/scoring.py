"""Predict the rows of array files in blocks, and add up how far off the predictions are."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import ArrayFile, Floats, each_part, open_array, refuse_bad_row, write_array
from microjobs.errors import UserError
from microjobs.predictor import Predictor

logger = logging.getLogger("microjobs")

PLOTTED = 2_000
"""Points of a file that go into the plot, spread evenly over its rows."""

Targets = Callable[[range], Floats]
"""Gives the targets of some rows, shape (rows,)."""


@dataclass
class Score:
    """Sums over rows that were predicted, addable over files and hosts."""

    rows: int = 0
    squared: float = 0.0
    absolute: float = 0.0
    target: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)

    def add(self, other: "Score") -> None:
        self.rows += other.rows
        self.squared += other.squared
        self.absolute += other.absolute
        self.target += other.target
        self.predicted += other.predicted

    @classmethod
    def sum(cls, scores: Iterable["Score"]) -> "Score":
        total = cls()
        for score in scores:
            total.add(score)
        return total

    @property
    def mse(self) -> float:
        return self.squared / self.rows

    @property
    def mae(self) -> float:
        return self.absolute / self.rows


def score_file(
    predictor: Predictor, features: ArrayFile, targets: Targets | None, output: Path, signature: str
) -> Score:
    """Write the predictions of one file, shape (rows,), and score them if their targets are known.

    Raises:
        UserError: a row holds NaN or infinity or is predicted so, or the model takes another width.
    """
    every = max(1, features.rows // PLOTTED)
    with write_array(output, (features.rows,), np.dtype(np.float32)) as writer:

        def score_part(part: range) -> Score:
            score = Score()
            for start, block in features.blocks(part):
                refuse_bad_row(features.path, start, block)
                with np.errstate(over="ignore"):  # shows in the prediction
                    predicted = predictor.predict(block, signature)[:, 0]
                _check(features.path, start, predicted)
                writer.write(start, predicted)
                known = None if targets is None else targets(range(start, start + len(block)))
                score.add(_compare(known, predicted, first=-start % every, every=every))
            return score

        score = Score.sum(each_part(features, score_part))
        if not math.isfinite(score.squared):
            raise UserError(f"the targets of {features.path.name} are too large to square their errors: rescale them")
    logger.info("wrote %s: %d predictions", output.name, features.rows)
    return score


def targets_in_file(path: Path) -> Targets:
    """The targets of one file, read when they are needed.

    Raises:
        UserError: more than one value a row; when read, a bad one.
    """
    array = open_array(path)
    if array.width != 1:
        raise UserError(f"{path.name} has {array.width} values a row: one target is expected")

    def read(rows: range) -> Floats:
        block = array.read(rows)
        refuse_bad_row(path, rows.start, block)
        return block[:, 0].astype(np.float64)

    return read


def targets_in_memory(values: Floats) -> Targets:
    return lambda rows: values[rows.start : rows.stop]


def load_targets(path: Path) -> Floats:
    """All targets of one file, shape (rows,).

    Raises:
        UserError: as `targets_in_file`.
    """
    return targets_in_file(path)(range(open_array(path).rows))


def predictions_name(features: str) -> str:
    """`x_test-00001-of-00004.npy` → `predictions-00001-of-00004.npy`."""
    return features.replace("x_test", "predictions", 1)


def _compare(target: Floats | None, predicted: NDArray[np.float32], first: int, every: int) -> Score:
    if target is None:
        return Score(rows=len(predicted))
    apart = predicted - target
    with np.errstate(over="ignore"):  # shows in the sum
        squared = float(np.square(apart).sum())
    return Score(
        rows=len(predicted),
        squared=squared,
        absolute=float(np.abs(apart).sum()),
        target=target[first::every].tolist(),
        predicted=predicted[first::every].tolist(),
    )


def _check(path: Path, start: int, predicted: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(predicted))
    if bad.size:
        raise UserError(
            f"{path.name} row {start + int(bad[0])}: the model predicts {predicted[bad[0]]}; "
            "scale the features as for its training, or train it again"
        )


def targets_of(features: Path, fetched: Mapping[str, Floats]) -> Targets | None:
    """Targets of a feature file: from memory if another host sent them, else from the file beside it."""
    path = features.with_name("y" + features.name[1:])
    if path.name in fetched:
        return targets_in_memory(fetched[path.name])
    return targets_in_file(path) if path.exists() else None
