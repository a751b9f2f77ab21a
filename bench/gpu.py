"""Training on GPUs: each trainer's CUDA image with the machine's GPUs, compared with the same image without GPUs.

    microjobs build train-pytorch train-tensorflow --variant cuda
    uv run python bench/gpu.py [--rows 1000000] [--epochs 5] [--batch-size 16384] [--gpus all]

Prints rows per second during the training (the job's metrics.json contains its seconds), the seconds of the whole job
from `docker run` to its end, and the device from the job's log. Needs the NVIDIA Container Toolkit.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator.images import get_local_image_name, list_jobs_with_variant

FEATURES = 13
DEVICE_PATTERN = re.compile(r"(?:PyTorch|TensorFlow) (\S+ on .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Measurement:
    """The speed of one training job."""

    device: str
    rows_per_second: float
    """The rate during the training only."""
    seconds: float
    """The time from `docker run` to the end of the container."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16_384)
    parser.add_argument(
        "--gpus", default="all", help="value for docker run --gpus, such as device=0 (default: %(default)s)"
    )
    options = parser.parse_args()
    images = {job: get_local_image_name(job, "cuda") for job in list_jobs_with_variant("cuda")}
    require_gpus(next(iter(images.values())), options.gpus)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, options.rows)
        hyperparameters = {"epochs": str(options.epochs), "batch_size": str(options.batch_size)}
        (root / "input/config/hyperparameters.json").write_text(json.dumps(hyperparameters))
        for job, image in images.items():
            without_gpus = measure(root, image, options.rows * options.epochs, [])
            with_gpus = measure(root, image, options.rows * options.epochs, ["--gpus", options.gpus])
            report(job, without_gpus, with_gpus)


def require_gpus(image: str, gpus: str) -> None:
    """Exit if containers cannot use GPUs."""
    command = ["docker", "run", "--rm", "--gpus", gpus, "--entrypoint", "nvidia-smi", image, "--list-gpus"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode:
        raise SystemExit(f"containers cannot use GPUs: {(completed.stderr or completed.stdout).strip()}")
    print(completed.stdout.strip())


def write_data(root: Path, rows: int) -> None:
    """Write the channels `train` and `test`: a linear target with noise."""
    random = np.random.default_rng(0)
    weights = random.normal(size=FEATURES)
    for channel, count in (("train", rows), ("test", max(rows // 10, 1))):
        folder = root / "input/data" / channel
        folder.mkdir(parents=True)
        x = random.normal(size=(count, FEATURES)).astype(np.float32)
        np.save(folder / f"x_{channel}.npy", x)
        np.save(folder / f"y_{channel}.npy", (x @ weights + random.normal(size=count)).astype(np.float32))
    (root / "input/config").mkdir(parents=True)


def measure(root: Path, image: str, rows: int, devices: list[str]) -> Measurement:
    start_time = time.monotonic()
    command = ["docker", "run", "--rm", *devices, "--volume", f"{root}:{DEFAULT_ROOT}", image, "train"]
    completed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    seconds = time.monotonic() - start_time
    if completed.returncode:
        raise SystemExit(f"{image} failed:\n{completed.stdout}")
    metrics = json.loads((root / "output/data/metrics.json").read_text())
    device = DEVICE_PATTERN.search(completed.stdout)
    return Measurement(device[1] if device else "unknown", rows / metrics["seconds"], seconds)


def report(job: str, without_gpus: Measurement, with_gpus: Measurement) -> None:
    print(f"{job:18} {'rows/s':>12} {'ratio':>7} {'whole job':>10}  device")
    for measurement in (without_gpus, with_gpus):
        ratio = measurement.rows_per_second / without_gpus.rows_per_second
        rate, seconds = measurement.rows_per_second, measurement.seconds
        print(f"{'':18} {rate:12,.0f} {ratio:6.2f}x {seconds:8.1f} s  {measurement.device}")


if __name__ == "__main__":
    main()
