"""Batch scoring: the batch-score job beside Keras's model.predict and a bare loop with ONNX Runtime, the same weights.

    uv run python bench/batch_score.py [--rows 1000000] [--runs 5] [--more 10] [--markdown]

In turns, each as a process of its own that loads the rows, predicts them and saves the predictions; the job also
checks every row, compares with the targets and draws. What a row takes is told without what the start takes: the peers
stop that time themselves, after a first batch; the job runs on some times more rows too, and the difference counts.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import Used

from microjobs.contract import Layout

BATCH = 4_096
KERAS_DEFAULT = 32
JOB = "batch-score"
BARE = f"bare ONNX Runtime, batches of {BATCH}"
KERAS = f"Keras predict, batches of {BATCH}"
DEFAULT = f"Keras predict, its default of {KERAS_DEFAULT}"

Side = Callable[[], "Scored"]


@dataclass(frozen=True)
class Scored:
    """A whole run, and the seconds of it that the rows took; of the job, also one on more rows."""

    whole: Used
    rows: float
    more: Used | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--more", type=int, default=10)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = sides(Path(folder), options.rows, options.more)
        default = measured.pop(DEFAULT)  # takes most of a minute
        results = harness.in_turns(measured, options.runs)
        results[DEFAULT] = [default()]
    report(results, options)


def sides(folder: Path, rows: int, times: int) -> dict[str, Side]:
    once, often = job(folder, rows), job(folder, rows * times)
    layout = Layout(folder / str(rows))
    features, output = layout.processing("test") / "x_test.npy", layout.root / "predictions.npy"
    keras, bare = harness.peer_python("keras"), harness.peer_python("onnxruntime")
    model = layout.processing("model")
    predict = [keras, harness.PEERS / "keras_predict.py", model / "weights.npz", features, output]
    loop = [bare, harness.PEERS / "onnxruntime_loop.py", model / "model.onnx", features, output]

    def ours() -> Scored:
        whole, more = harness.used(*once), harness.used(*often)
        return Scored(whole, (more.seconds - whole.seconds) / (times - 1), more)

    def peer(command: Sequence[str | Path], batch: int) -> Scored:
        whole = harness.used([*command, str(batch)])
        return Scored(whole, float(output.with_suffix(".seconds").read_text()))

    return {
        JOB: ours,
        BARE: lambda: peer(loop, BATCH),
        KERAS: lambda: peer(predict, BATCH),
        DEFAULT: lambda: peer(predict, KERAS_DEFAULT),
    }


def job(folder: Path, rows: int) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of the job on so many rows."""
    layout = Layout(folder / str(rows))
    data = harness.REPOSITORY / "bench" / "make_data.py"
    environment = {"PYTHONPATH": str(harness.REPOSITORY / "shared")}
    harness.used([sys.executable, data, "model", layout.processing("model")], environment)
    harness.used(
        [sys.executable, data, "arrays", layout.processing("test"), "test", str(rows), "float32", "1"], environment
    )
    return harness.job(JOB, layout.root)


def report(results: dict[str, list[Scored]], options: argparse.Namespace) -> None:
    whole = {side: [run.whole for run in runs] for side, runs in results.items()}
    rate = {side: options.rows / statistics.median(run.rows for run in runs) for side, runs in results.items()}
    lines = [
        [
            side,
            f"{rate[side] / 1e6:.3f} M",
            f"{rate[JOB] / rate[side]:.2f}x",
            f"{harness.median(runs):.2f} s",
            f"{harness.median(runs) / harness.median(whole[JOB]):.2f}x",
            f"{harness.peak(runs) / 1e6:.0f} MB",
        ]
        for side, runs in whole.items()
    ]
    more = [run.more for run in results[JOB] if run.more]
    times = f"{JOB}, {options.more} times the rows"
    lines.append([times, "", "", f"{harness.median(more):.2f} s", "", f"{harness.peak(more) / 1e6:.0f} MB"])
    head = ["", "rows/s", "the job's to it", f"whole, {options.rows:,} rows", "to the job's", "peak memory"]
    tools = [
        harness.versions(harness.PEERS / "onnxruntime.lock", "numpy", "onnxruntime"),
        harness.versions(harness.PEERS / "keras.lock", "keras", "tensorflow-cpu"),
    ]
    title = f"Predicting rows of 13 singles, an MLP of 128 and 64 units; {harness.machine()}, {', '.join(tools)}"
    harness.table(title, head, lines, markdown=options.markdown)


if __name__ == "__main__":
    main()
