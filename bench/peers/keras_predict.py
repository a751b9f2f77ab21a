"""Keras's model.predict with the weights of a file: loads the rows, predicts them, saves the predictions."""

import sys
from pathlib import Path

import keras
import numpy as np

weights, source, output = map(Path, sys.argv[1:4])
layers = np.load(weights)
rows = np.load(source)
model = keras.Sequential(
    [
        keras.Input((rows.shape[1],)),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.set_weights([layers[name] for name in layers.files])
np.save(output, model.predict(rows, batch_size=int(sys.argv[4]), verbose=0)[:, 0])
