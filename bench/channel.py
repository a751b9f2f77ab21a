"""Time and disk space for a large channel, compared with SageMaker SDK v2 local mode, which downloads the data.

    uv run python bench/channel.py [--gigabytes 5]

The job writes into its channel and ends. Prints the seconds until the end of the job, and the decrease of free disk
space. Then verifies that the bucket is unchanged.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from overhead import make_training_job_timer, run_local_server, start_local_mode, temporary_image

from microjobs.contract import Layout

IMAGE = "microjobs-bench/channel:dev"
CHANNEL = Layout().channel("train")
SCRIPT = f"set -e; cd {CHANNEL}; test -s large; echo changed >> small; echo new > new; test $(wc -l < small) = 2"
GB = 10**9
POLL_INTERVAL_SECONDS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument(
        "--base",
        default="microjobs/serve:dev",
        help="base of the job's image; the engine must have it (default: %(default)s)",
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(temporary_image(options.base, IMAGE, "/bin/sh", "-c", SCRIPT))
        address = stack.enter_context(run_local_server(folder))
        bucket = folder / "home" / "s3" / address.bucket
        original_digests = write_objects(bucket / "train", round(options.gigabytes * GB))
        uri = f"s3://{address.bucket}/train/"
        source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        members = {
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        }
        candidates = {
            "local server": make_training_job_timer(address, **members),
            "SDK v2 local mode": stack.enter_context(start_local_mode(folder, address, IMAGE, uri)),
        }
        report({name: measure(run, folder) for name, run in candidates.items()}, options.gigabytes)
        if compute_digests(bucket / "train") != original_digests:
            sys.exit("a job changed the bucket")
        print("bucket             unchanged")


def write_objects(folder: Path, size: int) -> dict[str, str]:
    """Write a large and a small object, and return their digests by name."""
    folder.mkdir(parents=True)
    block = os.urandom(1 << 24)
    with (folder / "large").open("wb") as file:
        for offset in range(0, size, len(block)):
            file.write(block[: size - offset])
    (folder / "small").write_text("original\n")
    return compute_digests(folder)


def compute_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 digest of each file by name."""
    digests = {}
    for path in folder.iterdir():
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def measure(run: Callable[[], float], folder: Path) -> tuple[float, int]:
    """Return the seconds of a run, and the largest decrease of free disk space in bytes.

    Other programs that write to the disk distort the result.
    """
    initial_free_bytes, end_event = shutil.disk_usage(folder).free, threading.Event()
    min_free_bytes = initial_free_bytes

    def poll() -> None:
        nonlocal min_free_bytes
        while not end_event.wait(POLL_INTERVAL_SECONDS):
            min_free_bytes = min(min_free_bytes, shutil.disk_usage(folder).free)

    polling = threading.Thread(target=poll)
    polling.start()
    try:
        seconds = run()
    finally:
        end_event.set()
        polling.join()
    return seconds, initial_free_bytes - min_free_bytes


def report(measurements: dict[str, tuple[float, int]], gigabytes: float) -> None:
    baseline, _ = measurements["local server"]
    for name, (seconds, disk_bytes) in measurements.items():
        times = f"{seconds:7.2f} s  {seconds / baseline:6.1f}x"
        print(f"{name:18} {times}  {disk_bytes / GB:6.3f} GB of disk for {gigabytes:g} GB")


if __name__ == "__main__":
    main()
