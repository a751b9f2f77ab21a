"""A loop over batches with ONNX Runtime's default settings: loads rows, predicts, and saves the predictions.

It also saves the seconds that these steps take.

Arguments: MODEL ROWS OUTPUT BATCH_SIZE.
"""

import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

model, source, output = map(Path, sys.argv[1:4])
batch_size = int(sys.argv[4])
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
start_time = time.perf_counter()
rows = np.load(source)
name = session.get_inputs()[0].name
predictions = [
    session.run(None, {name: rows[start : start + batch_size]})[0] for start in range(0, len(rows), batch_size)
]
np.save(output, np.concatenate(predictions)[:, 0])
output.with_suffix(".seconds").write_text(str(time.perf_counter() - start_time))
