"""What a large channel costs: its bytes are not copied. Beside SageMaker SDK v2 local mode, which downloads them.

    uv run python bench/channel.py [--gigabytes 5]

The job writes into its channel and ends. For each side: seconds until it has ended, and by how much the space that is
free on the disk fell meanwhile. Then looks that the bucket has what it had.
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

from overhead import local_mode, serving, small_image, training_job

from microjobs.contract import Layout

IMAGE = "microjobs-bench/channel:dev"
CHANNEL = Layout().channel("train")
SCRIPT = f"set -e; cd {CHANNEL}; test -s large; echo changed >> small; echo new > new; test $(wc -l < small) = 2"
GB = 10**9
LOOK_SECONDS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--base", default="microjobs/serve:dev", help="an image that is here; default: %(default)s")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(small_image(options.base, IMAGE, "/bin/sh", "-c", SCRIPT))
        address = stack.enter_context(serving(folder))
        bucket = folder / "home" / "s3" / address.bucket
        before = fill(bucket / "train", round(options.gigabytes * GB))
        uri = f"s3://{address.bucket}/train/"
        source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        members = {
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        }
        sides = {
            "local server": training_job(address, **members),
            "SDK v2 local mode": stack.enter_context(local_mode(folder, address, IMAGE, uri)),
        }
        report({side: measure(run, folder) for side, run in sides.items()}, options.gigabytes)
        if content(bucket / "train") != before:
            sys.exit("the bucket changed")
        print("bucket             unchanged")


def fill(folder: Path, size: int) -> dict[str, str]:
    """Objects: a large one and a small one; their content."""
    folder.mkdir(parents=True)
    block = os.urandom(1 << 24)
    with (folder / "large").open("wb") as file:
        for written in range(0, size, len(block)):
            file.write(block[: size - written])
    (folder / "small").write_text("original\n")
    return content(folder)


def content(folder: Path) -> dict[str, str]:
    """Digests by name."""
    digests = {}
    for path in folder.iterdir():
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def measure(run: Callable[[], float], folder: Path) -> tuple[float, int]:
    """Seconds, and bytes of disk at most; the disk is everybody's, so run it when nothing else writes."""
    free, ended = shutil.disk_usage(folder).free, threading.Event()
    least = [free]

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            least[0] = min(least[0], shutil.disk_usage(folder).free)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        seconds = run()
    finally:
        ended.set()
        looking.join()
    return seconds, free - least[0]


def report(measured: dict[str, tuple[float, int]], gigabytes: float) -> None:
    unit, _ = measured["local server"]
    for side, (seconds, used) in measured.items():
        print(f"{side:18} {seconds:7.2f} s  {seconds / unit:6.1f}x  {used / GB:6.3f} GB of disk for {gigabytes:g} GB")


if __name__ == "__main__":
    main()
