"""Overhead of a training job that does nothing, compared with `docker run` of the same image.

    uv run python bench/overhead.py [--runs 11]

Each round measures `docker run IMAGE`, the local server (from CreateTrainingJob to Completed) and SageMaker SDK v2
local mode (from fit() to its return). Prints the median of each, and the ratio to `docker run`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import docker
from harness import REPOSITORY, run_interleaved

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home

LOCAL_MODE = Path(__file__).with_name("sdk_local_mode.py")
IMAGE = "microjobs-bench/no-op:dev"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--base", default="microjobs/serve:dev", help="an image of the engine (default: %(default)s)")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(temporary_image(options.base))
        address = stack.enter_context(run_local_server(folder))
        candidates = {
            "docker run": time_docker_run,
            "local server": make_training_job_timer(address),
            "SDK v2 local mode": stack.enter_context(start_local_mode(folder, address)),
        }
        run_interleaved(candidates, 1)  # the first round warms the candidates up
        times = run_interleaved(candidates, options.runs)
    report(times)


def report(times: Mapping[str, Sequence[float]]) -> None:
    baseline = statistics.median(times["docker run"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:18} {median:6.3f} s  {median / baseline:5.2f}x  ({min(seconds):.3f}-{max(seconds):.3f} s)")


@contextmanager
def temporary_image(base: str, image: str = IMAGE, *entrypoint: str) -> Iterator[None]:
    """Build an image whose entry point does nothing (or is `entrypoint`), and remove it after the block."""
    dockerfile = f"FROM {base}\nENTRYPOINT {json.dumps(entrypoint or ['/bin/true'])}\n"
    subprocess.run(["docker", "build", "--quiet", "--tag", image, "-"], input=dockerfile.encode(), check=True)
    try:
        yield
    finally:
        client = docker.from_env()
        # SDK local mode leaves its containers and its network.
        for container in client.containers.list(all=True, filters={"ancestor": image}):
            container.remove(force=True, v=True)
        for network in client.networks.list(names=["sagemaker-local"]):
            network.remove()
        client.images.remove(image, force=True)
        client.close()


@contextmanager
def run_local_server(folder: Path) -> Iterator[control.Address]:
    with control.use_server(Home(folder / "home"), Config(port=0, runtime="docker")) as address:
        yield address


def time_docker_run() -> float:
    start_time = time.perf_counter()
    subprocess.run(["docker", "run", "--rm", IMAGE, "train"], check=True)
    return time.perf_counter() - start_time


def make_training_job_timer(address: control.Address, **members: Any) -> Callable[[], float]:
    """Return a function that runs a training job and returns its seconds. `members` override those of the request."""
    client = boto3.client(
        "sagemaker",
        endpoint_url=address.url,
        region_name=address.region,
        aws_access_key_id=address.access_key_id,
        aws_secret_access_key=address.secret_access_key,
    )

    def run() -> float:
        name = f"no-op-{time.time_ns()}"
        start_time = time.perf_counter()
        client.create_training_job(**make_request(address, name) | members)
        while (status := client.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]) == "InProgress":
            time.sleep(0.005)
        seconds = time.perf_counter() - start_time
        if status != "Completed":
            sys.exit(f"the job is {status}")
        return seconds

    return run


def make_request(address: control.Address, name: str) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "RoleArn": address.role_arn,
        "OutputDataConfig": {"S3OutputPath": f"s3://{address.bucket}/bench"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 100},
    }


@contextmanager
def start_local_mode(
    folder: Path, address: control.Address, image: str = IMAGE, *channel_uri: str
) -> Iterator[Callable[[], float]]:
    """Start SDK local mode. Yield a function that calls fit() and returns its seconds."""
    with start_sdk_program(folder, address, str(LOCAL_MODE), image, *channel_uri) as send_line:
        yield lambda: send_line("fit")


@contextmanager
def start_sdk_program(folder: Path, address: control.Address, *command: str) -> Iterator[Callable[[str], float]]:
    """Start a program in the SDK's interpreter, once for all measurements, because importing the SDK takes seconds.

    Yield a function that sends a line to the program, and returns the seconds that the program prints.
    """
    python = create_sdk_environment(folder)
    # The SDK runs `docker-compose` if `docker compose version` does not print "v2"; Debian's prints "2.26.1-4".
    compose_program = folder / "docker-compose"
    compose_program.write_text('#!/bin/sh\nexec docker compose "$@"\n')
    compose_program.chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(folder),
        **control.make_environment(Home(folder / "home"), address),
    }
    process = subprocess.Popen(
        [python, "-W", "ignore", *command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def send_line(line: str) -> float:
        assert process.stdin is not None  # noqa: S101  both are pipes
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        for output in process.stdout:
            if output.startswith("seconds: "):
                return float(output.split()[1])
        sys.exit(f"the SDK's program ended: run {' '.join(command)} alone to see its error")

    try:
        yield send_line
    finally:
        process.communicate()


def create_sdk_environment(folder: Path) -> Path:
    """Create a virtual environment with the lock of the client tests, and return its interpreter."""
    uv = shutil.which("uv") or sys.exit("uv is not installed (`make setup` installs it): it installs the SDK")
    python = folder / "sdk" / "bin" / "python"
    lock = REPOSITORY / "tests" / "clients" / "sdk.lock"
    subprocess.run([uv, "venv", "--quiet", "--python", "3.11", folder / "sdk"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock], check=True)
    return python


if __name__ == "__main__":
    main()
