"""Standard scaling: the preprocess job, compared with scikit-learn in memory and with a copy of the files.

    uv run python bench/preprocess.py [--megabytes 500] [--runs 5] [--without-scikit-learn] [--only-hosts] [--markdown]

Each candidate is a process, measured from start to end, with its input in the page cache and no pending writes. Rounds
alternate between the candidates. Then the script measures the job on one host, and on two hosts, with one core per
host. It uses all rows, and also a few rows, to show the cost of the start. Two hosts use a Dask cluster with TLS, as on
the process runtime. On a busy machine, put `chrt --fifo 1` before the command, as root. Needs three times
`--megabytes` of disk space; scikit-learn needs about four times `--megabytes` of memory.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import harness
from harness import Result, Usage

from microjobs.contract import (
    Layout,
    ResourceConfig,
    write_job_certificate,
    write_job_secret,
    write_processing_resource_config,
)
from microjobs_orchestrator.local.certificates import make_certificate
from microjobs_orchestrator.local.runtimes.process.addresses import reserve

FEATURES = 13
HOSTS = ("algo-1", "algo-2")
FEW_ROWS = 1_000


@dataclass(frozen=True)
class HostsUsage:
    """Seconds until all hosts have ended, and seconds of processor time of the first host."""

    seconds: float
    processor_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--without-scikit-learn", action="store_true", help="for machines with too little memory")
    parser.add_argument("--only-hosts", action="store_true", help="compare only one host with two hosts")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--folder", type=Path, help="for the arrays (default: the folder for temporary files)")
    options = parser.parse_args()
    rows = options.megabytes * 1_000_000 // (FEATURES * 8)
    if not options.only_hosts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            report(measure_one_host(Path(folder), rows, options), rows, markdown=options.markdown)
    for count in (FEW_ROWS, rows):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            report_hosts(measure_pinned_hosts(Path(folder), count, options.runs), count, markdown=options.markdown)


def measure_one_host(folder: Path, rows: int, options: argparse.Namespace) -> dict[str, list[Usage]]:
    layout = Layout(folder)
    source, output = layout.processing("input"), layout.processing("train")
    write_arrays(source, rows, shard_count=1)
    command, environment = harness.make_job_command("preprocess", layout.root)
    files = sorted(source.iterdir())
    candidates = {
        "preprocess": lambda: harness.measure(command, environment),
        "preprocess, start only (--help)": lambda: harness.measure([*command, "--help"], environment),
        "copy of the files (cp)": lambda: harness.measure(["cp", *files, output]),
    }
    if not options.without_scikit_learn:
        python = harness.create_peer_environment("scikit-learn")
        script = harness.PEERS / "standard_scaler.py"
        candidates["scikit-learn in memory"] = lambda: harness.measure([python, script, source, output])
    prepared_candidates = {name: with_clean_state(run, files, [output]) for name, run in candidates.items()}
    return harness.run_interleaved(prepared_candidates, options.runs)


def measure_pinned_hosts(folder: Path, rows: int, runs: int) -> dict[str, list[HostsUsage]]:
    """Measure the job on one host and on two hosts, each pinned to one core. The input is divided into two shards."""
    write_arrays(folder / "shards", rows, shard_count=2)
    shards = sorted((folder / "shards").iterdir())
    certificate = make_certificate("bench")
    candidates = {}
    for names in (HOSTS[:1], HOSTS):
        layouts = {name: Layout(folder / f"{len(names)}" / name) for name in names}
        for number, (name, layout) in enumerate(layouts.items()):
            layout.processing("input").mkdir(parents=True)
            write_processing_resource_config(layout, ResourceConfig(name, names))
            write_job_secret(layout, "00" * 32)
            write_job_certificate(layout, *certificate)
            for path in shards:
                if len(names) == 1 or f"-{number:05}-of" in path.name:
                    os.link(path, layout.processing("input") / path.name)
        outputs = [layout.processing("train") for layout in layouts.values()]
        hosts = "1 host" if len(names) == 1 else f"{len(names)} hosts"
        candidates[f"{hosts} with one core each"] = with_clean_state(make_hosts_run(layouts), shards, outputs)
    return harness.run_interleaved(candidates, runs)


def make_hosts_run(layouts: Mapping[str, Layout]) -> Callable[[], HostsUsage]:
    """Return a function that runs hosts as the process runtime does, one process per host, each pinned to one core."""

    def run() -> HostsUsage:
        with reserve(list(layouts)) as (network, _):
            commands = []
            for core, (name, layout) in enumerate(layouts.items()):
                command, environment = harness.make_job_command("preprocess", layout.root)
                environment |= replace(network, address=network.resolve(name)).make_variables()
                variables = [f"{variable}={value}" for variable, value in environment.items()]
                commands.append(["taskset", "--cpu-list", str(core), "env", *variables, *command])
            return HostsUsage(*harness.measure_together(commands))

    return run


def write_arrays(folder: Path, rows: int, shard_count: int) -> None:
    script = harness.REPOSITORY / "bench" / "make_data.py"
    environment = {"PYTHONPATH": str(harness.REPOSITORY / "shared")}
    harness.measure(
        [sys.executable, script, "arrays", folder, "train", str(rows), "float64", str(shard_count)], environment
    )


def with_clean_state(run: Callable[[], Result], files: Sequence[Path], outputs: Sequence[Path]) -> Callable[[], Result]:
    """Return a function that first empties the outputs, reads the inputs into the page cache and syncs the disk."""

    def measure() -> Result:
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


def report(results: dict[str, list[Usage]], rows: int, *, markdown: bool) -> None:
    baseline = harness.compute_median_seconds(results["preprocess"])
    lines = [
        [
            name,
            f"{harness.compute_median_seconds(runs):.2f} s",
            f"{harness.compute_median_seconds(runs) / baseline:.2f}x",
            f"{min(run.seconds for run in runs):.2f}-{max(run.seconds for run in runs):.2f} s",
            f"{harness.find_peak_bytes(runs) / 1e6:.0f} MB" if harness.find_peak_bytes(runs) else "",
        ]
        for name, runs in results.items()
    ]
    print_report(["", "median", "ratio to preprocess", "range", "peak memory"], lines, rows, markdown=markdown)


def report_hosts(results: dict[str, list[HostsUsage]], rows: int, *, markdown: bool) -> None:
    medians = {name: statistics.median(run.seconds for run in runs) for name, runs in results.items()}
    one_host = next(iter(medians.values()))
    lines = [
        [
            name,
            f"{medians[name]:.2f} s",
            f"{medians[name] / one_host:.2f}x",
            f"{min(run.seconds for run in runs):.2f}-{max(run.seconds for run in runs):.2f} s",
            f"{statistics.median(run.processor_seconds for run in runs):.2f} s",
        ]
        for name, runs in results.items()
    ]
    print_report(
        ["", "median", "ratio to one host", "range", "processor time, first host"], lines, rows, markdown=markdown
    )


def print_report(head: Sequence[str], lines: Sequence[Sequence[str]], rows: int, *, markdown: bool) -> None:
    size = rows * FEATURES * 8 / 1e6
    lock = harness.REPOSITORY / "containers" / "preprocess" / "cpu.lock"
    shared = harness.REPOSITORY / "shared" / "requirements.lock"
    tools = f"{harness.format_versions(shared, 'numpy')}, {harness.format_versions(lock, 'scikit-learn')}"
    title = f"Standard scaling of {rows:,} x {FEATURES} doubles ({size:,.1f} MB); {harness.describe_machine()}, {tools}"
    harness.print_table(title, head, lines, markdown=markdown)


if __name__ == "__main__":
    main()
