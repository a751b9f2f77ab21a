"""Runs a bundle's model.onnx. Needs numpy and onnxruntime."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.bundle import MODEL_FILE, RAW, SERVING_DEFAULT, Bundle
from microjobs.errors import UserError

# Before the import: from 1.29 on ONNX Runtime reports to its maker unless told not to, with threads that do not
# survive the fork of a server's workers and a database in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

RUN_ROWS = 2048
"""Rows of one run: of many more, what goes from layer to layer does not fit into a core's cache."""


class Predictor:
    """A bundle's loaded model. Thread-safe: ONNX Runtime's `run` is, and nothing here changes after construction."""

    def __init__(self, bundle: Bundle) -> None:
        """Load a bundle's model and try it.

        Raises:
            UserError: ONNX Runtime cannot load it, or it is no model of the manifest's features to one value a row.
        """
        self.features = bundle.manifest.features
        self.signatures = bundle.manifest.signatures
        self._model = OnnxModel(bundle.model)
        _try(bundle, self._model)
        scaler = bundle.scaler
        self._mean = np.asarray(scaler.mean if scaler else 0.0, np.float64)
        self._scale = np.asarray(scaler.scale if scaler else 1.0, np.float64)

    def predict(self, rows: NDArray[Any], signature: str = SERVING_DEFAULT) -> NDArray[np.float32]:
        """Predictions of shape (rows, 1) for features of shape (rows, features).

        Raises:
            UserError: the signature is unknown, or the rows have another width.
        """
        if signature not in self.signatures:
            raise UserError(f"signature {signature!r} is unknown: the model has {', '.join(self.signatures)}")
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise UserError(f"rows have shape {rows.shape}: the model takes (rows, {self.features})")
        if signature == RAW:
            rows = (rows - self._mean) / self._scale
        return self._model.run(rows.astype(np.float32, copy=False))


class OnnxModel:
    """A loaded model.onnx, on one thread: for small batches one beats several, and workers share the cores."""

    def __init__(self, path: Path) -> None:
        """Load it.

        Raises:
            UserError: ONNX Runtime cannot load the file.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors come as exceptions; warnings about the graph are not the user's
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base class
            raise UserError(f"{path} is not a model that ONNX Runtime can load: {_first_line(error)}") from error
        self._inputs = [str(given.name) for given in self._session.get_inputs()]
        # Found and made once: for each run anew, both would take a fifth of a small one.
        self._outputs = [given.name for given in self._session.get_outputs()][:1]
        self._options = onnxruntime.RunOptions()

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output for rows as the first input."""
        if len(rows) <= RUN_ROWS:
            return self._run(rows)
        return np.concatenate([self._run(rows[first : first + RUN_ROWS]) for first in range(0, len(rows), RUN_ROWS)])

    def _run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        predictions: NDArray[np.float32] = self._session.run(self._outputs, {self._inputs[0]: rows}, self._options)[0]
        return predictions


def _try(bundle: Bundle, model: OnnxModel) -> None:
    """Predict some rows, so that what is wrong with a model shows when it is loaded."""
    features = bundle.manifest.features
    try:
        predictions = [model.run(np.zeros((rows, features), np.float32)) for rows in (1, 3)]
    except Exception as error:  # as above
        raise UserError(
            f"{bundle.model} does not take rows of {features} features: {_first_line(error)}; train the model again"
        ) from error
    shapes = [np.shape(values) for values in predictions]
    if shapes != [(1, 1), (3, 1)] or np.asarray(predictions[0]).dtype != np.float32:
        raise UserError(
            f"{bundle.model} predicts {shapes[1]} for 3 rows, not (3, 1) in single precision: train it again"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def check_equal(folder: Path, rows: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> float:
    """Compare model.onnx with what the framework itself predicts; the largest relative difference.

    It is relative to the prediction, but to 1 and to the largest feature at least: rounding errors grow with the
    features, also where they cancel out in the prediction.

    Raises:
        RuntimeError: they differ by more than the tolerance, so the export is wrong.
    """
    actual = OnnxModel(folder / MODEL_FILE).run(rows)
    least = max(1.0, float(np.max(np.abs(rows))))
    difference = float(np.max(np.abs(actual - expected) / np.maximum(least, np.abs(expected))))
    if not difference <= tolerance:  # also true for NaN
        raise RuntimeError(f"{MODEL_FILE} differs from the trained model by {difference:.3g} (allowed: {tolerance:g})")
    return difference
