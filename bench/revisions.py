"""Compares this work tree with another revision of the project: jobs, a large channel, requests, and the serve job.

    uv run python bench/revisions.py 5a4b31d [--rounds 15]

Both revisions run at the same time, and the measurements alternate. Jobs are measured in seconds. Requests are measured
in processor time of the server, because it depends less on other load. Prints the median and the quartiles of each
ratio: the value of this work tree, divided by the value of the other revision. Below 1, this work tree is faster.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
import channel
import overhead
from harness import REPOSITORY, run_interleaved
from serve_servers import Workspace, find_free_port, list_session_members, make_bundle

from microjobs_orchestrator.local.control import Address

REQUESTS = 500
BODY = json.dumps({"instances": [[0.5] * 13] * 10}).encode()
GB = 10**9
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

MeasureFunctions = Mapping[str, Callable[[], float]]
"""Functions that measure one work tree, by the name of the measurement."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--base", default="microjobs/serve:dev", help="an image of the engine (default: %(default)s)")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(overhead.temporary_image(options.base))
        stack.enter_context(overhead.temporary_image(options.base, channel.IMAGE, "/bin/sh", "-c", channel.SCRIPT))
        make_bundle(folder / "root" / "model")
        trees = {
            "this": REPOSITORY,
            "other": stack.enter_context(check_out(options.revision, folder / "checkout")),
        }
        functions_by_tree = {name: start_servers(tree, folder, name, stack) for name, tree in trees.items()}
        for measurement in functions_by_tree["this"]:
            compare(measurement, functions_by_tree, options.rounds)


def compare(measurement: str, functions_by_tree: Mapping[str, MeasureFunctions], rounds: int) -> None:
    """Measure both work trees in alternating rounds, and print the ratios."""
    candidates = {tree: functions[measurement] for tree, functions in functions_by_tree.items()}
    run_interleaved(candidates, 1)  # the first round warms the servers up
    results = run_interleaved(candidates, rounds)
    ratios = [this / other for this, other in zip(results["this"], results["other"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"{measurement:32} {median:5.2f}  ({low:.2f}-{high:.2f})", flush=True)


@contextmanager
def check_out(revision: str, folder: Path) -> Iterator[Path]:
    """Check a revision out into a folder, with a virtual environment of its own. The folder exists during the block."""
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        subprocess.run(["uv", "sync", "--quiet"], cwd=folder, check=True)
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def start_servers(tree: Path, folder: Path, name: str, stack: ExitStack) -> MeasureFunctions:
    """Start the local server and the serve job of a work tree. Return functions that measure them, by name."""
    home = folder / name
    home.mkdir()
    address, pid = stack.enter_context(run_local_server(tree, home))
    clients = {service: make_client(service, address) for service in ("sagemaker", "s3")}
    fill_bucket(home / ".microjobs" / "s3" / address.bucket / "train")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{address.bucket}/train/"}
    input_data = [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}]
    algorithm = {"TrainingImage": channel.IMAGE, "TrainingInputMode": "File"}
    location = {"Bucket": address.bucket, "Key": "key"}
    clients["s3"].put_object(**location, Body=bytes(1000))
    measure_local_server, measure_serve = partial(measure_cpu, [pid]), start_serve(tree, folder, stack)
    return {
        "no-op job, s": overhead.make_training_job_timer(address),
        "job with a channel of 1 GB, s": overhead.make_training_job_timer(
            address, AlgorithmSpecification=algorithm, InputDataConfig=input_data
        ),
        "GetObject of 1 kB, CPU": lambda: measure_local_server(
            lambda: clients["s3"].get_object(**location)["Body"].read()
        ),
        "PutObject of 1 kB, CPU": lambda: measure_local_server(
            lambda: clients["s3"].put_object(**location, Body=bytes(1000))
        ),
        "ListTrainingJobs, CPU": lambda: measure_local_server(clients["sagemaker"].list_training_jobs),
        "serve: JSON, 10 rows, CPU": measure_serve,
    }


@contextmanager
def run_local_server(tree: Path, folder: Path) -> Iterator[tuple[Address, int]]:
    """Run the local server of a work tree in a folder. Yield its address and its process ID."""
    command = str(tree / ".venv" / "bin" / "microjobs")
    subprocess.run(
        [command, "local", "up", "--detach", "--port", "0", "--runtime", "docker"],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        server = json.loads((folder / ".microjobs" / "server.json").read_text())
        exports = subprocess.run([command, "local", "env"], cwd=folder, check=True, capture_output=True, text=True)
        variables = dict(word.split("=", 1) for word in shlex.split(exports.stdout) if "=" in word)
        yield (
            Address(
                **{key: server[key] for key in ("url", "region", "runtime", "why", "pid")},
                access_key_id=variables["AWS_ACCESS_KEY_ID"],
                secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
                bucket=f"sagemaker-{server['region']}-000000000000",
                role_arn="arn:aws:iam::000000000000:role/microjobs",
            ),
            server["pid"],
        )
    finally:
        subprocess.run([command, "local", "down"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def make_client(service: Any, address: Address) -> Any:
    return boto3.client(
        service,
        endpoint_url=address.url,
        region_name=address.region,
        aws_access_key_id=address.access_key_id,
        aws_secret_access_key=address.secret_access_key,
    )


def fill_bucket(folder: Path) -> None:
    channel.write_objects(folder, GB)


def start_serve(tree: Path, folder: Path, stack: ExitStack) -> Callable[[], float]:
    """Start the serve job of `tree`, with the packages of the work tree of this program. Return a function that
    measures the job."""
    workspace, port = Workspace(folder, stack), find_free_port()
    server = workspace.start(
        f"serve of {tree.name}",
        [workspace.create_environment("ours"), "-m", "microjobs", "serve"],
        port,
        PYTHONPATH=str(tree / "shared"),
        MICROJOBS_JOB=str(tree / "containers" / "serve"),
        SAGEMAKER_BASE_DIR=str(folder / "root"),
        SAGEMAKER_BIND_TO_PORT=str(port),
        SAGEMAKER_MODEL_SERVER_WORKERS="1",
    )
    connection = HTTPConnection("127.0.0.1", port)

    def invoke() -> None:
        connection.request("POST", "/invocations", BODY, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            sys.exit(f"serve responds with {response.status}: {response.read()[:500]!r}")
        response.read()

    return lambda: measure_cpu(list_session_members(server.pid), invoke, count=10 * REQUESTS)


def measure_cpu(process_ids: list[int], request: Callable[[], object], count: int = REQUESTS) -> float:
    """Return the processor time, in seconds, that processes take for a number of requests."""
    initial_seconds = sum(map(read_cpu_seconds, process_ids))
    for _ in range(count):
        request()
    return sum(map(read_cpu_seconds, process_ids)) - initial_seconds


def read_cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


if __name__ == "__main__":
    main()
