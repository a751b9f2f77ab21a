"""Start of a Dask cluster on two hosts (`with-dask`), compared with the same script without a cluster.

    uv run python bench/dask_start.py [--runs 5] [--markdown]

The hosts are processes on this machine with TLS, as on the process runtime, and each has one core. The script imports
Dask, which takes a quarter of a second. With a cluster, it also connects, and runs one task on each worker. The cost of
the cluster is the difference. On a busy machine, put `chrt --fifo 1` before the command, as root.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import harness

from microjobs.contract import (
    Layout,
    ResourceConfig,
    write_job_certificate,
    write_job_secret,
    write_processing_resource_config,
)
from microjobs_orchestrator.local.certificates import make_certificate
from microjobs_orchestrator.local.runtimes.process.addresses import reserve

HOSTS = ("algo-1", "algo-2")
IMPORT = "import dask.distributed\n"
CONNECT = """
client = dask.distributed.Client()
assert len(client.run(int)) == 2
"""
SECRET = "00" * 32


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds from start to end, and seconds of processor time of the first host's processes."""

    total_seconds: float
    processor_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        layouts = [Layout(Path(folder) / name) for name in HOSTS]
        certificate = make_certificate("bench")
        for name, layout in zip(HOSTS, layouts, strict=True):
            write_processing_resource_config(layout, ResourceConfig(name, HOSTS))
            write_job_secret(layout, SECRET)
            write_job_certificate(layout, *certificate)
        candidates = {
            "script without a cluster": lambda: run([[sys.executable, "-c", IMPORT]]),
            "with-dask, 2 hosts with one core each": lambda: run_hosts(layouts),
        }
        results = harness.run_interleaved(candidates, options.runs)
    report(results, markdown=options.markdown)


def run_hosts(layouts: Sequence[Layout]) -> Times:
    with reserve(HOSTS) as (network, _):
        commands = []
        for name, layout in zip(HOSTS, layouts, strict=True):
            command, environment = harness.make_job_command("preprocess", layout.root)
            environment |= dataclasses.replace(network, address=network.resolve(name)).make_variables()
            variables = [f"{name}={value}" for name, value in environment.items()]
            commands.append(["env", *variables, *command, "with-dask", sys.executable, "-c", IMPORT + CONNECT])
        return run(commands)


def run(commands: Sequence[Sequence[str]]) -> Times:
    """Run one command per host, each pinned to one core."""
    pinned_commands = [["taskset", "--cpu-list", str(core), *command] for core, command in enumerate(commands)]
    return Times(*harness.measure_together(pinned_commands))


def report(results: dict[str, list[Times]], *, markdown: bool) -> None:
    medians = {
        name: [
            statistics.median(run_times.total_seconds for run_times in times),
            statistics.median(run_times.processor_seconds for run_times in times),
        ]
        for name, times in results.items()
    }
    baseline = next(iter(medians.values()))
    rows = [
        [
            name,
            f"{total_seconds:.2f} s",
            f"{total_seconds - baseline[0]:+.2f} s",
            f"{processor_seconds:.2f} s",
            f"{processor_seconds - baseline[1]:+.2f} s",
        ]
        for name, (total_seconds, processor_seconds) in medians.items()
    ]
    lock = harness.REPOSITORY / "containers" / "preprocess" / "cpu.lock"
    title = f"Start of a Dask cluster; {harness.describe_machine()}, {harness.format_versions(lock, 'distributed')}"
    head = ["", "median", "difference", "processor time, first host", "difference"]
    harness.print_table(title, head, rows, markdown=markdown)


if __name__ == "__main__":
    main()
