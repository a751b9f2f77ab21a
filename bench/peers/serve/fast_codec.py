"""Decodes and encodes bodies with a fast JSON library and without checks. CSV and JSON lines are rewritten as JSON."""

from typing import Any

import model
import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray


def predict_body(session: onnxruntime.InferenceSession, body: bytes, content_type: str) -> bytes:
    """Decode a request's body, and return the predictions as the body of a response."""
    return encode(model.predict(session, decode(body, content_type)), content_type)


def decode(body: bytes, content_type: str) -> NDArray[Any]:
    if content_type == model.JSON:
        return np.array(orjson.loads(body)["instances"])
    if content_type == model.JSON_LINES:
        return np.array(orjson.loads(b"[" + body.strip().replace(b"\n", b",") + b"]"))
    if content_type == model.CSV:
        return np.array(orjson.loads(b"[[" + body.strip().replace(b"\n", b"],[") + b"]]"))
    return model.read_npy(body)


def encode(predictions: NDArray[Any], content_type: str) -> bytes:
    if content_type == model.JSON:
        return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)
    if content_type == model.NPY:
        return model.write_npy(predictions)
    text = orjson.dumps(predictions, option=orjson.OPT_SERIALIZE_NUMPY)
    if content_type == model.JSON_LINES:
        return text[1:-1].replace(b"],[", b"]\n[") + b"\n"
    return text[2:-2].replace(b"],[", b"\n") + b"\n"
