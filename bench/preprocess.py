"""Standard scaling: the preprocess job beside scikit-learn in memory and beside copying the files.

    uv run python bench/preprocess.py [--megabytes 500] [--runs 5] [--without-scikit-learn] [--markdown]

In turns, each as a process of its own from its start to its end, its input in the page cache and nothing waiting to be
written. Then the job on one host with one core, and on two hosts with a core each. Needs three times the size on disk;
scikit-learn needs about four times the size in memory.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import harness
from harness import Used

from microjobs.contract import Layout, ResourceConfig, write_processing_resource_config
from microjobs.network import Network

FEATURES = 13
HOSTS = ("algo-1", "algo-2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--without-scikit-learn", action="store_true", help="where there is no memory for it")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--folder", type=Path, help="where there is room for the arrays; default: the system's")
    options = parser.parse_args()
    rows = options.megabytes * 1_000_000 // (FEATURES * 8)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = one_host(Path(folder), rows, options)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results |= hosts(Path(folder), rows, options.runs)
    report(results, rows, markdown=options.markdown)


def one_host(folder: Path, rows: int, options: argparse.Namespace) -> dict[str, list[Used]]:
    layout = Layout(folder)
    source, output = layout.processing("input"), layout.processing("train")
    make(source, rows, parts=1)
    command, environment = harness.job("preprocess", layout.root)
    files = sorted(source.iterdir())
    sides = {
        "preprocess": lambda: harness.used(command, environment),
        "its start alone (--help)": lambda: harness.used([*command, "--help"], environment),
        "copying the files (cp)": lambda: harness.used(["cp", *files, output]),
    }
    if not options.without_scikit_learn:
        python = harness.peer_python("scikit-learn")
        script = harness.PEERS / "standard_scaler.py"
        sides["scikit-learn in memory"] = lambda: harness.used([python, script, source, output])
    return harness.in_turns({side: prepared(run, files, [output]) for side, run in sides.items()}, options.runs)


def hosts(folder: Path, rows: int, runs: int) -> dict[str, list[Used]]:
    """The job on shards: one host pinned to a core, and two."""
    make(folder / "shards", rows, parts=2)
    shards = sorted((folder / "shards").iterdir())
    sides = {}
    for names in (HOSTS[:1], HOSTS):
        layouts = [Layout(folder / f"{len(names)}" / name) for name in names]
        for number, layout in enumerate(layouts):
            layout.processing("input").mkdir(parents=True)
            write_processing_resource_config(layout, ResourceConfig(HOSTS[number], names))
            for path in shards:
                if len(names) == 1 or f"-{number:05}-of" in path.name:
                    os.link(path, layout.processing("input") / path.name)
        outputs = [layout.processing("train") for layout in layouts]
        title = f"preprocess, {len(names)} host{'s'[: len(names) - 1]} of one core"
        sides[title] = prepared(run_hosts(layouts), shards, outputs)
    return harness.in_turns(sides, runs)


def run_hosts(layouts: Sequence[Layout]) -> Callable[[], Used]:
    """Hosts as the runtime without an engine has them: processes with an address each; here also a core each."""
    addresses = {name: f"127.64.0.{number}" for number, name in enumerate(HOSTS, start=1)}

    def run() -> Used:
        began = time.perf_counter()
        processes = []
        for core, (layout, address) in enumerate(zip(layouts, addresses.values(), strict=False)):
            command, environment = harness.job("preprocess", layout.root)
            environment |= Network(address, addresses).variables()
            pinned = ["taskset", "--cpu-list", str(core), *command]
            processes.append(subprocess.Popen(pinned, env=os.environ | environment, stderr=subprocess.DEVNULL))
        codes = [process.wait() for process in processes]
        if any(codes):
            sys.exit(f"the hosts ended with {codes}")
        return Used(time.perf_counter() - began, 0)

    return run


def make(folder: Path, rows: int, parts: int) -> None:
    data = harness.REPOSITORY / "bench" / "make_data.py"
    environment = {"PYTHONPATH": str(harness.REPOSITORY / "shared")}
    harness.used([sys.executable, data, "arrays", folder, "train", str(rows), "float64", str(parts)], environment)


def prepared(run: Callable[[], Used], files: Sequence[Path], outputs: Sequence[Path]) -> Callable[[], Used]:
    """Each run finds the same: sources in the page cache, empty output folders, a disk with nothing to do."""

    def measure() -> Used:
        for output in outputs:
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir(parents=True)
        for path in files:
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass
        os.sync()
        return run()

    return measure


def report(results: dict[str, list[Used]], rows: int, *, markdown: bool) -> None:
    unit = harness.median(results["preprocess"])
    lines = [
        [
            side,
            f"{harness.median(runs):.2f} s",
            f"{harness.median(runs) / unit:.2f}x",
            f"{min(run.seconds for run in runs):.2f}-{max(run.seconds for run in runs):.2f} s",
            f"{harness.peak(runs) / 1e6:.0f} MB" if harness.peak(runs) else "",
        ]
        for side, runs in results.items()
    ]
    size = rows * FEATURES * 8 / 1e6
    lock = harness.REPOSITORY / "containers" / "preprocess" / "cpu.lock"
    shared = harness.REPOSITORY / "shared" / "requirements.lock"
    tools = f"{harness.versions(shared, 'numpy')}, {harness.versions(lock, 'scikit-learn')}"
    title = f"Standard scaling of {rows:,} x {FEATURES} doubles ({size:.0f} MB); {harness.machine()}, {tools}"
    harness.table(title, ["", "median", "to preprocess", "range", "peak memory"], lines, markdown=markdown)


if __name__ == "__main__":
    main()
