"""SavedModels that TensorFlow has loaded."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf import saved_model_pb2

from microjobs.errors import UserError
from microjobs.hosting.responses import HttpError
from microjobs.hosting.workers import compute_threads_per_worker

from .servables import SAVED_MODEL_FILE
from .tensors import Array, Signature, TensorSpec

logger = logging.getLogger("microjobs")

SERVE_TAG = "serve"


def configure() -> None:
    """Limit TensorFlow to this worker's share of the CPUs, and to the GPU memory that it needs.

    Call this function before TensorFlow creates a tensor.
    """
    threads = compute_threads_per_worker(os.environ)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


class LoadedSignature:
    """A signature of a SavedModel; see `tensors.Signature`."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._tensor_specs = function.structured_input_signature[1]
        self.inputs: Mapping[str, TensorSpec] = {
            name: _make_spec(tensor) for name, tensor in sorted(self._tensor_specs.items())
        }

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `tensors.Signature.run`."""
        try:
            values = {name: tf.constant(array, self._tensor_specs[name].dtype) for name, array in inputs.items()}
            outputs = self._function(**values)
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
            raise HttpError(400, f"the model rejects the inputs: {_extract_reason(error)}") from error
        except tf.errors.OpError as error:
            logger.exception("the model failed on a request")
            raise HttpError(500, f"the model failed: {_extract_reason(error)}") from error
        # A scalar string is `bytes`. Without an explicit dtype, NumPy would drop zero bytes at its end.
        return {
            name: np.asarray(tensor.numpy(), tensor.dtype.as_numpy_dtype) for name, tensor in sorted(outputs.items())
        }


class LoadedModel:
    """One SavedModel; see `rest_api.SavedModel`.

    Raises:
        UserError: TensorFlow cannot load it, or it has no signatures.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._loaded = tf.saved_model.load(str(folder))  # this reference keeps the variables of the functions alive
        except Exception as error:  # TensorFlow and protobuf raise errors of many types
            raise UserError(
                f"{folder} is not a SavedModel that TensorFlow can load: {_extract_reason(error)}"
            ) from error
        self.signatures: Mapping[str, Signature] = {
            name: LoadedSignature(function) for name, function in sorted(self._loaded.signatures.items())
        }
        if not self.signatures:
            raise UserError(f"{folder} has no signatures: save it with model.export")

    def signature_def(self) -> Any:
        """See `rest_api.SavedModel`."""
        content = saved_model_pb2.SavedModel.FromString((self._folder / SAVED_MODEL_FILE).read_bytes())
        graph = next(item for item in content.meta_graphs if SERVE_TAG in item.meta_info_def.tags)
        return {
            name: MessageToDict(item, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for name, item in graph.signature_def.items()
        }


def load_models(servables: Mapping[str, Mapping[int, Path]]) -> Mapping[str, Mapping[int, LoadedModel]]:
    """Load all versions of all models.

    Raises:
        UserError: one of them cannot be loaded.
    """
    return {
        name: {number: LoadedModel(path) for number, path in versions.items()} for name, versions in servables.items()
    }


def _make_spec(tensor: Any) -> TensorSpec:
    shape = None if tensor.shape.rank is None else tuple(tensor.shape)
    return TensorSpec(np.dtype(tensor.dtype.as_numpy_dtype), shape)


def _extract_reason(error: Exception) -> str:
    """Return the line of an error that states the reason. In errors of graphs, this line is between a traceback and the
    name of a node."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Graph execution error"):
        lines = [line for line in lines if not line.startswith("[[")][::-1]
    return next(iter(lines), type(error).__name__)[:300]
