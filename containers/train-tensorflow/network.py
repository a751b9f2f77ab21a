"""A multilayer perceptron in Keras."""

import keras

from hyperparameters import Hyperparameters
from microjobs.training import GRADIENT_NORM, HIDDEN_UNITS

LOSSES = {"mse": "mse", "mae": "mae", "l1": "mae", "huber": "huber"}
OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}


def build(features: int, mean_target: float) -> keras.Sequential:
    """Two hidden ReLU layers and one output: (rows, features) in, (rows, 1) out.

    It predicts the mean target at first, so that the epochs go into what differs between rows.
    """
    hidden = [_dense(units, activation="relu") for units in HIDDEN_UNITS]
    output = _dense(1, bias_initializer=keras.initializers.Constant(mean_target))
    return keras.Sequential([keras.Input((features,), name="features"), *hidden, output])


def _dense(units: int, **settings: object) -> keras.layers.Dense:
    # He's initialisation, made for ReLU, and the same as in the PyTorch trainer.
    return keras.layers.Dense(units, kernel_initializer="he_uniform", **settings)


def compiled(network: keras.Sequential, hyperparameters: Hyperparameters) -> keras.Sequential:
    """The network with the loss and the optimizer that were asked for."""
    optimizer = OPTIMIZERS[hyperparameters.optimizer]
    network.compile(
        optimizer=optimizer(hyperparameters.learning_rate, global_clipnorm=GRADIENT_NORM),
        loss=LOSSES[hyperparameters.loss],
    )
    return network
