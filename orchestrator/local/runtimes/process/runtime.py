"""Runtime `process`: runs jobs in virtual environments, on a Linux machine with Python 3.11. It needs no engine.

Differences from containers:

- Only the project's own images are supported. The image's name chooses the folder in `containers/` that runs.
- The contract's root is a folder of the host, named by `SAGEMAKER_BASE_DIR`. Paths in a request's entry point and
  arguments are changed accordingly. The processes of the host also see the folder at the usual root, if the kernel
  allows them a mount namespace; otherwise the host's log states that they do not.
- Training jobs, and jobs whose request has an entry point, can install packages: each host runs in a virtual
  environment of its own, which extends the environment of the image.
- Hosts are processes with loopback addresses (`microjobs.network`). They have the same access to files and to
  the network as the user of the server. Therefore, network isolation is refused. Memory is not limited.
- Hosts end with the server, even if the server is killed, because a later server could not adopt them.
"""

import contextlib
import dataclasses
import fcntl
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from microjobs.contract import BASE_DIR_VARIABLE, Layout
from microjobs.interpreter import PYTHON_VARIABLE, SYS_EXECUTABLE_VARIABLES
from microjobs.network import SOCKET_FOLDER_VARIABLE, Network
from microjobs.run import JOB_VARIABLE
from microjobs_orchestrator.local import trees
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes import files, pipes
from microjobs_orchestrator.local.runtimes.base import (
    PYTHON_PATH,
    CannotRunError,
    Host,
    HostPlan,
    Image,
    MachineFailedError,
    Plan,
)
from microjobs_orchestrator.local.runtimes.gpus import make_process_variables, select_gpus
from microjobs_orchestrator.local.runtimes.process import commands
from microjobs_orchestrator.local.runtimes.process.addresses import reserve
from microjobs_orchestrator.local.runtimes.process.environments import Environment, Environments, hold_file_lock
from microjobs_orchestrator.local.runtimes.process.host import ProcessHost
from microjobs_orchestrator.local.runtimes.process.managed_process import ManagedProcess, select_inherited_variables

logger = logging.getLogger(__name__)

LOCK_FILE = "lock"
"""A file in a host's folder, which is locked until the host's last process has ended. It contains the shim's process
id."""
MAX_PID_DIGITS = 9
END_SECONDS = 20.0
"""Seconds for the hosts of a killed server to end. They need less time: see `process_shim.ORPHAN_GRACE_SECONDS`."""
POLL_INTERVAL = 0.05
"""Seconds between two checks whether the last process of a host has ended."""


class ProcessRuntime:
    """Runs plans as processes. `jobs_folder` is the folder `containers` of this repository."""

    name = "process"
    machine_address = "127.0.0.1"
    machine_address_exists_only_while_hosts_run = False

    def __init__(self, home: Home, jobs_folder: Path) -> None:
        self._work = home.work.absolute() / "process"
        self._environments = Environments(home.environments.absolute(), jobs_folder.absolute())
        self._lock = threading.Lock()
        self._hosts: dict[str, list[ProcessHost]] = {}
        self._host_numbers = itertools.count()

    def forward(self, port: int) -> None:
        """Forward nothing, and return None: hosts connect to the server's port directly."""

    def prepare(self, image: str, stopped: threading.Event | None = None) -> None:  # noqa: ARG002
        if sys.platform != "linux":
            raise CannotRunError(f"without an engine jobs run on Linux only, not on {sys.platform}: start Docker")
        self._environments.ensure(image)

    def images(self) -> Sequence[Image]:
        return ()

    def start(self, plan: Plan) -> Sequence[Host]:
        if plan.isolated:
            raise CannotRunError("network isolation needs an engine: start Docker, or leave EnableNetworkIsolation out")
        environments = [self._environments.ensure(host_plan.image) for host_plan in plan.hosts]
        hosts = self._register(plan)
        try:
            with reserve([host_plan.name for host_plan in plan.hosts]) as (network, port_sockets):
                for host_plan, environment in zip(plan.hosts, environments, strict=True):
                    host_network = dataclasses.replace(network, address=network.resolve(host_plan.name))
                    hosts.append(self._start_host(plan, host_plan, environment, host_network, port_sockets))
        except BaseException as error:
            self.remove(plan.name)
            if isinstance(error, OSError):
                raise MachineFailedError(f"{plan.name} cannot be started: {error}") from error
            raise
        return [
            pipes.fill_pipes(process_host, host_plan.pipes, process_host.fill_pipe)
            for host_plan, process_host in zip(plan.hosts, hosts, strict=True)
        ]

    def _register(self, plan: Plan) -> list[ProcessHost]:
        """Create the folder of a plan, and return the list for the hosts of the plan."""
        with self._lock:
            if self._get_folder(plan.name).exists():
                raise CannotRunError(f"{plan.name} was started already: remove it first")
            self._get_folder(plan.name).mkdir(mode=0o700, parents=True)  # the folder will contain a secret
            return self._hosts.setdefault(plan.name, [])

    def _start_host(
        self,
        plan: Plan,
        host_plan: HostPlan,
        environment: Environment,
        network: Network,
        port_sockets: Sequence[socket.socket],
    ) -> ProcessHost:
        folder = self._get_folder(plan.name) / host_plan.name
        layout = Layout(folder / "root")
        # The user's program may install packages.
        if host_plan.entrypoint is not None or host_plan.arguments == ("train",):
            environment = environment.extend(folder / "environment")
        command = commands.make_command_line(host_plan, environment, layout)
        _write_files(host_plan, layout)
        with hold_file_lock(folder / LOCK_FILE) as lock_descriptor:
            process = ManagedProcess(
                command,
                _make_variables(host_plan, environment, layout, network),
                folder / "log",
                temporary_folder_variables=(
                    "HOME",
                    "MPLCONFIGDIR",
                    *((SOCKET_FOLDER_VARIABLE,) if host_plan.port else ()),
                ),
                cpus=self._choose_cpus(host_plan),
                root=layout.root,
                inherited_files=(lock_descriptor, *(port_socket.fileno() for port_socket in port_sockets)),
            )
            os.write(lock_descriptor, b"%d" % process.pid)
        return ProcessHost(host_plan.name, process, layout, select_gpus(host_plan))

    def _choose_cpus(self, host_plan: HostPlan) -> Sequence[int]:
        """Return the CPUs of a host; empty if the host has no limits. Successive hosts get different CPUs."""
        if host_plan.limits is None:
            return ()
        if host_plan.limits.memory_bytes is not None:
            logger.info("%s: memory is not limited without an engine", host_plan.name)
        all_cpus = sorted(os.sched_getaffinity(0))
        count = min(len(all_cpus), max(1, round(min(host_plan.limits.cpus, len(all_cpus)))))
        first_index = next(self._host_numbers) * count
        return sorted(all_cpus[(first_index + index) % len(all_cpus)] for index in range(count))

    def find_hosts(self) -> Mapping[str, Sequence[Host]]:
        """Remove unused environments. Wait until the hosts of an earlier server have ended, and remove their folders.

        Return no hosts, because no host outlives its server.
        """
        self._environments.clean()
        for folder in self._work.glob("*"):
            if folder.name not in {self._get_folder(name).name for name in self._hosts}:
                try:
                    _remove_after_end(folder)
                except OSError:
                    logger.exception("%s could not be removed", folder)
        return {}

    def remove(self, plan_name: str) -> None:
        with self._lock:
            hosts = self._hosts.pop(plan_name, [])
        for host in hosts:
            host.stop(grace=0)
        _remove_after_end(self._get_folder(plan_name))

    def cancel_installations(self) -> None:
        self._environments.close()

    def close(self) -> None:
        """Cancel running installations, and end all hosts, as after a crash of the server."""
        self.cancel_installations()
        with self._lock:
            hosts = [host for hosts in self._hosts.values() for host in hosts]
        for host in hosts:
            host.end_as_if_server_died()
        for host in hosts:
            host.wait()

    def _get_folder(self, plan_name: str) -> Path:
        return self._work / plan_name.replace("/", ".")


def _write_files(host_plan: HostPlan, layout: Layout) -> None:
    """Write a host's files and inputs, and make the first named pipe of each input in Pipe mode.

    Raise CannotRunError for a path outside of the contract's root.
    """
    targets = [commands.resolve_contract_path(layout, item.path) for item in host_plan.inputs]
    files.copy_tree(host_plan.files, layout.root)
    for item, target in zip(host_plan.inputs, targets, strict=True):
        files.copy_tree(item.source, target)
        if item.read_only:
            files.make_read_only(target)
    for pipe in host_plan.pipes:
        path = commands.resolve_contract_path(layout, pipe.get_path(0))
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)


def _remove_after_end(folder: Path) -> None:
    """Wait until the hosts of a plan have ended, and remove the folder of the plan."""
    for lock in folder.glob(f"*/{LOCK_FILE}"):
        if lock.is_file():  # only a regular file is opened, because opening a pipe would block
            _wait_for_end(lock)
    trees.remove(folder)


def _wait_for_end(lock: Path) -> None:
    """Wait until the last process of a host has ended. Resume the host's shim: if a program has suspended the shim, it
    cannot end the host."""
    deadline = time.monotonic() + END_SECONDS
    with lock.open("rb") as file:
        shim_pid = file.read(MAX_PID_DIGITS)
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"processes of {lock.parent} are still running: end process {shim_pid.decode(errors='replace')}"
                )
            if shim_pid.isdigit() and int(shim_pid) > 1:
                with contextlib.suppress(OSError):
                    os.kill(int(shim_pid), signal.SIGCONT)
            time.sleep(POLL_INTERVAL)


def _try_lock(lock_descriptor: int) -> bool:
    try:
        fcntl.flock(lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_variables(host_plan: HostPlan, environment: Environment, layout: Layout, network: Network) -> dict[str, str]:
    """Return a host's variables: the image's (see containers/Dockerfile), the request's, and the paths of the host."""
    inherited, requested = select_inherited_variables(), host_plan.merge_variables({})
    # With SYS_EXECUTABLE_VARIABLES, Python would not find its virtual environment.
    variables = {name: value for name, value in requested.items() if name not in SYS_EXECUTABLE_VARIABLES}
    # If the request has no entry point, the image's own entry point runs. It translates the paths in the request's
    # variables itself, so that only the defaults and PYTHONPATH are translated here.
    translated_names = (*host_plan.default_variables, PYTHON_PATH) if host_plan.entrypoint is None else tuple(variables)
    variables |= {
        name: commands.translate_paths(variables[name], layout) for name in translated_names if name in variables
    }
    return {
        **inherited,
        "PATH": f"{commands.make_search_path(environment)}:{inherited.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        **variables,
        JOB_VARIABLE: str(environment.job_folder),  # the folder of the ready-made job
        PYTHON_VARIABLE: str(environment.python),
        BASE_DIR_VARIABLE: str(layout.root),
        **network.make_variables(),
        **make_process_variables(host_plan),
    }
