"""Run the tests of containers on other engines: Podman and Docker with and without root privileges, and a Docker engine
that shares neither the network nor the files of this machine.

Each engine has its data in a temporary folder, and gets copies of the images of the current engine that the tests use.
Needs root privileges. `--engine NAME` selects an engine, and other arguments replace the tests:

    python scripts/test_engines.py --engine podman --engine remote-docker tests/local/test_hosting.py
"""

import argparse
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from microjobs_orchestrator import images

TEST_PATHS = (
    "tests/local/runtimes/test_docker.py",
    "tests/local/runtimes/test_forwarding.py",
    "tests/local/security/test_networks.py",
    "tests/local/test_both_runtimes.py",
    "tests/local/test_hosting.py",
)
UNUSED_JOBS = ("batch-score", "train-tensorflow")
"""The jobs whose images these tests do not use."""
WORKERS = 2
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 60.0

NAMESPACE_COMMAND = (
    "setpriv",
    "--pdeathsig=KILL",
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)
"""A prefix that runs a command in namespaces of its own. The command's processes and mounts end with the command. The
command ends with this script, even if the script is killed."""
OPEN_TUN = "mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200"
"""A command with which all users can open the device of virtual networks. On some machines, only root can open it."""
TEST_FOLDER = "tests"
"""The folder for the tests' temporary files."""
REMOTE_BRIDGE = "172.31.255.1/24"
"""The address of the remote engine's bridge. It is not Docker's default address, which this machine has if it runs a
Docker engine itself."""
ROOTLESS_DOCKER = "/usr/share/docker.io/contrib/dockerd-rootless.sh"
"""The path of the script that starts rootless Docker, in Debian's package. Used if the script is not on the PATH."""


def make_podman_command(folder: Path) -> Sequence[str]:
    return make_namespaced_command("true", make_podman_service_command(folder))  # Podman as root needs no preparation


def make_rootless_podman_command(folder: Path) -> Sequence[str]:
    return make_namespaced_command(OPEN_TUN, make_unprivileged_command(folder, make_podman_service_command(folder)))


def make_rootless_docker_command(folder: Path) -> Sequence[str]:
    script = shutil.which("dockerd-rootless.sh") or find_in_dockerd_package(ROOTLESS_DOCKER)
    return make_namespaced_command(
        OPEN_TUN, make_unprivileged_command(folder, [script, f"--host=unix://{folder}/engine.sock"])
    )


def make_remote_docker_command(folder: Path) -> Sequence[str]:
    folder_options = [f"--data-root={folder}/data", f"--exec-root={folder}/run", f"--pidfile={folder}/docker.pid"]
    engine = ["dockerd", *folder_options, f"--host=unix://{folder}/engine.sock", f"--bip={REMOTE_BRIDGE}"]
    hide_files = f"ip link set lo up && mount -t tmpfs tmpfs '{folder.parent / TEST_FOLDER}'"
    return make_namespaced_command(hide_files, engine, "--net")


class Engine(NamedTuple):
    """A container engine on which the tests run."""

    make_command: Callable[[Path], Sequence[str]]
    """Returns the command that starts the engine. The engine's data and its socket, `engine.sock`, are in the given
    folder."""
    unsupported_tests: Sequence[str] = ()
    """Parts of names of tests that need what this engine does not support; see docs/maintaining/engines.md."""


# Why engines do not support tests:
# - exhausted_memory, lack_of_memory: version 1 of cgroups has no limits for containers of rootless engines. With this
#   version, Podman does not report exhausted memory.
# - isolated_hosts_reach_each_other: if a Docker engine runs as root on the machine, the kernel drops packets between
#   containers of Podman's internal networks.
# - volumes_of_the_image: rootless Podman 4.3 cannot commit images.
# - guards_can_be_disabled: without guards, the server connects to an isolated host by the host's address, to which
#   these engines provide no route.
# - only_the_server_reaches, attack_succeeds: programs of this machine and containers of an engine on another machine
#   cannot reach each other.
UNSUPPORTED_ON_PODMAN = ("exhausted_memory", "lack_of_memory", "isolated_hosts_reach_each_other")
ENGINES = {
    "podman": Engine(make_podman_command, UNSUPPORTED_ON_PODMAN),
    "rootless-podman": Engine(
        make_rootless_podman_command, (*UNSUPPORTED_ON_PODMAN, "volumes_of_the_image", "guards_can_be_disabled")
    ),
    "rootless-docker": Engine(
        make_rootless_docker_command, ("exhausted_memory", "lack_of_memory", "guards_can_be_disabled")
    ),
    "remote-docker": Engine(
        make_remote_docker_command, ("guards_can_be_disabled", "only_the_server_reaches", "attack_succeeds")
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="an engine; default: all of them")
    parser.add_argument("tests", nargs="*", default=TEST_PATHS, help="files or names of tests")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))  # the temporary folder is then removed
    # The prefix is short, because Podman refuses folders with long names.
    with tempfile.TemporaryDirectory(prefix="mj-engines-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # engines of other users have their folders in this folder
        (folder / TEST_FOLDER).mkdir(mode=0o700)
        archive = save_images(folder / "images.tar")
        results = {engine: run(engine, folder, archive, options.tests) for engine in options.engine or ENGINES}
    for engine, (code, seconds) in results.items():
        print(f"{engine}: {'passed' if code == 0 else f'exit code {code}'}, {seconds:.0f} s")
    sys.exit(max(code for code, _ in results.values()))


def save_images(archive: Path) -> Path:
    names = [images.get_local_image_name(job) for job in images.list_jobs() if job not in UNUSED_JOBS]
    subprocess.run(["docker", "save", "--output", archive, *names], check=True)
    return archive


def run(name: str, folder: Path, archive: Path, tests: Sequence[str]) -> tuple[int, float]:
    """Run the tests on an engine. Return pytest's exit code, and the duration of this call in seconds."""
    start_time, engine = time.monotonic(), ENGINES[name]
    engine_folder, bridges = folder / name, list_podman_bridges()
    engine_folder.mkdir()
    with run_engine(engine.make_command(engine_folder), engine_folder) as address:
        print(f"{name}: loading the images", flush=True)
        subprocess.run(["docker", "--host", address, "load", "--quiet", "--input", archive], check=True)
        print(f"{name}: images loaded after {time.monotonic() - start_time:.0f} s", flush=True)
        code = run_tests(address, engine.unsupported_tests, [f"--basetemp={folder / TEST_FOLDER}/run", *tests])
    shutil.rmtree(engine_folder)
    # Podman 4.3 leaves some bridges if several containers end at the same time
    for bridge in list_podman_bridges() - bridges:
        subprocess.run(["ip", "link", "delete", bridge], check=False)
    return code, time.monotonic() - start_time


def list_podman_bridges() -> set[str]:
    """Return the names of Podman's bridges."""
    return {path.name for path in Path("/sys/class/net").glob("podman[0-9]*")}


def make_namespaced_command(preparation: str, command: Sequence[str], *unshare_options: str) -> Sequence[str]:
    """Return a command that runs a shell command, and then another command, in namespaces of their own."""
    # The shell is process 1 and keeps root privileges: Podman as process 1 failed to copy some files into containers,
    # and the kernel does not send the signal of `--kill-child` after a change of user.
    return [*NAMESPACE_COMMAND, *unshare_options, "sh", "-c", f'{preparation} && {{ "$@" & wait; }}', "sh", *command]


def make_unprivileged_command(folder: Path, command: Sequence[str]) -> Sequence[str]:
    """Return a command that runs another command as the first user in /etc/subuid, who may map further user IDs."""
    path = Path("/etc/subuid")
    name = path.read_text().partition(":")[0] if path.exists() else ""
    if not name:
        sys.exit("rootless engines need a user in /etc/subuid: add one with `useradd NAME`, after `apt install uidmap`")
    user = pwd.getpwnam(name)
    shutil.chown(folder, user.pw_uid, user.pw_gid)
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    return ["setpriv", *identity, "env", f"--chdir={folder}", f"HOME={folder}", f"XDG_RUNTIME_DIR={folder}", *command]


def make_podman_service_command(folder: Path) -> Sequence[str]:
    # Podman's default limits may be above the limits of this process. Then Podman is not allowed to set them.
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    current_limits = {name: resource.getrlimit(number)[0] for name, number in limits.items()}
    settings = folder / "containers.conf"
    settings.write_text(
        f"[containers]\ndefault_ulimits = {[f'{name}={limit}:{limit}' for name, limit in current_limits.items()]}\n"
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
    )
    folder_options = [f"--root={folder}/data", f"--runroot={folder}/run"]
    # By default, Podman 4.3 copies each image for each container if the user may not use FUSE.
    service = ["podman", *folder_options, "--storage-driver=overlay", "system", "service", "--time=0"]
    return ["env", f"CONTAINERS_CONF={settings}", *service, f"unix://{folder}/engine.sock"]


def find_in_dockerd_package(path: str) -> str:
    """Return the path of a file in the package of `dockerd`. The package may be unpacked into another root folder."""
    dockerd = shutil.which("dockerd") or sys.exit("dockerd is not on the PATH")
    return str(Path(dockerd).resolve().parents[2]) + path


@contextmanager
def run_engine(command: Sequence[str], folder: Path) -> Iterator[str]:
    """Start an engine, wait until it answers, and yield its address. Stop it at the end."""
    log, address, deadline = (
        folder / "engine.log",
        f"unix://{folder}/engine.sock",
        time.monotonic() + START_TIMEOUT_SECONDS,
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        while subprocess.run(["docker", "--host", address, "info"], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the engine did not start: {' '.join(command)}\n{log.read_text()[-2000:]}")
            time.sleep(0.5)
        yield address
    finally:
        with suppress(ProcessLookupError):  # the engine has ended
            # the signal goes to the process group, because `unshare` itself ignores it
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_tests(address: str, unsupported: Sequence[str], tests: Sequence[str]) -> int:
    selection = f"not ({' or '.join(unsupported)})" if unsupported else ""
    workers = [f"--numprocesses={WORKERS}", "--dist=worksteal"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "engine", "-k", selection, *workers, *tests]
    environment = {**os.environ, "DOCKER_HOST": address, "MICROJOBS_REQUIRE_ENGINE": "1"}
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    main()
