"""Trains a regression model with Keras on TensorFlow: channels `train` and `test` in, a model bundle out."""

import logging
import os
import time

from hyperparameters import Hyperparameters
from microjobs.contract import Layout
from microjobs.stopping import stop_request
from microjobs.training import History, Trained, TrainingData, finish, load_data

logger = logging.getLogger("microjobs")


def train(hyperparameters: Hyperparameters) -> None:
    """Train, test and save; a stop signal ends the epochs early and keeps the model.

    Raises:
        UserError: the data is bad, or the training diverged.
        RuntimeError: model.onnx does not predict what the trained model does.
    """
    layout = Layout.from_environment()
    data = load_data(layout)  # before TensorFlow, which takes seconds to import: bad data is told at once
    _settle_tensorflow()
    _train(hyperparameters, data, layout)


def _settle_tensorflow() -> None:
    """What it reads when it is imported, where the job's environment goes first, and what it logs."""
    # Its C++ part reports processor features and missing GPU libraries as it starts.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN adds up in an order that depends on the processor: off, a seed gives the same model on more of them.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    for chatty in ("tensorflow", "tf2onnx"):  # at INFO they report each of their steps
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _train(hyperparameters: Hyperparameters, data: TrainingData, layout: Layout) -> None:
    import keras
    import tensorflow as tf

    from network import build, compiled
    from watch import Watch

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    logger.info("TensorFlow %s on %s", tf.__version__, ", ".join(device.name for device in devices))
    keras.utils.set_random_seed(hyperparameters.seed)
    network = compiled(build(data.features, float(data.y_train.mean())), hyperparameters)

    with stop_request() as stop:  # to the end: what was trained before a stop is saved
        started = time.monotonic()
        history = History()
        network.fit(
            data.x_train,
            data.y_train,
            batch_size=hyperparameters.rows_a_step(len(data.x_train)),
            epochs=hyperparameters.epochs,
            validation_data=(data.x_test, data.y_test),
            verbose=2,
            callbacks=[Watch(history, stop)],
        )
        seconds = time.monotonic() - started
        predictions = [network.predict(x, batch_size=4096, verbose=0) for x in (data.x_train, data.x_test)]
        from export import save_onnx, save_savedmodel

        layout.model.mkdir(parents=True, exist_ok=True)
        save_savedmodel(network, data.scaler, layout.model)
        save_onnx(network, layout.model)
        finish(layout, hyperparameters, data, Trained("tensorflow", seconds, history, *predictions), stop)
