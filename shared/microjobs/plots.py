"""Plots that jobs save next to their metrics.

Needs matplotlib, but not pyplot, which has global state and may need a screen.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

# The log level is set before the import: in a new container, matplotlib searches for fonts, and logs a warning if that
# takes long.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

from microjobs.interpreter import prepare_matplotlib  # noqa: E402

prepare_matplotlib(os.environ)

import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from numpy.typing import ArrayLike  # noqa: E402

from microjobs.files import atomic_write  # noqa: E402

# A file `matplotlibrc` in the working directory must not choose the style.
mpl.rcParams.update({name: value for name, value in mpl.rcParamsDefault.items() if "backend" not in name})

MAX_POINTS = 5000
"""Maximum number of points of a plot. More points would overlap, and take seconds to draw."""


def draw_learning_curve(path: Path, epochs: Sequence[int], losses: Mapping[str, Sequence[float]]) -> None:
    """Draw one line per loss over the epochs. The scale is logarithmic if all losses are positive."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, values in losses.items():
        axes.plot(epochs, values, label=name)
    if all(value > 0 for values in losses.values() for value in values):
        axes.set_yscale("log")
    axes.set(title="Learning curve", xlabel="epoch", ylabel="loss")
    axes.legend()
    _save(figure, path)


def draw_predicted_versus_target(path: Path, targets: ArrayLike, predictions: ArrayLike, title: str) -> None:
    """Draw one point per test row, but at most MAX_POINTS points. Exact predictions are on the diagonal."""
    targets, predictions = np.ravel(targets), np.ravel(predictions)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    low, high = min(targets.min(), predictions.min()), max(targets.max(), predictions.max())
    axes.plot([low, high], [low, high], color="grey", linewidth=1)
    interval = -(-len(targets) // MAX_POINTS)
    axes.scatter(targets[::interval], predictions[::interval], s=10)
    axes.set(title=title, xlabel="target", ylabel="predicted")
    _save(figure, path)


def draw_data_and_predictions(
    path: Path, train: tuple[ArrayLike, ArrayLike], test: tuple[ArrayLike, ArrayLike], predictions: ArrayLike
) -> None:
    """Draw the target over the only feature, for training data, test data and predictions."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*train, c="b", s=4, label="Training data")
    axes.scatter(*test, c="g", s=4, label="Test data")
    axes.scatter(test[0], predictions, c="r", s=4, label="Predictions")
    axes.legend(prop={"size": 14})
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=100)
