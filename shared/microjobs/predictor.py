"""Predictions of a bundle's model.onnx. Needs numpy and onnxruntime."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.bundle import MODEL_FILE, RAW, SERVING_DEFAULT, Bundle
from microjobs.errors import UserError

# The variable is set before the import. Since version 1.29, ONNX Runtime sends telemetry by default. Its telemetry uses
# threads that do not survive the fork of a server's workers, and a database in the user's home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

MAX_RUN_ROWS = 2048
"""Maximum number of rows per run. With many more rows, the outputs of a layer do not fit into a core's cache."""


class Predictor:
    """A bundle's loaded model. It is thread-safe, because ONNX Runtime's `run` is thread-safe and no attribute changes
    later."""

    def __init__(self, bundle: Bundle) -> None:
        """Load a bundle's model and test it.

        Raises:
            UserError: ONNX Runtime cannot load the model, or its inputs or outputs do not match the manifest.
        """
        self.features = bundle.manifest.features
        self.signatures = bundle.manifest.signatures
        self._model = OnnxModel(bundle.model_file)
        _test_predictions(bundle, self._model)
        self._has_named_columns = bundle.has_named_columns
        scaler = bundle.scaler
        self._mean = np.asarray(scaler.mean if scaler else 0.0, np.float64)
        self._scale = np.asarray(scaler.scale if scaler else 1.0, np.float64)

    def predict(self, rows: NDArray[Any], signature: str = SERVING_DEFAULT) -> NDArray[np.float32]:
        """Return predictions of shape (rows, 1) for features of shape (rows, features).

        Raises:
            UserError: the signature is unknown, the rows have the wrong width, or the signature takes named columns.
        """
        if signature not in self.signatures:
            raise UserError(f"signature {signature!r} is unknown: the model has {', '.join(self.signatures)}")
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise UserError(f"rows have shape {rows.shape}: the model takes (rows, {self.features})")
        if signature == RAW and self._has_named_columns:
            raise UserError(f"signature {RAW} of this model takes named columns, not arrays: use {SERVING_DEFAULT}")
        return self._model.run(self.scale(rows) if signature == RAW else rows.astype(np.float32, copy=False))

    def scale(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return the scaled features of rows of measured values."""
        features: NDArray[np.float32] = ((rows - self._mean) / self._scale).astype(np.float32, copy=False)
        return features


class OnnxModel:
    """A model.onnx that runs on one thread: small batches are slower on more threads, and workers share the cores."""

    def __init__(self, path: Path) -> None:
        """Load the model.

        Raises:
            UserError: ONNX Runtime cannot load the file.
        """
        self._session = open_session(path)
        self._inputs = [str(node.name) for node in self._session.get_inputs()]
        # Outputs and options are cached: creating them takes a fifth of the time of a small run.
        self._outputs = [node.name for node in self._session.get_outputs()][:1]
        self._options = onnxruntime.RunOptions()

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the first output of the model. The rows are its first input."""
        if len(rows) <= MAX_RUN_ROWS:
            return self._run(rows)
        return np.concatenate(
            [self._run(rows[first : first + MAX_RUN_ROWS]) for first in range(0, len(rows), MAX_RUN_ROWS)]
        )

    def _run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        predictions: NDArray[np.float32] = self._session.run(self._outputs, {self._inputs[0]: rows}, self._options)[0]
        return predictions


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Load an ONNX file to run on one thread.

    Raises:
        UserError: ONNX Runtime cannot load the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors are exceptions; warnings about the graph do not help users
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of ONNX Runtime have no common base class
        raise UserError(f"{path} is not a model that ONNX Runtime can load: {extract_first_line(error)}") from error


def _test_predictions(bundle: Bundle, model: OnnxModel) -> None:
    """Predict some rows, so that an invalid model fails when it is loaded."""
    features = bundle.manifest.features
    try:
        predictions = [model.run(np.zeros((rows, features), np.float32)) for rows in (1, 3)]
    except Exception as error:  # the exceptions of ONNX Runtime have no common base class
        raise UserError(
            f"{bundle.model_file} does not take rows of {features} features: {extract_first_line(error)}; "
            "train the model again"
        ) from error
    shapes = [np.shape(values) for values in predictions]
    if shapes != [(1, 1), (3, 1)] or np.asarray(predictions[0]).dtype != np.float32:
        raise UserError(
            f"{bundle.model_file}: for 3 rows, the predictions must be float32 of shape (3, 1), but have "
            f"type {np.asarray(predictions[0]).dtype} and shape {shapes[1]}: train the model again"
        )


def extract_first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type if there is no message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def check_predictions(
    folder: Path, rows: NDArray[np.float32], expected_predictions: NDArray[np.float32], tolerance: float
) -> None:
    """Compare the predictions of model.onnx with those of the framework.

    A difference is divided by the prediction, by the largest feature or by 1, whichever is largest. Rounding errors
    grow with the features, even if the features cancel out in the prediction.

    Raises:
        RuntimeError: the largest relative difference exceeds the tolerance, so the export is wrong.
    """
    predictions = OnnxModel(folder / MODEL_FILE).run(rows)
    min_divisor = max(1.0, float(np.max(np.abs(rows))))
    difference = float(
        np.max(np.abs(predictions - expected_predictions) / np.maximum(min_divisor, np.abs(expected_predictions)))
    )
    if not difference <= tolerance:  # the comparison is negated, so that NaN is an error, too
        raise RuntimeError(f"{MODEL_FILE} differs from the trained model by {difference:.3g} (allowed: {tolerance:g})")
