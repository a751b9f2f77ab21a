"""Run the tests of containers on other engines: Podman, rootless Podman, and a Docker engine without shared network or
files.

Both engines keep their data in a temporary folder, and get copies of the images of the current engine. Needs root's
rights. Arguments replace the tests: `test_engines.py tests/local/test_hosting.py`.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from microjobs_orchestrator import images

TESTS = (
    "tests/local/runtimes/test_docker.py",
    "tests/local/security/test_networks.py",
    "tests/local/test_both_runtimes.py",
    "tests/local/test_hosting.py",
)
UNSUPPORTED: dict[str, str] = {
    # With version 1 of cgroups, Podman does not report exhausted memory. The Docker engine, which also runs on this
    # machine, sets the kernel to drop packets between containers of Podman's internal networks.
    "podman": "not (exhausted_memory or lack_of_memory or isolated_hosts_reach_each_other)",
    # Besides, version 1 of cgroups has no limits for containers of users, and rootless Podman 4.3 cannot commit images.
    "rootless": "not (exhausted_memory or lack_of_memory or isolated_hosts_reach_each_other or volumes_of_the_image)",
    "remote": "",
}
"""Selections of pytest that leave out what an engine does not support; see docs/using/engines.md."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0


def main() -> None:
    tests = sys.argv[1:] or TESTS
    codes = []
    with tempfile.TemporaryDirectory(prefix="microjobs-engines-") as folder:
        for name, start in STARTS.items():
            part = Path(folder, name)
            part.mkdir()
            with running_engine(start(part), part / "engine.sock") as address:
                copy_images(address)
                codes.append(run_tests(address, UNSUPPORTED[name], tests))
    sys.exit(max(codes))


def podman_command(folder: Path) -> Sequence[str]:
    # Podman's own limits may be above those of this process, which it then may not set.
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    present = {name: resource.getrlimit(number)[0] for name, number in limits.items()}
    settings = folder / "containers.conf"
    settings.write_text(
        f"[containers]\ndefault_ulimits = {[f'{name}={limit}:{limit}' for name, limit in present.items()]}\n"
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
    )
    data = [f"--root={folder}/data", f"--runroot={folder}/run"]
    service = ["podman", *data, "system", "service", "--time=0", f"unix://{folder}/engine.sock"]
    return ["env", f"CONTAINERS_CONF={settings}", *service]


def rootless_command(folder: Path) -> Sequence[str]:
    """Run Podman as a user who may map further users: the first one in /etc/subuid."""
    user = Path("/etc/subuid").read_text().partition(":")[0]
    folder.parent.chmod(0o711)
    command = podman_command(folder)
    shutil.chown(folder, user)
    variables = [f"HOME={folder}", f"XDG_RUNTIME_DIR={folder}"]
    return ["runuser", "--user", user, "--", "env", f"--chdir={folder}", *variables, *command]


def remote_command(folder: Path) -> Sequence[str]:
    data = [f"--data-root={folder}/data", f"--exec-root={folder}/run", f"--pidfile={folder}/docker.pid"]
    engine = ["dockerd", *data, f"--host=unix://{folder}/engine.sock"]
    hide_files = "ip link set lo up && mount -t tmpfs tmpfs /home && mount -t tmpfs tmpfs /root"
    return ["unshare", "--net", "--mount", "sh", "-c", f'{hide_files} && exec "$@"', "sh", *engine]


STARTS = {"podman": podman_command, "rootless": rootless_command, "remote": remote_command}


@contextmanager
def running_engine(command: Sequence[str], socket: Path) -> Iterator[str]:
    """Start an engine, wait until it answers, and yield its address. Stop it at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, deadline = f"unix://{socket}", time.monotonic() + START_TIMEOUT
    try:
        while subprocess.run(["docker", "--host", address, "info"], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the engine did not start: {' '.join(command)}")
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def copy_images(address: str) -> None:
    for job in images.list_jobs():
        name = images.local_image_name(job)
        print(f"copying {name} to {address}", flush=True)
        with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as save:
            subprocess.run(["docker", "--host", address, "load", "--quiet"], stdin=save.stdout, check=True)
        if save.returncode:
            sys.exit(f"{name} is not built: run `make build/{job}`")


def run_tests(address: str, selection: str, tests: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-m", "engine", "-k", selection, *tests]
    environment = {**os.environ, "DOCKER_HOST": address, "MICROJOBS_REQUIRE_ENGINE": "1"}
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    main()
