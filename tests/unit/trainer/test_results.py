"""Metrics and hyperparameters that both trainers share."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.columns import FittedColumns, NumericColumn
from microjobs.contract import Layout
from microjobs.hyperparameters import load
from microjobs.scaler import Scaler
from microjobs.trainer.data import TrainingData
from microjobs.trainer.hyperparameters import TrainerHyperparameters
from microjobs.trainer.progress import History
from microjobs.trainer.results import TrainingResult, compute_metrics, write_results
from tests.bundles import write_linear_bundle


def make_result(*predictions: float) -> TrainingResult:
    """Return a result with these predictions for the training rows, and their doubles for the test rows."""
    column = np.asarray(predictions, np.float32)[:, np.newaxis]
    return TrainingResult(
        framework="any",
        epochs=1,
        seconds=1.5,
        history=History(epochs=[0], train=[1.0], test=[1.0]),
        train_predictions=column,
        test_predictions=column * 2,
    )


@pytest.mark.parametrize(
    ("loss", "train", "test"), [("mse", 5.0, 20.0), ("mae", 2.0, 4.0), ("l1", 2.0, 4.0), ("huber", 1.5, 3.5)]
)
def test_losses_have_known_values(loss: str, train: float, test: float) -> None:
    zeros = np.zeros((2, 1), np.float32)
    metrics = compute_metrics(loss, TrainingData(zeros, zeros, zeros, zeros, None), make_result(1.0, -3.0))
    assert (metrics["train_loss"], metrics["test_loss"]) == (train, test)
    assert (metrics["test_mse"], metrics["test_mae"], metrics["epochs"], metrics["seconds"]) == (20.0, 4.0, 1, 1.5)
    assert "best_epoch" not in metrics


@pytest.mark.parametrize("preprocessing_name", ["scaler", "columns", "pipeline"])
def test_bundle_has_the_file_that_states_how_the_features_were_made(preprocessing_name: str, tmp_path: Path) -> None:
    preprocessings: dict[str, Any] = {
        "scaler": Scaler(count=[2], mean=[0.5], scale=[2.0]),
        "columns": FittedColumns((NumericColumn("a", mean=0.5, scale=2.0),), ignored=("id",)),
        "pipeline": b"onnx",
    }
    layout, x = Layout(tmp_path), np.array([[1.0], [2.0]], np.float32)
    write_linear_bundle(layout.model, [3.0], 0.0)
    data = dataclasses.replace(
        TrainingData(x, x, x, x, None), **{preprocessing_name: preprocessings[preprocessing_name]}
    )
    result = dataclasses.replace(make_result(3.0, 6.0), test_predictions=x * 3)
    write_results(layout, load(TrainerHyperparameters, {}), data, result)
    bundle = read_bundle(layout.model)
    pipeline = bundle.pipeline_file.read_bytes() if bundle.pipeline_file else None
    actual = {"scaler": bundle.scaler, "columns": bundle.columns, "pipeline": pipeline}
    assert actual == {name: content if name == preprocessing_name else None for name, content in preprocessings.items()}


def test_best_epoch_0_is_a_metric() -> None:
    zeros = np.zeros((1, 1), np.float32)
    result = dataclasses.replace(make_result(1.0), best_epoch=0)
    assert compute_metrics("mse", TrainingData(zeros, zeros, zeros, zeros, None), result)["best_epoch"] == 0


def test_defaults_match_the_housing_notebook() -> None:
    """The housing notebook is the example on which this project is based."""
    defaults = load(TrainerHyperparameters, {})
    assert (defaults.epochs, defaults.batch_size, defaults.learning_rate) == (70, 128, 0.01)


@pytest.mark.parametrize(("batch_size", "expected"), [("0", 404), ("128", 128), ("1000", 404)])
def test_batch_size_0_is_the_full_batch(batch_size: str, expected: int) -> None:
    assert load(TrainerHyperparameters, {"batch_size": batch_size}).rows_per_step(404) == expected


def test_fingerprint_ignores_settings_that_do_not_change_weights() -> None:
    first, second = TrainerHyperparameters(epochs=1), TrainerHyperparameters(epochs=2, keep_checkpoints=9)
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != TrainerHyperparameters(seed=1).fingerprint()
