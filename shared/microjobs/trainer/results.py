"""Results of a training job: metrics, plots and the model bundle.

This module imports slow libraries, such as matplotlib, only when they are needed.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microjobs.bundle import PIPELINE_FILE, Manifest, write_manifest
from microjobs.columns import write_columns
from microjobs.contract import Layout
from microjobs.files import write_bytes, write_text
from microjobs.scaler import write_scaler
from microjobs.trainer.data import SAMPLE_ROWS, Array, TrainingData
from microjobs.trainer.hyperparameters import TrainerHyperparameters
from microjobs.trainer.progress import History

EXPORT_TOLERANCE = 1e-5
"""Maximum difference between the predictions of model.onnx and of the framework; see `predictor.check_predictions`."""

logger = logging.getLogger("microjobs")


LOSSES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mse": np.square,
    "mae": np.abs,
    "l1": np.abs,
    "huber": lambda error: np.where(np.abs(error) <= 1, error**2 / 2, np.abs(error) - 0.5),
}
"""Functions that return the loss of each row from its error."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished training; predictions have shape (rows, 1).

    framework: the framework's name in the bundle's manifest.
    epochs: passes over the training rows, including the fraction of the last epoch if the training was stopped in it.
    seconds: training time of all attempts of the job.
    best_epoch: the epoch whose weights the model has; None for the last epoch.
    """

    framework: str
    epochs: float
    seconds: float
    history: History
    train_predictions: Array
    test_predictions: Array
    best_epoch: int | None = None


def write_results(
    layout: Layout, hyperparameters: TrainerHyperparameters, data: TrainingData, result: TrainingResult
) -> None:
    """Check model.onnx, which the framework has written. Write metrics, plots and the other files of the model bundle.

    The manifest is written last.

    Raises:
        RuntimeError: model.onnx predicts other values than the trained network.
    """
    # ONNX Runtime and matplotlib are imported late, because the imports take a second, and a job with invalid data
    # should fail before them.
    from microjobs import predictor

    predictor.check_predictions(layout.model, data.sample, result.test_predictions[:SAMPLE_ROWS], EXPORT_TOLERANCE)
    metrics = compute_metrics(hyperparameters.loss, data, result)
    write_text(layout.output_data / "metrics.json", json.dumps(metrics, indent=1))
    _draw(layout.output_data, data, result)
    if data.scaler is not None:
        write_scaler(layout.model, data.scaler)
    if data.columns is not None:
        write_columns(layout.model, data.columns)
    if data.pipeline is not None:
        write_bytes(layout.model / PIPELINE_FILE, data.pipeline)
    manifest = Manifest(result.framework, data.features, metrics=metrics, hyperparameters=asdict(hyperparameters))
    write_manifest(layout.model, manifest)
    logger.info(
        "%.10g epochs in %.1f s | model in %s", result.epochs, result.seconds, layout.to_contract_path(layout.model)
    )
    logger.info("Test MSE: %.4g | Test MAE: %.4g", metrics["test_mse"], metrics["test_mae"])


def compute_metrics(loss: str, data: TrainingData, result: TrainingResult) -> dict[str, float]:
    """Return the metrics of the final model, for metrics.json and the manifest."""
    metrics: dict[str, float] = {"epochs": round(result.epochs, 3), "seconds": round(result.seconds, 3)}
    if result.best_epoch is not None:
        metrics["best_epoch"] = result.best_epoch
    splits = (("train", data.y_train, result.train_predictions), ("test", data.y_test, result.test_predictions))
    for split, target, predictions in splits:
        error = predictions.astype(np.float64) - target
        for metric, function in (("loss", LOSSES[loss]), ("mse", LOSSES["mse"]), ("mae", LOSSES["mae"])):
            metrics[f"{split}_{metric}"] = float(np.mean(function(error)))
    return metrics


def _draw(folder: Path, data: TrainingData, result: TrainingResult) -> None:
    from microjobs import plots

    history = result.history
    losses = {"train": history.train, "test": history.test}
    plots.draw_learning_curve(folder / "learning-curve.png", history.epochs, losses)
    path = folder / "predicted-versus-target.png"
    plots.draw_predicted_versus_target(path, data.y_test, result.test_predictions, "Test rows")
    if data.features == 1:
        train, test = (data.x_train, data.y_train), (data.x_test, data.y_test)
        plots.draw_data_and_predictions(folder / "predictions.png", train, test, result.test_predictions)
