"""Time from `docker run` to the first response to /ping, compared with `docker run` of a command that does nothing."""

import os
import shutil
import statistics
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from serve_servers import find_free_port

from microjobs.contract import DEFAULT_ROOT

IMAGE = f"{os.environ.get('REGISTRY', 'microjobs')}/serve:{os.environ.get('TAG', 'dev')}"
RUNS = 5


def report(root: Path) -> None:
    """Print both medians, or the reason why they cannot be measured."""
    if not image_exists():
        print(f"\nThe start in a container is not measured: no engine, or no image {IMAGE} (run make build/serve)")
        return
    baseline = statistics.median(measure_time_of_no_op() for _ in range(RUNS))
    ready = statistics.median(measure_time_to_first_ping(root) for _ in range(RUNS))
    print(f"\ndocker run: {baseline:.2f} s for a no-op, {ready:.2f} s to /ping, {ready - baseline:.2f} s more")


def image_exists() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode == 0


def measure_time_of_no_op() -> float:
    start_time = time.perf_counter()
    subprocess.run(["docker", "run", "--rm", "--entrypoint", "/bin/true", IMAGE], check=True)
    return time.perf_counter() - start_time


def measure_time_to_first_ping(root: Path) -> float:
    port = find_free_port()
    docker_options = ["--volume", f"{root}:{DEFAULT_ROOT}", "--publish", f"127.0.0.1:{port}:8080"]
    start_time = time.perf_counter()
    command = ["docker", "run", "--detach", *docker_options, IMAGE, "serve"]
    container = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        while not is_healthy(f"http://127.0.0.1:{port}/ping"):
            if time.perf_counter() - start_time > 60:
                raise SystemExit(f"{IMAGE} did not respond to /ping: docker logs {container}")
            time.sleep(0.005)
        return time.perf_counter() - start_time
    finally:
        subprocess.run(["docker", "rm", "--force", container], check=True, capture_output=True)


def is_healthy(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
    return False
