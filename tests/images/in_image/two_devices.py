"""Checks that training on two devices, such as two GPUs, equals training on one. Runs in the TensorFlow image."""

import importlib
import logging
import os
import sys
import tempfile
from pathlib import Path

# The job sets these variables, too. Without them, TensorFlow logs warnings about missing GPUs and oneDNN.
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}
sys.path.insert(0, os.environ["MICROJOBS_JOB"])

import numpy as np
import tensorflow as tf

from microjobs.bundle import read_bundle
from microjobs.contract import Layout
from microjobs.predictor import Predictor
from microjobs.stopping import StopRequest
from microjobs.trainer.data import Array, TrainingData
from microjobs.trainer.job import TrainingProcess
from microjobs.trainer.process_data import ProcessData

# The first computation fixes TensorFlow's devices, so they are configured before it.
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
framework, group, hyperparameters = (
    importlib.import_module(f"microjobs_train_tensorflow.{name}") for name in ("framework", "group", "hyperparameters")
)


def train(strategy: tf.distribute.Strategy, data: TrainingData) -> Array:
    """Return the predictions of a model that the strategy trained. The last batch of an epoch has a single row, which
    cannot be divided between two devices."""
    settings = hyperparameters.Hyperparameters(epochs=4, batch_size=8, optimizer="adam", mixed_precision=True)
    tensorflow = framework.TensorFlow(settings, group.Group(strategy))
    layout = Layout(Path(tempfile.mkdtemp()))
    TrainingProcess(layout, settings, tensorflow, ProcessData(data, tensorflow.group), StopRequest()).run()
    return Predictor(read_bundle(layout.model)).predict(data.x_test)


logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # TensorFlow would warn that these devices are not GPUs
x = np.random.default_rng(0).normal(size=(25, 4)).astype(np.float32)
y = x.sum(axis=1, keepdims=True) + 20
data = TrainingData(x, y, x, y, None)
one_device_predictions = train(tf.distribute.get_strategy(), data)
two_device_predictions = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), data)
np.testing.assert_allclose(one_device_predictions, two_device_predictions, atol=1e-4)
assert one_device_predictions.std() > 0.1  # the model has learned
