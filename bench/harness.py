"""What the benchmarks share: peers in environments of their own, processes measured, tables printed.

Standard library only: what a process inherits of its parent's memory counts as its own peak.
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

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Used:
    """What a process took: seconds from its start to its end, and the peak memory of it and its children in bytes."""

    seconds: float
    peak: int


def used(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Used:
    """Run a command to its end; it must end well."""
    began = time.perf_counter()
    variables = os.environ | (environment or {})
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None  # noqa: S101  it is a pipe
    with process.stderr as errors:
        log = errors.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{log[-3000:]}")
    return Used(seconds, usage.ru_maxrss * 1024)


def in_turns(sides: Mapping[str, Callable[[], Measured]], runs: int) -> dict[str, list[Measured]]:
    """Run all sides in turns, so that a busy moment hits all alike."""
    results: dict[str, list[Measured]] = {side: [] for side in sides}
    for _ in range(runs):
        for side, run in sides.items():
            results[side].append(run())
    return results


def median(runs: Sequence[Used]) -> float:
    return statistics.median(run.seconds for run in runs)


def peak(runs: Sequence[Used]) -> int:
    return max(run.peak for run in runs)


def job(name: str, root: Path) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a processing job as a process of its own, with this interpreter."""
    environment = {
        "MICROJOBS_JOB": str(REPOSITORY / "containers" / name),
        "PYTHONPATH": str(REPOSITORY / "shared"),
        "SAGEMAKER_BASE_DIR": str(root),
        "MPLCONFIGDIR": str(ENVIRONMENTS / "matplotlib"),  # its cache of fonts, as an image has it
    }
    return [sys.executable, "-m", "microjobs"], environment


def peer_python(peer: str) -> Path:
    """The interpreter of a virtual environment with what `peers/<peer>.lock` names; made once and kept."""
    uv = shutil.which("uv") or sys.exit("uv is not here: it makes the peers' virtual environments")
    lock = PEERS / f"{peer}.lock"
    folder = ENVIRONMENTS / f"{peer}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", folder], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock], check=True
        )
        done.touch()
    return python


def versions(lock: Path, *packages: str) -> str:
    """Their versions, as a lock with hashes has them."""
    pins = dict(line.split(" ")[0].split("==") for line in lock.read_text().splitlines() if "==" in line[:80])
    return ", ".join(f"{package} {pins[package]}" for package in packages)


def machine() -> str:
    models = [
        line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    return f"{models[0]}, {cores} cores, {memory / 1e9:.0f} GB; Python {platform.python_version()}"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> None:
    """Print a table, the first column to the left; as Markdown for docs/maintaining/benchmarks.md."""
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
