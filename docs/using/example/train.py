#!/usr/bin/env python3
"""Training script: fits a straight line to the rows `x,y` of the channel `train`."""

import csv
import json
import statistics
import sys
from pathlib import Path

ROOT = Path("/opt/ml")


def read_rows(folder: Path) -> list[list[float]]:
    return [[float(value) for value in row] for path in sorted(folder.glob("*.csv")) for row in csv.reader(path.open())]


def main() -> None:
    hyperparameters = json.loads((ROOT / "input/config/hyperparameters.json").read_text())
    rows = read_rows(ROOT / "input/data/train")
    if len(rows) < 2:
        raise ValueError(f"channel train has {len(rows)} rows; a line needs two")
    xs, ys = zip(*rows, strict=True)
    through_origin = hyperparameters.get("through_origin") == "true"
    slope, intercept = statistics.linear_regression(xs, ys, proportional=through_origin)
    print(f"slope={slope:.3f} intercept={intercept:.3f}")
    (ROOT / "model/line.json").write_text(json.dumps({"slope": slope, "intercept": intercept}))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        (ROOT / "output/failure").write_text(str(error))  # becomes the job's FailureReason
        sys.exit(1)
