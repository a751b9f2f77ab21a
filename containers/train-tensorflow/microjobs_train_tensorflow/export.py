"""Files of the trained network: a SavedModel in `1/` for TensorFlow, `model.onnx` for ONNX runtimes."""

from pathlib import Path

import keras
import tensorflow as tf
import tf2onnx

from microjobs.bundle import MODEL_FILE, RAW, SERVING_DEFAULT
from microjobs.scaler import Scaler

VERSION_FOLDER = "1"
"""Folder of the SavedModel. Its name is a version: TensorFlow Serving loads the folder with the highest number."""


def save_savedmodel(network: keras.Model, scaler: Scaler | None, folder: Path, *, has_raw: bool) -> None:
    """Write the SavedModel. Its signature `serving_default` takes scaled features. `raw` takes measured features, and
    scales them.

    Both signatures take `features` of shape (rows, features), and return `predictions` of shape (rows, 1).

    Args:
        has_raw: whether to write the signature `raw`; False for features that were made from named columns, which the
            SavedModel cannot take.
    """
    input_specs = [_make_input_spec(network)]
    mean = tf.constant(scaler.mean if scaler else 0.0, tf.float64)
    scale = tf.constant(scaler.scale if scaler else 1.0, tf.float64)

    def raw(features: tf.Tensor) -> dict[str, tf.Tensor]:
        # The scaling uses double precision, as in the preprocess job: in single precision, a large mean would cost
        # digits.
        scaled = (tf.cast(features, tf.float64) - mean) / scale
        return {"predictions": network(tf.cast(scaled, tf.float32))}

    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(SERVING_DEFAULT, lambda features: {"predictions": network(features)}, input_specs)
    if has_raw:
        archive.add_endpoint(RAW, raw, input_specs)
    archive.write_out(folder / VERSION_FOLDER, verbose=False)


def save_onnx(network: keras.Model, folder: Path) -> None:
    """Write `model.onnx`: `features` of shape (rows, features) in, `predictions` of shape (rows, 1) out."""
    function = tf.function(lambda features: {"predictions": network(features)})
    tf2onnx.convert.from_function(function, [_make_input_spec(network)], output_path=folder / MODEL_FILE)


def _make_input_spec(network: keras.Model) -> tf.TensorSpec:
    return tf.TensorSpec(network.input_shape, tf.float32, name="features")
