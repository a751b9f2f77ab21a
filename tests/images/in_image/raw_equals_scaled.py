"""Checks that the SavedModel's two signatures agree for any number of rows. Runs in the TensorFlow image."""

import os

# The job sets the same values. Without them, TensorFlow logs that GPUs are missing and that oneDNN is on.
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}

import numpy as np
import tensorflow as tf

from microjobs.bundle import RAW, SERVING_DEFAULT
from microjobs.contract import Layout
from microjobs.scaler import read_scaler

folder = Layout.from_environment().model
scaler = read_scaler(folder)
assert scaler is not None
signatures = tf.saved_model.load(folder / "1").signatures

for rows in (1, 5):
    raw = np.random.default_rng(0).normal(400, 170, (rows, scaler.features)).astype(np.float32)
    scaled = ((raw - np.asarray(scaler.mean)) / np.asarray(scaler.scale)).astype(np.float32)
    expected = signatures[SERVING_DEFAULT](features=scaled)["predictions"]
    np.testing.assert_allclose(signatures[RAW](features=raw)["predictions"], expected, rtol=1e-6)
    assert expected.shape == (rows, 1)
