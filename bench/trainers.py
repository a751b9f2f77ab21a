"""What a training job costs beyond its training: each trainer beside a bare script in the same image.

    make build/train-pytorch build/train-tensorflow
    uv run python bench/trainers.py [--runs 5] [--jobs train-pytorch train-tensorflow]

In turns, from `docker run` to its end, imports included: the bare script (`peers/bare_*.py`: the same network, data,
epochs and batches, the framework's own format and ONNX saved) and the job, which also checks its data, hyperparameters
and saved model, tests by its own figures, keeps checkpoints and draws pictures. Prints medians, their ratio, and where
the job's time goes by the times of its log.
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
from harness import PEERS, machine, table

from microjobs.contract import DEFAULT_ROOT, Channel, Layout, write_hyperparameters, write_input_data_config

BARE = {"train-pytorch": PEERS / "bare_pytorch.py", "train-tensorflow": PEERS / "bare_keras.py"}
DATA = {"housing": (506, 70, 128), "200,000 rows": (200_000, 3, 256)}
"""Rows, epochs and the batch size of each case; a fifth of the rows is for testing."""
FEATURES = 13
STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) INFO (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Timed:
    """Seconds from `docker run` to its end; of a job, also of its parts."""

    seconds: float
    parts: tuple[float, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", default=list(BARE), choices=BARE)
    parser.add_argument("--tag", default="dev")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    print(machine())
    rows = [measure(job, case, options.tag, options.runs) for job in options.jobs for case in DATA]
    head = ("job, data", "bare script s", "job s", "ratio", "start, read", "import", "train", "save", "end")
    table("Whole training jobs", head, rows, markdown=options.markdown)


def measure(job: str, case: str, tag: str, runs: int) -> list[str]:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        write_job(layout, *DATA[case])
        image = f"microjobs/{job}:{tag}"
        bare, ours = [], []
        for _ in range(runs + 1):
            bare.append(run_bare(image, layout, BARE[job], *DATA[case][1:]))
            ours.append(run_job(image, layout))
    bare, ours = bare[1:], ours[1:]  # the first ones warm the machine up
    medians = [float(np.median([one.seconds for one in side])) for side in (bare, ours)]
    parts = np.median([one.parts for one in ours], axis=0)
    ratio = float(np.median([one.seconds / other.seconds for one, other in zip(ours, bare, strict=True)]))
    return [f"{job}, {case}", *(f"{one:.2f}" for one in (*medians, ratio, *parts))]


def write_job(layout: Layout, rows: int, epochs: int, batch_size: int) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, FEATURES), np.float32)
    y = (x @ random.standard_normal(FEATURES) + np.sin(3 * x[:, 0]) + 20).astype(np.float32)
    cut = rows * 4 // 5
    for split, part in (("train", slice(cut)), ("test", slice(cut, None))):
        layout.channel(split).mkdir(parents=True)
        np.save(layout.channel(split) / f"x_{split}.npy", x[part])
        np.save(layout.channel(split) / f"y_{split}.npy", y[part])
    write_hyperparameters(layout, {"epochs": epochs, "batch_size": batch_size})
    write_input_data_config(layout, {"train": Channel(), "test": Channel()})
    for folder in (layout.model, layout.output_data):
        folder.mkdir(parents=True)


def docker_run(layout: Layout, *arguments: str) -> tuple[float, datetime.datetime, str]:
    """Seconds that it took, when it began, and what it printed; it must end well."""
    began, start = datetime.datetime.now(datetime.UTC), time.perf_counter()
    command = ["docker", "run", "--rm", "--volume", f"{layout.root}:{DEFAULT_ROOT}", *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout[-3000:]}")
    return time.perf_counter() - start, began, ended.stdout


def run_bare(image: str, layout: Layout, script: Path, epochs: int, batch_size: int) -> Timed:
    mounted = ("--volume", f"{script}:/bare.py:ro", "--entrypoint", "python")
    seconds, _, _ = docker_run(layout, *mounted, image, "/bare.py", DEFAULT_ROOT, str(epochs), str(batch_size))
    return Timed(seconds)


def run_job(image: str, layout: Layout) -> Timed:
    """The job's log tells when its data was read, the framework was there, and the model was saved."""
    seconds, began, log = docker_run(layout, image, "train")
    lines = [(_since(began, stamp), text) for stamp, text in STAMP.findall(log)]
    read = next(when for when, text in lines if "training rows" in text)
    imported = next(when for when, text in lines if text.startswith(("PyTorch", "TensorFlow")))
    saved = next(when for when, text in lines if " epochs in " in text)
    trained = json.loads((layout.output_data / "metrics.json").read_text())["seconds"]
    return Timed(seconds, (read, imported - read, trained, saved - imported - trained, seconds - saved))


def _since(began: datetime.datetime, stamp: str) -> float:
    return (datetime.datetime.strptime(f"{stamp}000+0000", "%Y-%m-%d %H:%M:%S,%f%z") - began).total_seconds()


if __name__ == "__main__":
    main()
