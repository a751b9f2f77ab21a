"""Code that the peers share: the model, which our server serves too, and the npy format."""

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

JSON, CSV, JSON_LINES, NPY = "application/json", "text/csv", "application/jsonlines", "application/x-npy"

BATCH_REQUESTS = int(os.environ.get("BATCH_REQUESTS", "1"))
"""Maximum number of requests that servers with dynamic batching combine."""
BATCH_SECONDS = 0.005
"""Maximum number of seconds for which these servers wait for more requests."""


def load(path: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path or os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


def predict(session: onnxruntime.InferenceSession, rows: NDArray[Any]) -> NDArray[np.float32]:
    predictions: NDArray[np.float32] = session.run(None, {"features": rows.astype(np.float32, copy=False)})[0]
    return predictions


def detect_type(body: bytes) -> str:
    """Return the content type of a body, for servers that do not pass on the header."""
    return {b"{": JSON, b"[": JSON_LINES, b"\x93": NPY}.get(body[:1], CSV)


def read_npy(body: bytes) -> NDArray[Any]:
    rows: NDArray[Any] = np.load(io.BytesIO(body))
    return rows


def write_npy(rows: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()
