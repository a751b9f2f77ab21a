"""Batch scoring: the batch-score job beside Keras's model.predict and a bare loop with ONNX Runtime, the same weights.

    uv run python bench/batch_score.py [--rows 1000000] [--runs 5] [--more 10] [--markdown]

In turns, each as a process of its own that loads the rows, predicts them and saves the predictions; the job also
checks every row, compares with the targets and draws. What a row takes is told without what the start takes: all sides
also run on a few rows, and only the difference counts. Then the job on so many times more rows, for its memory.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import harness
from harness import Used

from microjobs.contract import Layout

FEW = 1_000
BATCH = 4_096
KERAS_DEFAULT = 32
JOB = "batch-score"
BARE = f"bare ONNX Runtime, batches of {BATCH}"
KERAS = f"Keras predict, batches of {BATCH}"
DEFAULT = f"Keras predict, its default of {KERAS_DEFAULT}"

Sides = dict[str, Callable[[], Used]]
Results = dict[str, list[Used]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--more", type=int, default=10)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = sides(Path(folder), FEW)
        many = sides(Path(folder), options.rows)
        once = {side: (few.pop(side), many.pop(side)) for side in [DEFAULT]}  # takes most of a minute
        starts, results = harness.in_turns(few, options.runs), harness.in_turns(many, options.runs)
        for side, (run_few, run_many) in once.items():
            starts[side], results[side] = [run_few()], [run_many()]
        more = sides(Path(folder), options.rows * options.more)[JOB]()
    report(starts, results, more, options)


def sides(folder: Path, rows: int) -> Sides:
    layout = Layout(folder / str(rows))
    data = harness.REPOSITORY / "bench" / "make_data.py"
    environment = {"PYTHONPATH": str(harness.REPOSITORY / "shared")}
    given = layout.processing("test")
    harness.used([sys.executable, data, "model", layout.processing("model")], environment)
    harness.used([sys.executable, data, "arrays", given, "test", str(rows), "float32", "1"], environment)
    command, environment = harness.job(JOB, layout.root)
    model, features = layout.processing("model"), given / "x_test.npy"
    output = layout.root / "predictions.npy"
    keras, bare = harness.peer_python("keras"), harness.peer_python("onnxruntime")
    predict = [keras, harness.PEERS / "keras_predict.py", model / "weights.npz", features, output]
    loop = [bare, harness.PEERS / "onnxruntime_loop.py", model / "model.onnx", features, output]
    return {
        JOB: lambda: harness.used(command, environment),
        BARE: lambda: harness.used([*loop, str(BATCH)]),
        KERAS: lambda: harness.used([*predict, str(BATCH)]),
        DEFAULT: lambda: harness.used([*predict, str(KERAS_DEFAULT)]),
    }


def report(starts: Results, results: Results, more: Used, options: argparse.Namespace) -> None:
    rows: int = options.rows

    def rate(side: str) -> float:
        """Rows a second, without the start."""
        return float(rows - FEW) / (harness.median(results[side]) - harness.median(starts[side]))

    lines = [
        [
            side,
            f"{harness.median(starts[side]):.2f} s",
            f"{harness.median(runs):.2f} s",
            f"{rate(side) / 1e6:.3f} M",
            f"{rate(JOB) / rate(side):.2f}x",
            f"{harness.median(runs) / harness.median(results[JOB]):.2f}x",
            f"{harness.peak(runs) / 1e6:.0f} MB",
        ]
        for side, runs in results.items()
    ]
    lines.append(
        [f"{JOB}, {options.more} times the rows", "", f"{more.seconds:.2f} s", "", "", "", f"{more.peak / 1e6:.0f} MB"]
    )
    head = ["", f"{FEW:,} rows", f"{rows:,} rows", "rows/s", "of the job", "whole, to the job", "peak memory"]
    tools = [
        harness.versions(harness.PEERS / "onnxruntime.lock", "numpy", "onnxruntime"),
        harness.versions(harness.PEERS / "keras.lock", "keras", "tensorflow-cpu"),
    ]
    title = f"Predicting rows of 13 singles, an MLP of 128 and 64 units; {harness.machine()}, {', '.join(tools)}"
    harness.table(title, head, lines, markdown=options.markdown)


if __name__ == "__main__":
    main()
