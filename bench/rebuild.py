"""Time to rebuild an image: `make build/<job>` after a one-line change in the job's code, and without a change.

    uv run python bench/rebuild.py [--runs 3] [--markdown] [JOB ...]

Builds in a copy of the repository, with a separate tag that is removed afterwards: your code and images do not change.
Build the images once before, so that the builder's cache contains their packages.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import harness

from microjobs.run import make_package_name

TAG = "bench-rebuild"


def main() -> None:
    jobs = sorted(path.parent.name for path in (harness.REPOSITORY / "containers").glob("*/image.yml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=jobs, metavar="JOB", help="default: all")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy_repository(Path(folder))
        for job in options.jobs:
            with temporary_image(Path(folder), job):
                rows.append([job, *map("{:.2f} s".format, measure(Path(folder), job, options.runs))])
    title = f"make build/<job>, medians of {options.runs}; {harness.describe_machine()}"
    harness.print_table(title, ["", "nothing changed", "one line changed"], rows, markdown=options.markdown)


def copy_repository(folder: Path) -> None:
    """Copy all files that git tracks, with the changes in the working tree."""
    git_output = subprocess.run(["git", "ls-files", "-z"], cwd=harness.REPOSITORY, capture_output=True, check=True)
    for name in filter(None, git_output.stdout.decode().split("\0")):
        source, target = harness.REPOSITORY / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


@contextmanager
def temporary_image(folder: Path, job: str) -> Iterator[None]:
    try:
        build(folder, job)
        yield
    finally:
        image = f"{os.environ.get('REGISTRY', 'microjobs')}/{job}:{TAG}"
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, check=False)


def measure(folder: Path, job: str, runs: int) -> tuple[float, float]:
    """Return median seconds of builds without a change, and after a new line at the end of a module."""
    unchanged_seconds, changed_seconds = [], []
    for run in range(runs):
        unchanged_seconds.append(build(folder, job))
        with (folder / "containers" / job / make_package_name(job) / "__init__.py").open("a") as file:
            file.write(f"CHANGE = {time.time_ns() + run}\n")
        changed_seconds.append(build(folder, job))
    return median(unchanged_seconds), median(changed_seconds)


def build(folder: Path, job: str) -> float:
    environment = dict(os.environ) | {"TAG": TAG, "REVISION": "bench"}
    start_time = time.perf_counter()
    process = subprocess.run(["make", f"build/{job}"], cwd=folder, env=environment, capture_output=True, check=False)
    if process.returncode:
        sys.exit(f"make build/{job} ended with {process.returncode}:\n{process.stderr.decode()[-3000:]}")
    return time.perf_counter() - start_time


if __name__ == "__main__":
    main()
