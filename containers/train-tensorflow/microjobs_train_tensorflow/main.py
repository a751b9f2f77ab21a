"""Trains a regression model with Keras on TensorFlow: channels `train` and `test` in, a model bundle out."""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from microjobs.contract import ResourceConfig
from microjobs.distributed import Program, make_tf_program, must_launch
from microjobs.interpreter import prepare_matplotlib
from microjobs.trainer import job
from microjobs.trainer.framework import Framework

from .hyperparameters import Hyperparameters


def train(hyperparameters: Hyperparameters) -> None:
    """Train, test and save; see `microjobs.trainer.job.train`."""
    job.train(hyperparameters, _load_framework, _find_worker_program)


def _find_worker_program(resources: ResourceConfig) -> Program | None:
    return make_tf_program(resources) if must_launch(resources) else None


def _load_framework() -> Callable[[Hyperparameters], Framework]:
    # The C++ part of TensorFlow would log processor features and missing GPU libraries.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN's order of additions depends on the processor. Without it, a seed gives the same model on more processors.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # The user's variables or home folder could make Keras use another backend or float type.
    keras_home = str(Path(tempfile.gettempdir()) / "keras")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": keras_home}
    prepare_matplotlib(os.environ)  # Keras imports it
    for name in ("tensorflow", "tf2onnx", "matplotlib"):  # at INFO they log each of their steps
        logging.getLogger(name).setLevel(logging.WARNING)
    from .framework import TensorFlow

    return TensorFlow
