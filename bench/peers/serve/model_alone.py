"""Runs the model with full batches and without a server, for some seconds; prints the number of requests per second.

python model_alone.py SECONDS
"""

import sys
import time

import model
import numpy as np

FEATURES, ROWS_PER_REQUEST = 13, 10


def main(seconds: float) -> None:
    session = model.load()
    random = np.random.default_rng(1)
    rows = random.normal(size=(model.BATCH_REQUESTS * ROWS_PER_REQUEST, FEATURES)).astype(np.float32)
    model.predict(session, rows)
    start_time, batches = time.perf_counter(), 0
    while time.perf_counter() < start_time + seconds:
        model.predict(session, rows)
        batches += 1
    print(batches * model.BATCH_REQUESTS / (time.perf_counter() - start_time))


if __name__ == "__main__":
    main(float(sys.argv[1]))
