"""Keras's model.predict: loads rows and weights, predicts, saves the predictions and the seconds.

Arguments: WEIGHTS ROWS OUTPUT BATCH_SIZE.
"""

import sys
import time
from pathlib import Path

import keras
import numpy as np

weights, source, output = map(Path, sys.argv[1:4])
layers = np.load(weights)
began = time.perf_counter()
rows = np.load(source)
load_seconds = time.perf_counter() - began
model = keras.Sequential(
    [
        keras.Input((rows.shape[1],)),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.set_weights([layers[name] for name in layers.files])
batch = int(sys.argv[4])
model.predict(rows[:batch], batch_size=batch, verbose=0)  # the first call compiles the model
began = time.perf_counter()
np.save(output, model.predict(rows, batch_size=batch, verbose=0)[:, 0])
output.with_suffix(".seconds").write_text(str(load_seconds + time.perf_counter() - began))
