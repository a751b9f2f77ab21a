"""Predict the rows of array files in blocks, and add up how far off the predictions are."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import ArrayFile, Floats, first_bad_row, load_array, open_array, write_array
from microjobs.errors import UserError
from microjobs.predictor import Predictor

logger = logging.getLogger("microjobs")

PLOTTED = 2_000
"""Points of a file that go into the plot, spread evenly over its rows."""


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

    @property
    def mse(self) -> float:
        return self.squared / self.rows

    @property
    def mae(self) -> float:
        return self.absolute / self.rows


def score_file(
    predictor: Predictor, features: ArrayFile, targets: Floats | None, output: Path, signature: str
) -> Score:
    """Write the predictions of one file, shape (rows,), and score them if their targets are known.

    Raises:
        UserError: a row holds NaN or infinity, or the model takes another width.
    """
    score = Score(rows=features.rows)
    start, every = 0, max(1, features.rows // PLOTTED)
    with write_array(output, (features.rows,), np.dtype(np.float32)) as writer:
        for block in features.blocks():
            _refuse_bad(features, block, start)
            predicted = predictor.predict(block, signature)[:, 0]
            writer.append(predicted)
            if targets is not None:
                _compare(score, targets[start : start + len(block)], predicted, every)
            start += len(block)
    logger.info("wrote %s: %d predictions", output.name, features.rows)
    return score


def load_targets(path: Path) -> Floats:
    """The targets of one file, shape (rows,).

    Raises:
        UserError: more than one value a row, or a bad one.
    """
    array = open_array(path)
    if array.width != 1:
        raise UserError(f"{path.name} has {array.width} values a row: one target is expected")
    return load_array(path)[:, 0].astype(np.float64)


def predictions_name(features: str) -> str:
    """`x_test-00001-of-00004.npy` → `predictions-00001-of-00004.npy`."""
    return features.replace("x_test", "predictions", 1)


def total(scores: Mapping[str, Score]) -> Score:
    """The scores of all files in the order of their names."""
    result = Score()
    for name in sorted(scores):
        result.add(scores[name])
    return result


def _compare(score: Score, target: Floats, predicted: NDArray[np.float32], every: int) -> None:
    apart = predicted - target
    score.squared += float(apart @ apart)
    score.absolute += float(np.abs(apart).sum())
    score.target += target[::every].tolist()
    score.predicted += predicted[::every].tolist()


def _refuse_bad(features: ArrayFile, block: NDArray[Any], start: int) -> None:
    row = first_bad_row(block)
    if row is not None:
        raise UserError(f"{features.path.name} row {start + row} holds NaN or infinity: fill or drop it")
