"""What both trainers do alike: read the channels, watch the loss, and write the bundle with its figures and pictures.

Needs numpy; what is needed after training only is imported there.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from microjobs import bundle
from microjobs.arrays import load_share, load_split
from microjobs.contract import Layout, read_input_data_config, read_training_resource_config
from microjobs.errors import UserError
from microjobs.files import write_text
from microjobs.hyperparameters import TrainerHyperparameters
from microjobs.scaler import Scaler, read_scaler, write_scaler
from microjobs.stopping import StopRequest
from microjobs.trainer.checkpoints import Checkpoints

Array = NDArray[np.float32]

HIDDEN_UNITS = (128, 64)
"""The MLP's two hidden layers, the same in both frameworks."""
GRADIENT_NORM = 20.0
"""Gradients are scaled down to this norm. Targets are not scaled, so their gradients are large: without a bound plain
SGD diverges on the housing data from a learning rate of 0.02 on, in the middle of the range that the notebook tunes."""

EXPORT_TOLERANCE = 1e-5
SAMPLE_ROWS = 1024
METRICS_FILE = "metrics.json"

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class TrainingData:
    """Both channels in memory: x of shape (rows, features), y of shape (rows, 1), and the scaler if x was scaled.

    shares: the channels of which each host has other rows (`ShardedByS3Key`), maybe none: x is then of shape (0, 0).
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    scaler: Scaler | None
    shares: frozenset[str] = frozenset()

    @property
    def features(self) -> int:
        return int(self.x_train.shape[1])

    @property
    def sample(self) -> Array:
        """The test rows that saved models are tried on: some, however many there are."""
        return self.x_test[:SAMPLE_ROWS]

    def identity(self) -> dict[str, str]:
        """Shape and digest of each array: equal for equal data, whatever files it lies in."""
        arrays = {"x_train": self.x_train, "y_train": self.y_train, "x_test": self.x_test, "y_test": self.y_test}
        return {name: f"{array.shape} sha256:{_digest(array)}" for name, array in arrays.items()}


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:16]


class Identified(Protocol):
    """The data, of this process or of all."""

    def identity(self) -> dict[str, str]: ...


def identity(
    framework: str, version: str, hyperparameters: TrainerHyperparameters, data: Identified
) -> dict[str, object]:
    """What a checkpoint must have in common with a job that goes on from it; hosts may be more or fewer.

    Builds of one version for another device (`2.13.0+cpu`) count as the same.
    """
    return {framework: version.partition("+")[0], **hyperparameters.identity(), **data.identity()}


def load_data(layout: Layout) -> TrainingData:
    """Read the channels `train` and `test`, all shards of them.

    Raises:
        UserError: a channel or file is missing or bad, or they do not fit each other.
    """
    shares = _shares(layout)
    x_train, y_train = _load_channel(layout, "train", shares)
    x_test, y_test = _load_channel(layout, "test", shares)
    scaler = read_scaler(layout.channel("train"))
    features = x_train.shape[1]
    if x_test.shape[1] != features and len(x_train) and len(x_test):
        raise UserError(
            f"x_train has {features} values a row, x_test has {x_test.shape[1]}: preprocess both in the same job"
        )
    if scaler is not None and scaler.features != features and len(x_train):
        raise UserError(
            f"scaler.json of channel train has {scaler.features} features, x_train has {features}: "
            "take both from the same preprocess job"
        )
    logger.info("%d training rows, %d test rows, %d features", len(x_train), len(x_test), features)
    return TrainingData(x_train, y_train, x_test, y_test, scaler, shares)


def _shares(layout: Layout) -> frozenset[str]:
    if len(read_training_resource_config(layout).hosts) == 1:
        return frozenset()
    channels = read_input_data_config(layout).items()
    return frozenset(name for name, channel in channels if channel.distribution == "ShardedByS3Key")


def _load_channel(layout: Layout, name: str, shares: frozenset[str]) -> tuple[Array, Array]:
    folder = layout.channel(name)
    if name in shares:
        return load_share(folder, name)
    if not folder.is_dir():
        raise UserError(f"channel {name!r} is missing: give the job an input with x_{name}.npy and y_{name}.npy")
    return load_split(folder, name)


@dataclass
class History:
    """The losses of the epochs that were tested, whole ones only; epochs count from 0."""

    epochs: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)

    def add(self, epoch: int, train: float, test: float) -> None:
        """Remember one epoch, once it is checked."""
        self.check(epoch, train, test)
        self.epochs.append(epoch)
        self.train.append(train)
        self.test.append(test)

    @staticmethod
    def check(epoch: int, train: float, test: float) -> None:
        """Raises UserError if a loss is not finite any more: no later epoch would be."""
        if not (math.isfinite(train) and math.isfinite(test)):
            raise UserError(
                f"the training diverged: in epoch {epoch} the train loss is {train:g} and the test loss {test:g}; "
                "use a smaller learning_rate"
            )

    @property
    def best_epoch(self) -> int | None:
        """The first epoch of the lowest test loss; None if there is no epoch yet."""
        return self.epochs[self.test.index(min(self.test))] if self.epochs else None

    def is_over(self, patience: int) -> bool:
        """Whether so many epochs, 0 for never, have not brought a lower test loss."""
        best = self.best_epoch
        return patience > 0 and best is not None and self.epochs[-1] - best >= patience


@dataclass(frozen=True)
class Trained:
    """What a trainer hands over when it is done; predictions have shape (rows, 1).

    epochs: passes over the training rows, with a fraction for what a stop left of the last one.
    seconds: that the training took, in earlier runs of the job too.
    best_epoch: whose weights the model has, if not the last ones.
    """

    framework: str
    epochs: float
    seconds: float
    history: History
    train_predictions: Array
    test_predictions: Array
    best_epoch: int | None = None


def finish(
    layout: Layout,
    hyperparameters: TrainerHyperparameters,
    data: TrainingData,
    trained: Trained,
    stop: StopRequest,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Complete the bundle in the model folder and write figures and pictures; the manifest comes last.

    A job that was stopped keeps its checkpoints, and says how to go on from them.

    Raises:
        RuntimeError: model.onnx, which the trainer wrote, does not predict what the trained model does.
    """
    # Imported only now: ONNX Runtime and matplotlib take a second that a job with bad data need not wait for.
    from microjobs import predictor

    predictor.check_equal(layout.model, data.sample, trained.test_predictions[:SAMPLE_ROWS], EXPORT_TOLERANCE)
    metrics = measure(hyperparameters.loss, data, trained)
    write_text(layout.output_data / METRICS_FILE, json.dumps(metrics, indent=1))
    _draw(layout.output_data, data, trained)
    if data.scaler is not None:
        write_scaler(layout.model, data.scaler)
    manifest = bundle.Manifest(
        trained.framework, data.features, metrics=metrics, hyperparameters=asdict(hyperparameters)
    )
    bundle.write_manifest(layout.model, manifest)
    logger.info("%.10g epochs in %.1f s | model in %s", trained.epochs, trained.seconds, layout.spell(layout.model))
    logger.info("Test MSE: %.4g | Test MAE: %.4g", metrics["test_mse"], metrics["test_mae"])
    if stop:
        logger.info("%s", _stop_line(trained.epochs, hyperparameters.epochs, stop, checkpoints))
    elif checkpoints is not None:
        checkpoints.done()


def _stop_line(epochs: float, of: int, stop: StopRequest, checkpoints: Checkpoints | None) -> str:
    line = f"stopped by {stop.name} after {epochs:.10g} of {of} epochs; the model so far is saved"
    if checkpoints is None:
        return line
    if not checkpoints.enabled:
        return f"{line}, but no checkpoint: {checkpoints.folder} cannot be written to"
    with_what = "folder" if checkpoints.temporary else "CheckpointConfig"
    return f"{line}; checkpoint in {checkpoints.folder}: start it again with the same {with_what} to go on"


def _mse(error: NDArray[np.float64]) -> float:
    return float(np.mean(error**2))


def _mae(error: NDArray[np.float64]) -> float:
    return float(np.mean(np.abs(error)))


def _huber(error: NDArray[np.float64]) -> float:
    return float(np.mean(np.where(np.abs(error) <= 1, error**2 / 2, np.abs(error) - 0.5)))


LOSSES: Mapping[str, Callable[[NDArray[np.float64]], float]] = {"mse": _mse, "mae": _mae, "l1": _mae, "huber": _huber}


def measure(loss: str, data: TrainingData, trained: Trained) -> dict[str, float]:
    """The final model's figures, computed alike for both frameworks: metrics.json and the manifest hold them."""
    metrics: dict[str, float] = {"epochs": round(trained.epochs, 3), "seconds": round(trained.seconds, 3)}
    if trained.best_epoch is not None:
        metrics["best_epoch"] = trained.best_epoch
    predicted = (("train", data.y_train, trained.train_predictions), ("test", data.y_test, trained.test_predictions))
    for split, target, predictions in predicted:
        error = predictions.astype(np.float64) - target
        metrics |= {f"{split}_loss": LOSSES[loss](error), f"{split}_mse": _mse(error), f"{split}_mae": _mae(error)}
    return metrics


def _draw(folder: Path, data: TrainingData, trained: Trained) -> None:
    from microjobs import plots

    history = trained.history
    plots.learning_curve(
        folder / "learning-curve.png", history.epochs, {"train": history.train, "test": history.test}, "Learning curve"
    )
    plots.predicted_versus_target(
        folder / "predicted-versus-target.png", data.y_test, trained.test_predictions, "Test rows"
    )
    if data.features == 1:
        train, test = (data.x_train, data.y_train), (data.x_test, data.y_test)
        plots.line_and_predictions(folder / "predictions.png", train, test, trained.test_predictions)
