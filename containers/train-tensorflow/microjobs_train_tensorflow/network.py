"""A multilayer perceptron in Keras."""

import keras
import numpy as np
import tensorflow as tf

from microjobs.trainer.data import Array
from microjobs.trainer.framework import HIDDEN_UNITS, MAX_GRADIENT_NORM

from .hyperparameters import Hyperparameters

BLOCK_ROWS = 8192
"""Rows per block of predictions."""

LOSSES = {
    "mse": keras.losses.mean_squared_error,
    "mae": keras.losses.mean_absolute_error,
    "l1": keras.losses.mean_absolute_error,
    "huber": keras.losses.huber,
}
"""Functions that return one loss per row."""
OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}


def build_network(features: int, mean_target: float = 0.0, precision: str = "float32") -> keras.Sequential:
    """Return a network with two hidden ReLU layers and one output: (rows, features) in, (rows, 1) out.

    Before the training, the output's bias is `mean_target`, so that the epochs learn only the differences from it.
    Hidden layers compute in `precision`; weights and predictions are float32.
    """
    hidden = [_build_layer(units, activation="relu", dtype=precision) for units in HIDDEN_UNITS]
    output = _build_layer(1, bias_initializer=keras.initializers.Constant(mean_target))
    return keras.Sequential([keras.Input((features,), name="features"), *hidden, output])


def _build_layer(units: int, **settings: object) -> keras.layers.Dense:
    # He initialisation, which was designed for ReLU, as in the PyTorch trainer.
    return keras.layers.Dense(units, kernel_initializer="he_uniform", **settings)


def build_optimizer(network: keras.Sequential, hyperparameters: Hyperparameters) -> keras.optimizers.Optimizer:
    """Return the optimizer with all its variables."""
    optimizer = OPTIMIZERS[hyperparameters.optimizer](hyperparameters.learning_rate, global_clipnorm=MAX_GRADIENT_NORM)
    optimizer.build(network.trainable_variables)
    return optimizer


def predict(network: keras.Model, x: Array) -> Array:
    """Return predictions of shape (rows, 1)."""
    blocks = [_predict_block(network, x[start : start + BLOCK_ROWS]) for start in range(0, len(x), BLOCK_ROWS)]
    return np.concatenate([np.empty((0, 1), np.float32), *blocks])


@tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow is installed only in the image
def _predict_block(network: keras.Model, x: tf.Tensor) -> tf.Tensor:
    return network(x, training=False)
