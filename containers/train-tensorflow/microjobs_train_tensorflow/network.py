"""A multilayer perceptron in Keras."""

import keras

from microjobs.trainer.training import GRADIENT_NORM, HIDDEN_UNITS

from .hyperparameters import Hyperparameters

LOSSES = {
    "mse": keras.losses.mean_squared_error,
    "mae": keras.losses.mean_absolute_error,
    "l1": keras.losses.mean_absolute_error,
    "huber": keras.losses.huber,
}
"""The loss of each row."""
OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}


def build(features: int, mean_target: float = 0.0, precision: str = "float32") -> keras.Sequential:
    """Two hidden ReLU layers and one output: (rows, features) in, (rows, 1) out.

    It predicts the mean target at first, so that the epochs go into what differs between rows. Hidden layers compute in
    `precision`; weights and predictions are float32.
    """
    hidden = [_dense(units, activation="relu", dtype=precision) for units in HIDDEN_UNITS]
    output = _dense(1, bias_initializer=keras.initializers.Constant(mean_target))
    return keras.Sequential([keras.Input((features,), name="features"), *hidden, output])


def _dense(units: int, **settings: object) -> keras.layers.Dense:
    # He's initialisation, made for ReLU, and the same as in the PyTorch trainer.
    return keras.layers.Dense(units, kernel_initializer="he_uniform", **settings)


def optimizer_for(network: keras.Sequential, hyperparameters: Hyperparameters) -> keras.optimizers.Optimizer:
    """The optimizer that was asked for, with all the variables that it will have."""
    optimizer = OPTIMIZERS[hyperparameters.optimizer](hyperparameters.learning_rate, global_clipnorm=GRADIENT_NORM)
    optimizer.build(network.trainable_variables)
    return optimizer
