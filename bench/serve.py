"""Compares the serve job with other servers: requests per second, latency, parsing, startup, memory under load.

    uv run python bench/serve.py [--seconds 2] [--rounds 7] [--starts 7] [--servers ours static bare fastapi flask mms]
    uv run python bench/serve.py --memory 600     # only ours, under load for ten minutes: memory over time

Each server runs one worker on one core, and wrk runs on the other core with 8 connections. All serve the same model.
Rounds alternate between the servers, so that other load on the machine affects all of them. Only one server runs at a
time, because some are busy even without requests. The output has the median of each server and its ratio to ours.
"""

import argparse
import io
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import serve_parsing
import serve_start
from harness import run_interleaved
from serve_servers import FEATURES, SERVERS, Server, Workspace, make_bundle, require_programs, send_signal

CLIENT_CORE = "1"
CONNECTIONS = "8"
SCRIPT = """function init(args)
  local file = io.open(args[1], "rb"); wrk.body = file:read("*a"); file:close()
  wrk.method = "POST"; wrk.headers["Content-Type"] = args[2]
end
"""
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Load:
    """One kind of request."""

    name: str
    content_type: str
    body: bytes


@dataclass
class Measurements:
    """Results of all rounds with one server and one load."""

    rates: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


Results = Mapping[tuple[str, str], Measurements]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2, help="duration of each measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--memory", type=int, default=0, metavar="SECONDS")
    options = parser.parse_args()
    require_programs(
        "wrk",
        "taskset",
        *(["nginx"] if "flask" in options.servers else []),
        *(["java"] if "mms" in options.servers else []),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped, too
    with ExitStack() as stack:
        workspace = Workspace(Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
        make_bundle(workspace.folder / "root" / "model")
        if options.memory:
            print_memory(SERVERS["ours"](workspace), workspace.folder, options.memory)
            return
        startups = measure_startups(options.servers, workspace.folder, options.starts)
        servers = [SERVERS[name](workspace) for name in options.servers]
        serve_start.report(workspace.folder / "root")
        results = measure(servers, make_loads(), workspace.folder, options.seconds, options.rounds)
    report(servers, results, startups)
    serve_parsing.report()


def measure_startups(names: Sequence[str], folder: Path, starts: int) -> list[float]:
    """Return the median startup time of each server in seconds. The starts alternate between the servers."""

    def start(name: str) -> float:
        with ExitStack() as stack:
            return SERVERS[name](Workspace(folder, stack)).startup_seconds

    seconds = run_interleaved({name: partial(start, name) for name in names}, starts)
    return [statistics.median(times) for times in seconds.values()]


def make_loads() -> list[Load]:
    few, many = make_rows(10), make_rows(1000)
    csv = "".join(",".join(map(str, row)) + "\n" for row in few.tolist())
    npy = io.BytesIO()
    np.save(npy, many.astype(np.float32))
    return [
        Load("JSON 10", "application/json", json.dumps({"instances": few.tolist()}).encode()),
        Load("CSV 10", "text/csv", csv.encode()),
        Load("npy 1,000", "application/x-npy", npy.getvalue()),
        Load("JSON 1,000", "application/json", json.dumps({"instances": many.tolist()}).encode()),
    ]


def make_rows(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    drawn: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.random.default_rng(1).normal(size=(number, FEATURES))
    return drawn.round(4)


def measure(servers: Sequence[Server], loads: Sequence[Load], folder: Path, seconds: int, rounds: int) -> Results:
    results = {(server.name, load.name): Measurements() for server in servers for load in loads}
    for server in servers:
        send_signal(server.pid, signal.SIGSTOP)
    for load in loads:
        for server in servers:  # the Java virtual machine is four times slower in its first second
            run_alone(server, load, folder, 3 if "MMS" in server.name else 1)
        for _ in range(rounds):
            for server in servers:
                rate, p99 = run_alone(server, load, folder, seconds)
                results[server.name, load.name].rates.append(rate)
                results[server.name, load.name].p99.append(p99)
    return results


def run_alone(server: Server, load: Load, folder: Path, seconds: int) -> tuple[float, float]:
    """Return the result of `wrk` for a server; resume the server before and pause it afterwards."""
    send_signal(server.pid, signal.SIGCONT)
    try:
        return run_wrk(server, load, folder, seconds)
    finally:
        send_signal(server.pid, signal.SIGSTOP)


def run_wrk(server: Server, load: Load, folder: Path, seconds: int) -> tuple[float, float]:
    """Return the requests per second, and the 99th percentile of the latency in milliseconds."""
    script, body = folder / "post.lua", folder / "body"
    script.write_text(SCRIPT)
    body.write_bytes(load.body)
    pinned = ["taskset", "--cpu-list", CLIENT_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency"]
    url = f"http://127.0.0.1:{server.port}/invocations"
    command = [*pinned, "-s", str(script), url, "--", str(body), load.content_type]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"{server.name} failed on some requests of {load.name}:\n{output}")
    rate, p99 = re.search(r"Requests/sec: *([\d.]+)", output), re.search(r"99% +([\d.]+)(us|ms|s)", output)
    if rate is None or p99 is None:
        raise SystemExit(f"wrk printed an unexpected result:\n{output}")
    return float(rate[1]), float(p99[1]) * UNITS[p99[2]]


def report(servers: Sequence[Server], results: Results, startups: Sequence[float]) -> None:
    names = list(dict.fromkeys(load for _, load in results))
    print(f"\n{describe_machine()}\nRequests/s (ratio of ours to this server)\n")
    print("| server | " + " | ".join(names) + " | p99 ms, JSON 10 | startup s |")
    print("|---|" + "---|" * (len(names) + 2))
    for server, startup in zip(servers, startups, strict=True):
        cells = [format_cell(results[servers[0].name, name], results[server.name, name]) for name in names]
        p99 = statistics.median(results[server.name, names[0]].p99)
        print(f"| {server.name} | " + " | ".join(cells) + f" | {p99:.1f} | {startup:.2f} |")


def format_cell(ours: Measurements, other: Measurements) -> str:
    return f"{other.rate:,.0f} ({ours.rate / other.rate:.2f})"


def describe_machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}"


def print_memory(server: Server, folder: Path, seconds: int) -> None:
    """Print the memory of the server's worker under all kinds of load, one after the other."""
    loads, began = make_loads(), time.monotonic()
    worker = last_descendant(server.pid)
    while (passed := time.monotonic() - began) < seconds:
        run_wrk(server, loads[int(passed) % len(loads)], folder, 5)
        print(f"{time.monotonic() - began:6.0f} s  {private_megabytes(worker):7.1f} MB", flush=True)


def last_descendant(pid: int) -> int:
    """Return the worker: the job starts the main process, which starts the worker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return last_descendant(int(children[-1])) if children else pid


def private_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    main()
