"""Trains a regression model with Keras on TensorFlow: channels `train` and `test` in, a model bundle out."""

import logging
import os
import tempfile
from pathlib import Path

from microjobs.contract import Layout, read_training_resource_config
from microjobs.distributed import launch, must_launch, with_tf_config
from microjobs.interpreter import prepare_matplotlib
from microjobs.stopping import stop_request
from microjobs.trainer.training import load_data

from .hyperparameters import Hyperparameters

logger = logging.getLogger("microjobs")


def train(hyperparameters: Hyperparameters) -> None:
    """Train, test and save, from the newest checkpoint if there is one; a stop signal keeps what is trained so far.

    Raises:
        UserError: the data is bad, the training diverged, or the checkpoint is of another training.
        PlatformError: another host was lost.
        RuntimeError: model.onnx does not predict what the trained model does.
        Stopped: the signal came before anything was trained.
    """
    layout = Layout.from_environment()
    resources = read_training_resource_config(layout)
    if must_launch(resources):
        launch(with_tf_config(resources), resources)
        return
    data = load_data(layout)  # before TensorFlow, which takes seconds to import: bad data is told at once
    _settle_tensorflow()
    from .job import Job

    with stop_request() as stop:  # to the end: from here on there is something to save
        Job(layout, hyperparameters, data, stop).run()


def _settle_tensorflow() -> None:
    """What it reads when it is imported, where the job's environment goes first, and what it logs."""
    # Its C++ part reports processor features and missing GPU libraries as it starts.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN adds up in an order that depends on the processor: off, a seed gives the same model on more of them.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # Keras would take another backend or float type from the user's variables or home folder.
    keras_home = str(Path(tempfile.gettempdir()) / "keras")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": keras_home}
    prepare_matplotlib(os.environ)  # Keras imports it
    for chatty in ("tensorflow", "tf2onnx", "matplotlib"):  # at INFO they report each of their steps
        logging.getLogger(chatty).setLevel(logging.WARNING)
