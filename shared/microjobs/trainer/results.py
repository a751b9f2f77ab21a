"""Results of a training job: metrics, plots and the model bundle. Needs numpy; imports the rest when it is used."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microjobs import bundle
from microjobs.contract import Layout
from microjobs.files import write_text
from microjobs.scaler import write_scaler
from microjobs.stopping import StopRequest
from microjobs.trainer.checkpoints import Checkpoints
from microjobs.trainer.data import SAMPLE_ROWS, Array, TrainingData
from microjobs.trainer.hyperparameters import TrainerHyperparameters
from microjobs.trainer.progress import History

EXPORT_TOLERANCE = 1e-5
METRICS_FILE = "metrics.json"

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class TrainingResult:
    """A finished training; predictions have shape (rows, 1).

    model_format: `framework` of the bundle's manifest.
    epochs: passes over the training rows, with the fraction of a stopped epoch.
    seconds: training time of all runs of the job.
    best_epoch: epoch whose weights the model has; None for the last one.
    """

    model_format: str
    epochs: float
    seconds: float
    history: History
    train_predictions: Array
    test_predictions: Array
    best_epoch: int | None = None


def write_results(
    layout: Layout, hyperparameters: TrainerHyperparameters, data: TrainingData, trained: TrainingResult
) -> None:
    """Write metrics, plots and the rest of the model bundle; the manifest comes last.

    Raises:
        RuntimeError: model.onnx, which the framework wrote, predicts other values than the trained network.
    """
    # Imported only now: ONNX Runtime and matplotlib take a second, and a job with bad data should fail before that.
    from microjobs import predictor

    predictor.check_equal(layout.model, data.sample, trained.test_predictions[:SAMPLE_ROWS], EXPORT_TOLERANCE)
    metrics = measure(hyperparameters.loss, data, trained)
    write_text(layout.output_data / METRICS_FILE, json.dumps(metrics, indent=1))
    _draw(layout.output_data, data, trained)
    if data.scaler is not None:
        write_scaler(layout.model, data.scaler)
    manifest = bundle.Manifest(
        trained.model_format, data.features, metrics=metrics, hyperparameters=asdict(hyperparameters)
    )
    bundle.write_manifest(layout.model, manifest)
    logger.info("%.10g epochs in %.1f s | model in %s", trained.epochs, trained.seconds, layout.spell(layout.model))
    logger.info("Test MSE: %.4g | Test MAE: %.4g", metrics["test_mse"], metrics["test_mae"])


def close_checkpoints(
    epochs: float, hyperparameters: TrainerHyperparameters, stop: StopRequest, checkpoints: Checkpoints
) -> None:
    """Keep the checkpoints of a stopped job and log how to resume; remove temporary ones of a finished job.

    Args:
        epochs: number of epochs done.
    """
    if not stop:
        checkpoints.close()
        return
    line = f"stopped by {stop.name} after {epochs:.10g} of {hyperparameters.epochs} epochs; the model so far is saved"
    if not checkpoints.enabled:
        logger.info("%s, but no checkpoint: %s cannot be written to", line, checkpoints.folder)
        return
    same = "folder" if checkpoints.temporary else "CheckpointConfig"
    logger.info("%s; checkpoint in %s: start it again with the same %s to go on", line, checkpoints.folder, same)


def _mse(error: NDArray[np.float64]) -> float:
    return float(np.mean(error**2))


def _mae(error: NDArray[np.float64]) -> float:
    return float(np.mean(np.abs(error)))


def _huber(error: NDArray[np.float64]) -> float:
    return float(np.mean(np.where(np.abs(error) <= 1, error**2 / 2, np.abs(error) - 0.5)))


LOSSES: Mapping[str, Callable[[NDArray[np.float64]], float]] = {"mse": _mse, "mae": _mae, "l1": _mae, "huber": _huber}


def measure(loss: str, data: TrainingData, trained: TrainingResult) -> dict[str, float]:
    """Return the metrics of the final model, which metrics.json and the manifest contain."""
    metrics: dict[str, float] = {"epochs": round(trained.epochs, 3), "seconds": round(trained.seconds, 3)}
    if trained.best_epoch is not None:
        metrics["best_epoch"] = trained.best_epoch
    predicted = (("train", data.y_train, trained.train_predictions), ("test", data.y_test, trained.test_predictions))
    for split, target, predictions in predicted:
        error = predictions.astype(np.float64) - target
        metrics |= {f"{split}_loss": LOSSES[loss](error), f"{split}_mse": _mse(error), f"{split}_mae": _mae(error)}
    return metrics


def _draw(folder: Path, data: TrainingData, trained: TrainingResult) -> None:
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
