"""Batch scoring: the batch-score job, compared with Keras's model.predict and a loop over ONNX Runtime.

    uv run python bench/batch_score.py [--rows 1000000] [--runs 5] [--more 10] [--markdown]

All candidates use the same weights. Each candidate is a process that loads the rows, predicts and saves the
predictions; the job also checks every row, compares the predictions with the targets, and draws plots. Rounds alternate
between the candidates. The rate excludes the start: a peer measures the time in which it loads the rows, predicts and
saves. The rate of the job is computed from the difference between two runs, one of them on `--more` times the rows.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import Usage

from microjobs.contract import Layout

BATCH_ROWS = 4_096
KERAS_DEFAULT_BATCH_ROWS = 32
JOB = "batch-score"
LOOP = f"ONNX Runtime in a loop, batches of {BATCH_ROWS}"
KERAS = f"Keras predict, batches of {BATCH_ROWS}"
KERAS_WITH_DEFAULT = f"Keras predict, its default of {KERAS_DEFAULT_BATCH_ROWS}"

Candidate = Callable[[], "Timing"]


@dataclass(frozen=True)
class Timing:
    """Measurements of a candidate in one round."""

    usage: Usage
    """The usage of the whole process."""
    rows_seconds: float
    """Duration of the part that processes rows."""
    large_usage: Usage | None = None
    """The usage of a run on `--more` times as many rows, only for the job."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--more", type=int, default=10, help="factor for the larger run (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        candidates = make_candidates(Path(folder), options.rows, options.more)
        measure_slow_candidate = candidates.pop(KERAS_WITH_DEFAULT)  # it takes almost a minute, so it runs once
        results = harness.run_interleaved(candidates, options.runs)
        results[KERAS_WITH_DEFAULT] = [measure_slow_candidate()]
    report(results, options)


def make_candidates(folder: Path, rows: int, factor: int) -> dict[str, Candidate]:
    small_job, large_job = prepare_job(folder, rows), prepare_job(folder, rows * factor)
    layout = Layout(folder / str(rows))
    features, output = layout.processing("test") / "x_test.npy", layout.root / "predictions.npy"
    keras_python = harness.create_peer_environment("keras")
    onnxruntime_python = harness.create_peer_environment("onnxruntime")
    model = layout.processing("model")
    keras_command = [keras_python, harness.PEERS / "keras_predict.py", model / "weights.npz", features, output]
    loop_command = [onnxruntime_python, harness.PEERS / "onnxruntime_loop.py", model / "model.onnx", features, output]

    def measure_job() -> Timing:
        usage, large_usage = harness.measure(*small_job), harness.measure(*large_job)
        return Timing(usage, (large_usage.seconds - usage.seconds) / (factor - 1), large_usage)

    def measure_peer(command: Sequence[str | Path], batch_rows: int) -> Timing:
        usage = harness.measure([*command, str(batch_rows)])
        return Timing(usage, float(output.with_suffix(".seconds").read_text()))

    return {
        JOB: measure_job,
        LOOP: lambda: measure_peer(loop_command, BATCH_ROWS),
        KERAS: lambda: measure_peer(keras_command, BATCH_ROWS),
        KERAS_WITH_DEFAULT: lambda: measure_peer(keras_command, KERAS_DEFAULT_BATCH_ROWS),
    }


def prepare_job(folder: Path, rows: int) -> tuple[list[str], dict[str, str]]:
    """Write the job's input, and return its command and environment."""
    layout = Layout(folder / str(rows))
    script = harness.REPOSITORY / "bench" / "make_data.py"
    environment = {"PYTHONPATH": str(harness.REPOSITORY / "shared")}
    harness.measure([sys.executable, script, "model", layout.processing("model")], environment)
    harness.measure(
        [sys.executable, script, "arrays", layout.processing("test"), "test", str(rows), "float32", "1"], environment
    )
    return harness.make_job_command(JOB, layout.root)


def report(results: dict[str, list[Timing]], options: argparse.Namespace) -> None:
    usages = {name: [run.usage for run in runs] for name, runs in results.items()}
    rates = {name: options.rows / statistics.median(run.rows_seconds for run in runs) for name, runs in results.items()}
    lines = [
        [
            name,
            f"{rates[name] / 1e6:.3f} M",
            f"{rates[JOB] / rates[name]:.2f}x",
            f"{harness.compute_median_seconds(runs):.2f} s",
            f"{harness.compute_median_seconds(runs) / harness.compute_median_seconds(usages[JOB]):.2f}x",
            f"{harness.find_peak_bytes(runs) / 1e6:.0f} MB",
        ]
        for name, runs in usages.items()
    ]
    large_usages = [run.large_usage for run in results[JOB] if run.large_usage]
    title = f"{JOB}, {options.more} times the rows"
    lines.append(
        [
            title,
            "",
            "",
            f"{harness.compute_median_seconds(large_usages):.2f} s",
            "",
            f"{harness.find_peak_bytes(large_usages) / 1e6:.0f} MB",
        ]
    )
    head = [
        "",
        "rows/s",
        "job's rate / this rate",
        f"whole run, {options.rows:,} rows",
        "this time / job's time",
        "peak memory",
    ]
    tools = [
        harness.format_versions(harness.PEERS / "onnxruntime.lock", "numpy", "onnxruntime"),
        harness.format_versions(harness.PEERS / "keras.lock", "keras", "tensorflow-cpu"),
    ]
    task = "Predictions for rows of 13 float32 values, by an MLP with 128 and 64 units"
    title = f"{task}; {harness.describe_machine()}, {', '.join(tools)}"
    harness.print_table(title, head, lines, markdown=options.markdown)


if __name__ == "__main__":
    main()
