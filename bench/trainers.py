"""Overhead of a training job: each trainer, compared with a minimal script in the same image.

    make build/train-pytorch build/train-tensorflow
    uv run python bench/trainers.py [--runs 5] [--jobs train-pytorch train-tensorflow]

Measures the time from `docker run` to its end, including imports, and alternates between the job and the script. The
script (`peers/bare_*.py`) trains the same network on the same data with the same epochs and batches, and saves it in
the framework's format and as ONNX. The job also checks its data, hyperparameters and saved model, computes test
metrics, saves checkpoints and draws plots. Each run of the job is paired with a run of the script. Prints the median
times, the median of the ratios of the pairs, and the parts of the job's time from its log.
"""

import argparse
import datetime
import json
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import PEERS, describe_machine, print_table, run_interleaved

from microjobs.contract import DEFAULT_ROOT, Channel, Layout, write_hyperparameters, write_input_data_config

BASELINE_SCRIPTS = {"train-pytorch": PEERS / "bare_pytorch.py", "train-tensorflow": PEERS / "bare_keras.py"}
CASES = {"housing": (506, 70, 128), "200,000 rows": (200_000, 3, 256)}
"""Rows, epochs and batch size of each case. One fifth of the rows is the test split."""
FEATURES = 13
LOG_LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) INFO (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Timing:
    """The duration of a job or of a script."""

    seconds: float
    """The time from `docker run` to its end."""
    parts: tuple[float, ...] = ()
    """The duration of each part of a job in seconds, in the table's order; empty for a script."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", default=list(BASELINE_SCRIPTS), choices=BASELINE_SCRIPTS)
    parser.add_argument("--tag", default="dev")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    print(describe_machine())
    rows = [measure(job, case, options.tag, options.runs) for job in options.jobs for case in CASES]
    head = ("job, data", "script s", "job s", "ratio", "start, read", "import", "train", "save", "end")
    print_table("Training jobs, from start to end", head, rows, markdown=options.markdown)


def measure(job: str, case: str, tag: str, runs: int) -> list[str]:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        write_inputs(layout, *CASES[case])
        image = f"microjobs/{job}:{tag}"
        candidates = {
            "script": lambda: run_script(image, layout, BASELINE_SCRIPTS[job], *CASES[case][1:]),
            "job": lambda: run_job(image, layout),
        }
        run_interleaved(candidates, 1)  # the first round warms the page cache up
        script_timings, job_timings = run_interleaved(candidates, runs).values()
    medians = [float(np.median([timing.seconds for timing in timings])) for timings in (script_timings, job_timings)]
    parts = np.median([timing.parts for timing in job_timings], axis=0)
    pairs = zip(job_timings, script_timings, strict=True)
    ratio = float(np.median([timing.seconds / baseline.seconds for timing, baseline in pairs]))
    return [f"{job}, {case}", *(f"{value:.2f}" for value in (*medians, ratio, *parts))]


def write_inputs(layout: Layout, rows: int, epochs: int, batch_size: int) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, FEATURES), np.float32)
    y = (x @ random.standard_normal(FEATURES) + np.sin(3 * x[:, 0]) + 20).astype(np.float32)
    train_rows = rows * 4 // 5
    for split, part in (("train", slice(train_rows)), ("test", slice(train_rows, None))):
        layout.channel(split).mkdir(parents=True)
        np.save(layout.channel(split) / f"x_{split}.npy", x[part])
        np.save(layout.channel(split) / f"y_{split}.npy", y[part])
    write_hyperparameters(layout, {"epochs": epochs, "batch_size": batch_size})
    write_input_data_config(layout, {"train": Channel(), "test": Channel()})
    for folder in (layout.model, layout.output_data):
        folder.mkdir(parents=True)


def run_container(layout: Layout, *arguments: str) -> tuple[float, datetime.datetime, str]:
    """Run a container to its end. Return its seconds, the time of its start, and its output."""
    start_time, start_seconds = datetime.datetime.now(datetime.UTC), time.perf_counter()
    command = ["docker", "run", "--rm", "--volume", f"{layout.root}:{DEFAULT_ROOT}", *arguments]
    completed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if completed.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {completed.returncode}:\n{completed.stdout[-3000:]}")
    return time.perf_counter() - start_seconds, start_time, completed.stdout


def run_script(image: str, layout: Layout, script: Path, epochs: int, batch_size: int) -> Timing:
    mount_options = ("--volume", f"{script}:/script.py:ro", "--entrypoint", "python")
    seconds, _, _ = run_container(
        layout, *mount_options, image, "/script.py", DEFAULT_ROOT, str(epochs), str(batch_size)
    )
    return Timing(seconds)


def run_job(image: str, layout: Layout) -> Timing:
    """Run the job. The timestamps in its log delimit its parts."""
    seconds, start_time, log = run_container(layout, image, "train")
    lines = [(_compute_seconds_since(start_time, stamp), text) for stamp, text in LOG_LINE.findall(log)]
    read_end = next(time for time, text in lines if "training rows" in text)
    import_end = next(time for time, text in lines if text.startswith(("PyTorch", "TensorFlow")))
    save_end = next(time for time, text in lines if " epochs in " in text)
    train_seconds = json.loads((layout.output_data / "metrics.json").read_text())["seconds"]
    return Timing(
        seconds,
        (
            read_end,
            import_end - read_end,
            train_seconds,
            save_end - import_end - train_seconds,
            seconds - save_end,
        ),
    )


def _compute_seconds_since(start_time: datetime.datetime, stamp: str) -> float:
    return (datetime.datetime.strptime(f"{stamp}000+0000", "%Y-%m-%d %H:%M:%S,%f%z") - start_time).total_seconds()


if __name__ == "__main__":
    main()
