"""Predictions of a bundle's model, and the comparison of an export with the framework's predictions."""

from pathlib import Path

import numpy as np
import pytest

from microjobs.bundle import read_bundle
from microjobs.predictor import MAX_RUN_ROWS, Predictor, check_predictions
from tests.bundles import write_linear_bundle


@pytest.mark.parametrize("rows", [0, 1, MAX_RUN_ROWS, MAX_RUN_ROWS + 1, 2 * MAX_RUN_ROWS, 2 * MAX_RUN_ROWS + 7])
def test_every_row_gets_its_own_prediction(tmp_path: Path, rows: int) -> None:
    write_linear_bundle(tmp_path, [2.0], 1.0)
    features = np.arange(rows, dtype=np.float32).reshape(-1, 1)
    np.testing.assert_array_equal(Predictor(read_bundle(tmp_path)).predict(features), features * 2 + 1)


@pytest.mark.parametrize("feature_value", [0.1, 1.0, 300.0])
def test_rounding_errors_are_tolerated(tmp_path: Path, feature_value: float) -> None:
    weights = np.random.default_rng(0).normal(size=64)
    weights[1::2] = -weights[::2]  # the large terms cancel out
    write_linear_bundle(tmp_path, weights, 0.0)
    rows = np.full((8, 64), feature_value, np.float32)
    predictions = np.full((8, 1), feature_value * 64 * np.finfo(np.float32).eps, np.float32)
    check_predictions(tmp_path, rows, predictions, tolerance=1e-5)


@pytest.mark.parametrize("feature_value", [1.0, 300.0])
def test_wrong_export_is_detected(tmp_path: Path, feature_value: float) -> None:
    write_linear_bundle(tmp_path, [1.0, 2.0], 0.0)
    rows = np.full((4, 2), feature_value, np.float32)
    with pytest.raises(RuntimeError, match="differs from the trained model"):
        check_predictions(tmp_path, rows, np.full((4, 1), 3.0 * feature_value * 1.001, np.float32), tolerance=1e-5)


def test_prediction_that_is_not_a_number_is_detected(tmp_path: Path) -> None:
    write_linear_bundle(tmp_path, [1.0], 0.0)
    with pytest.raises(RuntimeError, match="nan"):
        check_predictions(tmp_path, np.ones((1, 1), np.float32), np.full((1, 1), np.nan, np.float32), tolerance=1e-5)
