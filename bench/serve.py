"""Compares the serve job with other servers: requests per second, latency, parsing, startup, memory under load.

    uv run python bench/serve.py [--seconds 2] [--rounds 7] [--starts 7] [--models tiny slow]
        [--servers ours static bare fastapi flask mms mosec litserve bentoml triton]
    uv run python bench/serve.py --memory 600     # only ours, under load for ten minutes: memory over time

Each server runs one worker on one core, and wrk runs on the other core with 8 connections. All serve the same model.
Rounds alternate between the servers, so that other load on the machine affects all of them. While one server is
measured, the others are paused, because some are busy even without requests; only Triton cannot be paused. The output
has the medians of each server, and the medians of the rounds' ratios to ours: requests per second and the 99th
percentile of the latency, for each model. The slow model also runs alone in each round. The ratio of a server's rate to
the model's rate is the share of the core that the model gets.
"""

import argparse
import itertools
import operator
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import serve_parsing
import serve_start
from harness import run_interleaved
from serve_peers import SERVERS
from serve_servers import (
    CSV,
    JSON,
    JSON_LINES,
    MODELS,
    NPY,
    Load,
    Server,
    Workspace,
    make_bundle,
    make_load,
    require_programs,
    send_signal,
)

CLIENT_CORE = "1"
CONNECTIONS = "8"
SCRIPT = """function init(args)
  local file = io.open(args[1], "rb"); wrk.body = file:read("*a"); file:close()
  wrk.method = "POST"
  for index = 2, #args, 2 do wrk.headers[args[index]] = args[index + 1] end
end
"""
MILLISECONDS_BY_UNIT = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass
class Measurements:
    """Results of all rounds with one server and one load. Latencies are in milliseconds."""

    rates: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    model_rates: list[float] = field(default_factory=list)
    """Requests per second that the model alone could answer in each round; empty for the tiny model."""

    @property
    def median_rate(self) -> float:
        """The median of the requests per second."""
        return statistics.median(self.rates)

    @property
    def median_p99(self) -> float:
        """The median of the 99th percentiles."""
        return statistics.median(self.p99)


Results = Mapping[tuple[str, str], Measurements]
"""Measurements by the names of a server and a load."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2, help="duration of each measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--memory", type=int, default=0, metavar="SECONDS")
    options = parser.parse_args()
    require_programs(
        "wrk",
        "taskset",
        *(["nginx"] if "flask" in options.servers else []),
        *(["java"] if "mms" in options.servers else []),
    )
    # on SIGTERM, this script exits with an exception, so that the servers are stopped, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        workspace = Workspace(Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
        for model in options.models:
            measure_model(replace(workspace, model=model), options)
    if not options.memory:
        serve_parsing.report()


def measure_model(workspace: Workspace, options: argparse.Namespace) -> None:
    """Print the tables of one model, or the memory of our server with it."""
    make_bundle(workspace.root / "model", MODELS[workspace.model])
    with ExitStack() as stack:
        model_workspace = replace(workspace, stack=stack)
        if options.memory:
            print_memory(SERVERS["ours"](model_workspace), workspace, options.memory)
            return
        startups = measure_startups(options.servers, workspace, options.starts)
        servers = [SERVERS[name](model_workspace) for name in options.servers]
        if workspace.model == "tiny":
            serve_start.report(workspace.root)
        results = measure(servers, make_loads(workspace.model), workspace, options.seconds, options.rounds)
    report(workspace.model, servers, results, startups)


def measure_startups(names: Sequence[str], workspace: Workspace, starts: int) -> list[float]:
    """Return the median startup time of each server in seconds. The starts alternate between the servers."""

    def start(name: str) -> float:
        with ExitStack() as stack:
            return SERVERS[name](replace(workspace, stack=stack)).startup_seconds

    seconds = run_interleaved({name: partial(start, name) for name in names}, starts)
    return [statistics.median(times) for times in seconds.values()]


def make_loads(model: str) -> list[Load]:
    ten_rows = {"JSON 10": JSON, "CSV 10": CSV, "JSON lines 10": JSON_LINES, "npy 10": NPY}
    loads = [make_load(name, content_type, 10) for name, content_type in ten_rows.items()]
    thousand_rows = {"npy 1,000": NPY, "JSON 1,000": JSON} if model == "tiny" else {}
    return loads + [make_load(name, content_type, 1000) for name, content_type in thousand_rows.items()]


def measure(
    servers: Sequence[Server], loads: Sequence[Load], workspace: Workspace, seconds: int, rounds: int
) -> Results:
    folder = workspace.folder
    results = {
        (server.name, load.name): Measurements()
        for server in servers
        for load in loads
        if server.adapt(load) is not None
    }
    for server in servers:
        pause(server)
    for load in loads:
        supporting_servers = [server for server in servers if (server.name, load.name) in results]
        for server in supporting_servers:  # the Java virtual machine is four times slower in its first second
            run_alone(server, load, folder, seconds=3 if "MMS" in server.name else 1)
        measurements = {server: results[server.name, load.name] for server in supporting_servers}
        for _ in range(rounds):
            measure_round(measurements, load, workspace, seconds)
    return results


def measure_round(measurements: Mapping[Server, Measurements], load: Load, workspace: Workspace, seconds: int) -> None:
    for server, server_measurements in measurements.items():
        rate, p99 = run_alone(server, load, workspace.folder, seconds)
        server_measurements.rates.append(rate)
        server_measurements.p99.append(p99)
    if workspace.model == "slow":
        model_rate = workspace.run_model(seconds)
        for server_measurements in measurements.values():
            server_measurements.model_rates.append(model_rate)


def pause(server: Server) -> None:
    if server.can_pause:
        send_signal(server.pid, signal.SIGSTOP)


def run_alone(server: Server, load: Load, folder: Path, seconds: int) -> tuple[float, float]:
    """Return the result of `wrk` for a server; resume the server before and pause it afterwards."""
    send_signal(server.pid, signal.SIGCONT)
    try:
        return run_wrk(server, load, folder, seconds)
    finally:
        pause(server)


def run_wrk(server: Server, load: Load, folder: Path, seconds: int) -> tuple[float, float]:
    """Return the requests per second, and the 99th percentile of the latency in milliseconds."""
    script, body, request = folder / "post.lua", folder / "body", server.adapt(load)
    if request is None:
        raise ValueError(f"{server.name} does not support {load.name}")
    script.write_text(SCRIPT)
    body.write_bytes(request.body)
    headers = itertools.chain(*({"Content-Type": request.content_type} | dict(request.headers)).items())
    pinned_command = [
        "taskset",
        "--cpu-list",
        CLIENT_CORE,
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}",
        "--latency",
    ]
    url = f"http://127.0.0.1:{server.port}{request.path}"
    command = [*pinned_command, "-s", str(script), url, "--", str(body), *headers]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    output = process.stdout + process.stderr
    if process.returncode or "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"{server.name} failed on some requests of {load.name}:\n{output}")
    rate, p99 = re.search(r"Requests/sec: *([\d.]+)", output), re.search(r"99% +([\d.]+)(us|ms|s)", output)
    if rate is None or p99 is None:
        raise SystemExit(f"wrk printed an unexpected result:\n{output}")
    return float(rate[1]), float(p99[1]) * MILLISECONDS_BY_UNIT[p99[2]]


def report(model: str, servers: Sequence[Server], results: Results, startups: Sequence[float]) -> None:
    load_names = list(dict.fromkeys(load_name for _, load_name in results))
    print(f"\n{describe_machine()}, model {model}")
    print_table("Requests/s (ratio of ours to this server)", servers, load_names, results, format_rate, startups)
    print_table("p99 in ms (ratio of this server to ours)", servers, load_names, results, format_latency, startups)
    if model == "slow":
        print_table("Rate divided by that of the model alone", servers, load_names, results, format_share, startups)


def print_table(
    title: str,
    servers: Sequence[Server],
    load_names: Sequence[str],
    results: Results,
    format_cell: Callable[[Measurements, Measurements], str],
    startups: Sequence[float],
) -> None:
    print(f"\n{title}\n\n| server | {' | '.join(load_names)} | startup s |")
    print("|---|" + "---:|" * (len(load_names) + 1))
    for server, startup in zip(servers, startups, strict=True):
        pairs = [(results[servers[0].name, name], results.get((server.name, name))) for name in load_names]
        cells = [format_cell(ours, other) if other else "" for ours, other in pairs]
        print(f"| {server.name} | {' | '.join(cells)} | {startup:.2f} |")


def format_rate(ours: Measurements, other: Measurements) -> str:
    ratios = [our_rate / rate for our_rate, rate in zip(ours.rates, other.rates, strict=True)]
    return f"{other.median_rate:,.0f} ({statistics.median(ratios):.2f})"


def format_latency(ours: Measurements, other: Measurements) -> str:
    ratios = [p99 / our_p99 for our_p99, p99 in zip(ours.p99, other.p99, strict=True)]
    return f"{other.median_p99:.1f} ({statistics.median(ratios):.2f})"


def format_share(_ours: Measurements, other: Measurements) -> str:
    return f"{statistics.median(map(operator.truediv, other.rates, other.model_rates)):.3f}"


def describe_machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}"


def print_memory(server: Server, workspace: Workspace, seconds: int) -> None:
    """Print the memory of the server's worker under all kinds of load, one after the other."""
    loads, start_time = make_loads(workspace.model), time.monotonic()
    worker = find_last_descendant(server.pid)
    while (passed := time.monotonic() - start_time) < seconds:
        run_wrk(server, loads[int(passed) % len(loads)], workspace.folder, 5)
        print(f"{time.monotonic() - start_time:6.0f} s  {read_private_megabytes(worker):7.1f} MB", flush=True)


def find_last_descendant(pid: int) -> int:
    """Return the process ID of the worker: the job starts the main process, which starts the worker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return find_last_descendant(int(children[-1])) if children else pid


def read_private_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    main()
