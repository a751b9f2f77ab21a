"""Writes a servable with two versions. The SavedModel of each version has two signatures. Runs in the image."""

import os

# The job sets the same variables. Without them, TensorFlow would log that it found no GPUs and that it uses oneDNN.
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}

import tensorflow as tf

from microjobs.contract import Layout

ROWS = tf.TensorSpec([None, 3], tf.float32, name="x")
WORDS = tf.TensorSpec([None], tf.string, name="word")


def make_model(factor: float) -> tf.Module:
    model = tf.Module()
    model.factor = tf.Variable(factor)

    def sum_rows(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.reduce_sum(x, 1, keepdims=True) * model.factor}

    def sum_rows_and_uppercase(x: tf.Tensor, word: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.debugging.assert_positive(x, "x has a value that is not positive")
        return {"y": tf.reduce_sum(x, 1), "upper": tf.strings.upper(word)}

    model.sum_rows = tf.function(sum_rows, input_signature=[ROWS])
    model.sum_rows_and_uppercase = tf.function(sum_rows_and_uppercase, input_signature=[ROWS, WORDS])
    return model


for version in (1, 2):
    model = make_model(float(version))
    folder = Layout.from_environment().model / "export" / "Servo" / str(version)
    tf.saved_model.save(
        model, str(folder), signatures={"serving_default": model.sum_rows, "named": model.sum_rows_and_uppercase}
    )
