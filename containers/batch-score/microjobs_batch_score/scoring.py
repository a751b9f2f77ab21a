"""Predicts array files in blocks, sums the errors, and writes the report."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import ArrayFile, Floats, map_parts, open_array, refuse_bad_row, write_array
from microjobs.errors import UserError
from microjobs.files import write_text
from microjobs.predictor import Predictor

logger = logging.getLogger("microjobs")

MAX_PLOT_POINTS = 2_000
"""Maximum number of points per file in the plot. The points are spread evenly over the rows."""

ReadTargets = Callable[[range], Floats]
"""Function that returns the targets of a range of rows, shape (rows,)."""


@dataclass
class Score:
    """Sums over predicted rows. The scores of several files and hosts can be added."""

    rows: int = 0
    squared_error_sum: float = 0.0
    absolute_error_sum: float = 0.0
    plot_targets: list[float] = field(default_factory=list)
    plot_predictions: list[float] = field(default_factory=list)

    @classmethod
    def sum(cls, scores: Iterable["Score"]) -> "Score":
        total = cls()
        for score in scores:
            total.rows += score.rows
            total.squared_error_sum += score.squared_error_sum
            total.absolute_error_sum += score.absolute_error_sum
            total.plot_targets += score.plot_targets
            total.plot_predictions += score.plot_predictions
        return total

    @property
    def mse(self) -> float:
        return self.squared_error_sum / self.rows

    @property
    def mae(self) -> float:
        return self.absolute_error_sum / self.rows


def score_file(
    predictor: Predictor, features: ArrayFile, read_targets: ReadTargets | None, output: Path, signature: str
) -> Score:
    """Write the predictions of one file, shape (rows,), and score them if there are targets.

    Raises:
        UserError: a row or its prediction is NaN or infinite, the model takes rows of another width, or an error is too
            large to square.
    """
    plot_interval = max(1, -(-features.rows // MAX_PLOT_POINTS))
    with write_array(output, (features.rows,), np.dtype(np.float32)) as writer:

        def score_part(part: range) -> Score:
            scores = []
            for start, block in features.blocks(part):
                refuse_bad_row(features.path, start, block)
                with np.errstate(over="ignore"):  # an overflow is ignored here, because `_check_finite` reports it
                    predictions = predictor.predict(block, signature)[:, 0]
                _check_finite(features.path, start, predictions)
                writer.write(start, predictions)
                targets = None if read_targets is None else read_targets(range(start, start + len(block)))
                scores.append(_compare(targets, predictions, first=-start % plot_interval, plot_interval=plot_interval))
            return Score.sum(scores)

        score = Score.sum(map_parts(features, score_part))
        if not math.isfinite(score.squared_error_sum):
            raise UserError(f"the targets of {features.path.name} are too large to square their errors: rescale them")
    logger.info("wrote %s: %d predictions", output.name, features.rows)
    return score


def open_targets(path: Path) -> ReadTargets:
    """Return a function that reads targets from a file.

    Raises:
        UserError: the file has more than one value per row. The returned function raises UserError for a
            value that is not finite.
    """
    array = open_array(path)
    if array.width != 1:
        raise UserError(f"{path.name} has {array.width} values per row: one target is expected")

    def read(rows: range) -> Floats:
        block = array.read(rows)
        refuse_bad_row(path, rows.start, block)
        return block[:, 0].astype(np.float64)

    return read


def load_targets(path: Path) -> Floats:
    """Return all targets of one file, shape (rows,). Raise the errors of `open_targets`."""
    return open_targets(path)(range(open_array(path).rows))


def find_targets(features: Path, remote_targets: Mapping[str, Floats]) -> ReadTargets | None:
    """Return a function that reads the targets of a feature file; None if the file has no targets.

    The targets come from another host, or from a file in the same folder.
    """
    path = features.with_name("y" + features.name[1:])
    if (values := remote_targets.get(path.name)) is not None:
        return lambda rows: values[rows.start : rows.stop]
    return open_targets(path) if path.exists() else None


def make_predictions_name(features: str) -> str:
    """Return the name of the predictions file: `predictions-00001-of-00004.npy` for `x_test-00001-of-00004.npy`."""
    return features.replace("x_test", "predictions", 1)


def _compare(targets: Floats | None, predictions: NDArray[np.float32], first: int, plot_interval: int) -> Score:
    """Return the score of a block.

    The plot gets the row `first` of the block, and every `plot_interval`-th row after it.
    """
    if targets is None:
        return Score(rows=len(predictions))
    errors = predictions - targets
    with np.errstate(over="ignore"):  # an overflow is ignored here, because `score_file` reports it
        squared_error_sum = float(np.square(errors).sum())
    return Score(
        rows=len(predictions),
        squared_error_sum=squared_error_sum,
        absolute_error_sum=float(np.abs(errors).sum()),
        plot_targets=targets[first::plot_interval].tolist(),
        plot_predictions=predictions[first::plot_interval].tolist(),
    )


def _check_finite(path: Path, start: int, predictions: NDArray[np.float32]) -> None:
    bad_rows = np.flatnonzero(~np.isfinite(predictions))
    if bad_rows.size:
        raise UserError(
            f"{path.name} row {start + int(bad_rows[0])}: the model predicts {predictions[bad_rows[0]]}; "
            "scale the features as for its training, or train it again"
        )


def write_report(folder: Path, score: Score, *, with_targets: bool) -> None:
    """Write score-report.txt and report.json. With targets, also draw the plot."""
    line = f"Test MSE : {score.mse}" if with_targets else "Test MSE : unknown (no targets)"
    numbers: dict[str, float | int] = {"rows": score.rows}
    if with_targets:
        # The plots are imported only if there are targets, because the import is slow.
        from microjobs.plots import draw_predicted_versus_target

        numbers |= {"mse": score.mse, "mae": score.mae}
        title = f"{score.rows} test rows, MSE {score.mse:.4g}"
        draw_predicted_versus_target(
            folder / "predicted-versus-target.png", score.plot_targets, score.plot_predictions, title
        )
    write_text(folder / "report.json", json.dumps(numbers, indent=1))
    write_text(folder / "score-report.txt", line)
    logger.info("%s", line)
