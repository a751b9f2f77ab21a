"""A model with the interface of a SavedModel, so that tests of TensorFlow Serving's REST API need no TensorFlow."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from microjobs_train_tensorflow.serving.rest_api import SavedModel
from microjobs_train_tensorflow.serving.tensors import Array, Signature, TensorSpec

FLOAT, INTEGER, STRING = np.dtype(np.float32), np.dtype(np.int32), np.dtype(object)


class Sum:
    """Multiplies the sum of the three values of a row by a factor."""

    inputs: Mapping[str, TensorSpec] = {"x": TensorSpec(FLOAT, (None, 3))}

    def __init__(self, factor: float) -> None:
        self._factor = np.float32(factor)

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": inputs["x"].sum(axis=1, keepdims=True) * self._factor}


class Words:
    """Repeats words; it has several inputs and outputs of several types."""

    inputs: Mapping[str, TensorSpec] = {"count": TensorSpec(INTEGER, (None,)), "word": TensorSpec(STRING, (None,))}

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        repeated = np.array([word * count for word, count in zip(inputs["word"], inputs["count"], strict=True)], object)
        with np.errstate(divide="ignore"):
            inverse = (1 / inputs["count"].astype(np.float32)).reshape(-1, 1)
        return {"inverse": inverse, "repeated": repeated, "repeated_bytes": repeated}


class Total:
    """Takes an array of integers with one dimension, and returns its sum as a scalar."""

    inputs: Mapping[str, TensorSpec] = {"n": TensorSpec(INTEGER, (None,))}

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"total": inputs["n"].sum()}


class Identity:
    """Returns its only input, which has one dimension."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.inputs: Mapping[str, TensorSpec] = {"value": TensorSpec(dtype, (None,))}

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return inputs


class FakeSavedModel:
    """A SavedModel whose signatures are the classes above."""

    def __init__(self, factor: float = 1.0) -> None:
        self.signatures: Mapping[str, Signature] = {
            "serving_default": Sum(factor),
            "words": Words(),
            "total": Total(),
            "text": Identity(STRING),
            "long": Identity(np.dtype(np.int64)),
            "bfloat16": Identity(np.dtype(ml_dtypes.bfloat16)),
            "float8": Identity(np.dtype(ml_dtypes.float8_e5m2)),
            "int4": Identity(np.dtype(ml_dtypes.int4)),
        }

    def signature_def(self) -> Any:
        return {name: {"method_name": "tensorflow/serving/predict"} for name in self.signatures}


def make_fake_models() -> dict[str, dict[int, SavedModel]]:
    """Return versions 1, 2 and 10 of the model `sum`, and version 1 of the model `other`. Each version of `sum`
    multiplies the sum by its own number."""
    return {"sum": {number: FakeSavedModel(number) for number in (1, 2, 10)}, "other": {1: FakeSavedModel(100)}}
