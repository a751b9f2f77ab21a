"""Shared code of the benchmarks: virtual environments for peers, measurements of processes, tables.

Imports only the standard library: a measured process starts with a copy of this process's memory, which counts towards
its peak.
"""

import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).with_name("peers")
ENVIRONMENTS = REPOSITORY / ".venv-peers"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Usage:
    """Resources that a process used."""

    seconds: float
    """The time from start to end."""
    peak_bytes: int
    """Peak memory of the process or of its largest child, whichever is larger."""


def measure(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end. If it fails, print its output and exit."""
    start_time = time.perf_counter()
    variables = os.environ | (environment or {})
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None  # noqa: S101  it is a pipe
    with process.stderr as errors:
        log = errors.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start_time
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{log[-3000:]}")
    return Usage(seconds, usage.ru_maxrss * 1024)


def measure_together(commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Run commands at the same time. Return seconds until all have ended, and processor seconds of the first one."""
    start_time = time.perf_counter()
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    processor_seconds = []
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        processor_seconds.append(usage.ru_utime + usage.ru_stime)
    if any(process.returncode for process in processes):
        sys.exit(f"the commands ended with {[process.returncode for process in processes]}")
    return time.perf_counter() - start_time, processor_seconds[0]


def run_interleaved(candidates: Mapping[str, Callable[[], Result]], runs: int) -> dict[str, list[Result]]:
    """Run each candidate once per round, so that other load on the machine affects all of them equally."""
    results: dict[str, list[Result]] = {name: [] for name in candidates}
    for _ in range(runs):
        for name, run in candidates.items():
            results[name].append(run())
    return results


def compute_median_seconds(runs: Sequence[Usage]) -> float:
    return statistics.median(run.seconds for run in runs)


def find_peak_bytes(runs: Sequence[Usage]) -> int:
    return max(run.peak_bytes for run in runs)


def make_job_command(name: str, root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment variables that run a processing job with this Python interpreter."""
    environment = {
        "MICROJOBS_JOB": str(REPOSITORY / "containers" / name),
        "PYTHONPATH": str(REPOSITORY / "shared"),
        "SAGEMAKER_BASE_DIR": str(root),
        "MPLCONFIGDIR": str(ENVIRONMENTS / "matplotlib"),  # the image also has a cache of fonts
    }
    return [sys.executable, "-m", "microjobs"], environment


def create_peer_environment(peer: str) -> Path:
    """Return the interpreter of a virtual environment with the packages of `peers/<peer>.lock`."""
    return create_virtual_environment(peer, PEERS / f"{peer}.lock")


def create_virtual_environment(name: str, lock: Path) -> Path:
    """Return the interpreter of a virtual environment with the packages of a lock. It is created once and kept."""
    uv = shutil.which("uv") or sys.exit("uv is not installed (`make setup` installs it): it installs the peers")
    folder = ENVIRONMENTS / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python, completion_marker = folder / "bin" / "python", folder / "complete"
    if not completion_marker.exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", folder], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock], check=True
        )
        completion_marker.touch()
    return python


def format_versions(lock: Path, *packages: str) -> str:
    """Return the versions of packages in a lock with hashes."""
    pins = dict(line.split(" ")[0].split("==") for line in lock.read_text().splitlines() if "==" in line[:80])
    return ", ".join(f"{package} {pins[package]}" for package in packages)


def describe_machine() -> str:
    models = [
        line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    return f"{models[0]}, {cores} cores, {memory / 1e9:.0f} GB; Python {platform.python_version()}"


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> None:
    """Print a table with right-aligned columns; with `markdown`, in the format of docs/maintaining/benchmarks.md."""
    if markdown:
        print(f"\n{title}\n")
        for row in (head, ["---", *("---:" for _ in head[1:])], *rows):
            print(f"| {' | '.join(row)} |")
        return
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    print(f"\n{title}")
    for row in (head, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
