"""Our serve job beside its peers: requests a second, the slowest of a hundred, parsing, the start, memory under load.

    uv run python bench/serve.py [--seconds 2] [--rounds 7] [--starts 7] [--sides ours static bare fastapi flask mms]
    uv run python bench/serve.py --memory 600     # ours alone, under load for ten minutes: how its memory grows

Each server runs one worker on one core, wrk on the other, 8 connections, and all serve the same model. Rounds
alternate between the servers, so that a busy moment hits all alike, and the others are stopped meanwhile: some are busy
without requests too. A median of each is printed with its ratio to ours.
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
from serve_sides import FEATURES, SIDES, Side, Workplace, make_bundle, need, tell

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
class Measured:
    """What the rounds of one side and one load gave."""

    rates: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


Results = Mapping[tuple[str, str], Measured]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--memory", type=int, default=0, metavar="SECONDS")
    options = parser.parse_args()
    need(
        "wrk",
        "taskset",
        *(["nginx"] if "flask" in options.sides else []),
        *(["java"] if "mms" in options.sides else []),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with us
    with ExitStack() as stack:
        place = Workplace(Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
        make_bundle(place.folder / "root" / "model")
        if options.memory:
            memory(SIDES["ours"](place), place.folder, options.memory)
            return
        pings = first_pings(options.sides, place.folder, options.starts)
        sides = [SIDES[name](place) for name in options.sides]
        serve_start.report(place.folder / "root")
        results = measure(sides, loads(), place.folder, options.seconds, options.rounds)
    report(sides, results, pings)
    serve_parsing.report()


def first_pings(names: Sequence[str], folder: Path, starts: int) -> list[float]:
    """Median seconds from each server's start to its first 200 on /ping, started in turns."""

    def first_ping(name: str) -> float:
        with ExitStack() as stack:
            return SIDES[name](Workplace(folder, stack)).first_ping

    seconds = run_interleaved({name: partial(first_ping, name) for name in names}, starts)
    return [statistics.median(taken) for taken in seconds.values()]


def loads() -> list[Load]:
    few, many = rows(10), rows(1000)
    csv = "".join(",".join(map(str, row)) + "\n" for row in few.tolist())
    npy = io.BytesIO()
    np.save(npy, many.astype(np.float32))
    return [
        Load("JSON 10", "application/json", json.dumps({"instances": few.tolist()}).encode()),
        Load("CSV 10", "text/csv", csv.encode()),
        Load("npy 1,000", "application/x-npy", npy.getvalue()),
        Load("JSON 1,000", "application/json", json.dumps({"instances": many.tolist()}).encode()),
    ]


def rows(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    drawn: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.random.default_rng(1).normal(size=(number, FEATURES))
    return drawn.round(4)


def measure(sides: Sequence[Side], kinds: Sequence[Load], folder: Path, seconds: int, rounds: int) -> Results:
    results = {(side.name, load.name): Measured() for side in sides for load in kinds}
    for side in sides:
        tell(side.pid, signal.SIGSTOP)
    for load in kinds:
        for side in sides:  # a virtual machine for Java is four times slower in its first second
            alone(side, load, folder, 3 if "MMS" in side.name else 1)
        for _ in range(rounds):
            for side in sides:
                rate, p99 = alone(side, load, folder, seconds)
                results[side.name, load.name].rates.append(rate)
                results[side.name, load.name].p99.append(p99)
    return results


def alone(side: Side, load: Load, folder: Path, seconds: int) -> tuple[float, float]:
    """What `wrk` says of a server that is stopped otherwise."""
    tell(side.pid, signal.SIGCONT)
    try:
        return wrk(side, load, folder, seconds)
    finally:
        tell(side.pid, signal.SIGSTOP)


def wrk(side: Side, load: Load, folder: Path, seconds: int) -> tuple[float, float]:
    """Requests a second, and the milliseconds below which 99 of 100 answers came."""
    script, body = folder / "post.lua", folder / "body"
    script.write_text(SCRIPT)
    body.write_bytes(load.body)
    pinned = ["taskset", "--cpu-list", CLIENT_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency"]
    url = f"http://127.0.0.1:{side.port}/invocations"
    command = [*pinned, "-s", str(script), url, "--", str(body), load.content_type]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"{side.name} did not answer all of {load.name}:\n{told}")
    rate, p99 = re.search(r"Requests/sec: *([\d.]+)", told), re.search(r"99% +([\d.]+)(us|ms|s)", told)
    if rate is None or p99 is None:
        raise SystemExit(f"wrk said something else than expected:\n{told}")
    return float(rate[1]), float(p99[1]) * UNITS[p99[2]]


def report(sides: Sequence[Side], results: Results, pings: Sequence[float]) -> None:
    kinds = list(dict.fromkeys(load for _, load in results))
    print(f"\n{machine()}\nRequests/s, in brackets ours to it\n")
    print("| server | " + " | ".join(kinds) + " | p99 ms, JSON 10 | first ping s |")
    print("|---|" + "---|" * (len(kinds) + 2))
    for side, ping in zip(sides, pings, strict=True):
        cells = [cell(results[sides[0].name, kind], results[side.name, kind]) for kind in kinds]
        p99 = statistics.median(results[side.name, kinds[0]].p99)
        print(f"| {side.name} | " + " | ".join(cells) + f" | {p99:.1f} | {ping:.2f} |")


def cell(ours: Measured, side: Measured) -> str:
    return f"{side.rate:,.0f} ({ours.rate / side.rate:.2f})"


def machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}"


def memory(side: Side, folder: Path, seconds: int) -> None:
    """The memory of the server's worker while all kinds of requests come in turns."""
    kinds, began = loads(), time.monotonic()
    worker = youngest(side.pid)
    while (passed := time.monotonic() - began) < seconds:
        wrk(side, kinds[int(passed) % len(kinds)], folder, 5)
        print(f"{time.monotonic() - began:6.0f} s  {private_megabytes(worker):7.1f} MB", flush=True)


def youngest(pid: int) -> int:
    """The last process of a line of first children: job, main process, worker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return youngest(int(children[-1])) if children else pid


def private_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    main()
