"""Minimal Keras script: loads arrays, trains and saves. Arguments: ROOT EPOCHS BATCH_SIZE."""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # the trainer also disables oneDNN

import keras
import numpy as np

root, epochs, batch_size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def read_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    folder = root / "input" / "data" / split
    return np.load(folder / f"x_{split}.npy"), np.load(folder / f"y_{split}.npy")


keras.utils.set_random_seed(42)
(x, y), (x_test, y_test) = read_split("train"), read_split("test")
network = keras.Sequential(
    [
        keras.Input((x.shape[1],)),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(1),
    ]
)
network.compile(keras.optimizers.SGD(0.01, global_clipnorm=20.0), "mse")
network.fit(x, y, batch_size=batch_size, epochs=epochs, validation_data=(x_test, y_test), verbose=2)
network.export(root / "model" / "1", verbose=False)
network.export(root / "model" / "model.onnx", format="onnx", verbose=False)
