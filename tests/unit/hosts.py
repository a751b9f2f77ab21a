"""Runs the hosts of a job as processes with different loopback addresses."""

import contextlib
import dataclasses
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from microjobs import peers
from microjobs.contract import BASE_DIR_VARIABLE, Layout, ResourceConfig, write_job_certificate, write_job_secret
from microjobs.network import HEARTBEAT_PORT, Network
from microjobs.peers import Connection
from microjobs.processes import find_children
from microjobs_orchestrator.local.certificates import make_certificate
from microjobs_orchestrator.local.runtimes.process.addresses import reserve
from tests.conftest import REPOSITORY
from tests.forks import Fork, make_job_environment

HOST_PROGRAM = """
import json, logging, sys
from microjobs import distributed, heartbeat
from microjobs.contract import ResourceConfig
from microjobs.errors import JobError, Stopped
settings = json.loads(sys.argv[1])
for name, value in settings["time_limits"].items():
    setattr(heartbeat, name, value)
program = distributed.Program(settings["command"], is_agent=settings["is_agent"])
explain = (lambda code: (code, f"exit code {code}")) if settings["is_script"] else None
try:
    resources = ResourceConfig(settings["host"], tuple(settings["hosts"]))
    distributed.launch(program, resources, explain=explain, join_seconds=settings["time_limits"]["JOIN_SECONDS"])
except JobError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(error.exit_code)
except Stopped as stopped:
    print("stopped by", stopped.signal_number, flush=True)
"""


@dataclass(frozen=True)
class End:
    """The end of a host: its exit code, its output with that of its worker, and its run time in seconds."""

    exit_code: int
    output: str
    seconds: float


@dataclass
class Host:
    """The process of one host. `orphans` are the IDs of worker processes that may outlive the host's process."""

    process: Fork
    start_time: float = field(default_factory=time.monotonic)
    orphans: list[int] = field(default_factory=list)

    def wait_for(self, text: str) -> None:
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"the host ended with {self.process.wait()} before it printed {text!r}")

    def wait_for_end(self) -> End:
        output, _ = self.process.communicate(timeout=60)
        return End(self.process.wait(), output, time.monotonic() - self.start_time)

    def wait_for_sigterm_handler(self) -> None:
        """Wait until the program handles SIGTERM. Without a handler, SIGTERM would end the interpreter."""
        while True:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
            if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
                return
            assert self.process.poll() is None, "the host ended"
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the host's process, but not to its workers, which have their own session.

        The workers become orphans if the signal ends the process, so record their IDs for `close`.
        """
        self.orphans += find_children(self.process.pid)
        self.process.send_signal(number)

    def close(self) -> None:
        self.orphans += find_children(self.process.pid)
        for pid in (self.process.pid, *self.orphans):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


class Hosts:
    """Starts the hosts of one job. Each host has a root folder below `folder`."""

    def __init__(self, names: Sequence[str], program: Sequence[str], folder: Path) -> None:
        self.names = list(names)
        self.program = program
        self.folder = folder
        self.secret = secrets.token_hex(32)
        self._reservation = contextlib.ExitStack()
        network, _ = self._reservation.enter_context(reserve(names))
        self.addresses, self.ports = network.host_addresses, network.ports
        self.by_name: dict[str, Host] = {}

    def start(
        self, name: str, worker: str, *, is_agent: bool = False, is_script: bool = False, **time_limits: float
    ) -> Host:
        """Start a host of a training job.

        Args:
            worker: Python code of the host's worker, or of an agent that starts the workers.
            is_agent: whether the code is that of an agent.
            is_script: whether the code is a user's script, whose exit code explains a failure.
            time_limits: values that replace constants of the module `heartbeat`, such as LOST_SECONDS.
        """
        command = [sys.executable, "-c", worker]
        return self.start_program(name, time_limits, command=command, is_agent=is_agent, is_script=is_script)

    def start_program(self, name: str, time_limits: Mapping[str, float], **settings: object) -> Host:
        """Start a host that runs the program, with the settings as JSON.

        Args:
            time_limits: values that replace constants of the modules that the program uses, such as LOST_SECONDS.
        """
        settings |= {
            "host": name,
            "hosts": self.names,
            "time_limits": {
                "JOIN_SECONDS": 30,
                "LOST_SECONDS": 20,
                "BEAT_SECONDS": 0.2,
                "CERTAIN_REASON_WAIT_SECONDS": 1,
                **time_limits,
            },
        }
        network = Network(self.addresses[name], self.addresses, self.ports).make_variables()
        layout = Layout(self.folder / name)
        if self.secret and not layout.job_secret.exists():
            write_job_secret(layout, self.secret)
        environment = {
            **os.environ,
            **network,
            BASE_DIR_VARIABLE: str(layout.root),
            "PYTHONPATH": f"{REPOSITORY / 'shared'}:{REPOSITORY}",
        }
        self.by_name[name] = Host(Fork([*self.program, json.dumps(settings)], environment))
        return self.by_name[name]

    @property
    def first_address(self) -> tuple[str, int]:
        """Address and port of the first host."""
        return self.addresses["algo-1"], self.ports["algo-1", HEARTBEAT_PORT]

    def connect(self) -> socket.socket:
        """Return a connection to the first host, as soon as it listens."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return socket.create_connection(self.first_address)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "the first host does not listen"
                time.sleep(0.05)

    def connect_as(self, host: str) -> Connection:
        """Return an authenticated connection to the first host. With it, the test acts as another host of the job."""
        self.connect().close()
        return peers.call(self.first_address, self.secret.encode(), host)

    def run(self, workers: Mapping[str, str], **settings: bool | float) -> dict[str, End]:
        """Start one host per entry, and wait until all hosts have ended."""
        for name, worker in workers.items():
            self.start(name, worker, **settings)  # type: ignore[arg-type]  # flags and time_limits
        return self.wait_for_end()

    def wait_for_end(self) -> dict[str, End]:
        return {name: host.wait_for_end() for name, host in self.by_name.items()}

    def close(self) -> None:
        for host in self.by_name.values():
            host.close()
        self._reservation.close()


def make_hosts(count: int = 3, program: Sequence[str] = ("-c", HOST_PROGRAM)) -> Iterator[Hosts]:
    names = [f"algo-{number}" for number in range(1, count + 1)]
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Hosts(names, program, Path(folder))) as hosts:
        yield hosts


def run_on_all_hosts(job: str, hosts: Mapping[str, Layout]) -> None:
    """Run an image's processing job on these hosts, with a secret and a certificate, and check that it succeeds."""
    secret, certificate = secrets.token_hex(32), make_certificate("test")
    with reserve(list(hosts)) as (network, _):
        processes = []
        for name, layout in hosts.items():
            write_job_secret(layout, secret)
            write_job_certificate(layout, *certificate)
            environment = make_job_environment(job, layout)
            environment |= dataclasses.replace(network, address=network.resolve(name)).make_variables()
            # Each host must import Dask with its own settings, so it is a new interpreter and not a fork.
            command = [sys.executable, "-m", "microjobs"]
            processes.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        logs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(hosts), logs
    assert not [line for log in logs for line in log.splitlines() if re.search("WARN|ERROR|Traceback", line)], logs


def make_resource_config(host: str, count: int) -> ResourceConfig:
    return ResourceConfig(host, tuple(f"algo-{number}" for number in range(1, count + 1)))


def is_running(pid_file: Path) -> bool:
    """Return whether the process whose ID is in the file is running."""
    try:
        return ") Z " not in Path(f"/proc/{pid_file.read_text()}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # ProcessLookupError is raised if the process ends during the read
        return False
