"""Keras's model.predict: loads rows and weights, predicts, saves the predictions and the seconds.

Arguments: WEIGHTS ROWS OUTPUT BATCH_SIZE.
"""

import sys
import time
from pathlib import Path

import keras
import numpy as np

weights_path, rows_path, output_path = map(Path, sys.argv[1:4])
weights = np.load(weights_path)
start_time = time.perf_counter()
rows = np.load(rows_path)
load_seconds = time.perf_counter() - start_time
model = keras.Sequential(
    [
        keras.Input((rows.shape[1],)),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.set_weights([weights[name] for name in weights.files])
batch_size = int(sys.argv[4])
model.predict(rows[:batch_size], batch_size=batch_size, verbose=0)  # the first call compiles the model
start_time = time.perf_counter()
np.save(output_path, model.predict(rows, batch_size=batch_size, verbose=0)[:, 0])
output_path.with_suffix(".seconds").write_text(str(load_seconds + time.perf_counter() - start_time))
