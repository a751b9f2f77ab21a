"""Prepares the process for the import of TensorFlow and Keras."""

import logging
import os
import tempfile
from pathlib import Path

from microjobs.interpreter import prepare_matplotlib


def prepare_tensorflow() -> None:
    """Set the variables that TensorFlow and Keras read when they are imported, and the levels of their loggers."""
    # The C++ part of TensorFlow would log processor features and missing GPU libraries.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN's order of additions depends on the processor. Without oneDNN, a seed gives the same model on more types of
    # processors.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # The user's variables or home folder could make Keras use another backend or float type.
    keras_home = str(Path(tempfile.gettempdir()) / "keras")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": keras_home}
    prepare_matplotlib(os.environ)  # Keras imports matplotlib
    for name in ("tensorflow", "tf2onnx", "matplotlib"):  # at the level INFO, these loggers log each of their steps
        logging.getLogger(name).setLevel(logging.WARNING)
