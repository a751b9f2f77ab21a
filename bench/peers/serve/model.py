"""Code that the peers share: the model, which our server serves too, and the npy format."""

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"


def load(path: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path or os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


def predict(session: onnxruntime.InferenceSession, rows: NDArray[Any]) -> NDArray[np.float32]:
    predictions: NDArray[np.float32] = session.run(None, {"features": rows.astype(np.float32, copy=False)})[0]
    return predictions


def read_npy(body: bytes) -> NDArray[Any]:
    rows: NDArray[Any] = np.load(io.BytesIO(body))
    return rows


def write_npy(rows: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()
