"""Interface of the runtimes: start the hosts of a plan, read their output, copy their files, and stop them.

A plan is immutable data: the images, settings and files that SageMaker would give to the containers. Creating a plan
starts nothing. Paths in a plan begin with `contract.DEFAULT_ROOT`, as in requests. Each runtime maps this root to a
folder of its own.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from microjobs_orchestrator.local.trees import Tree


PYTHON_PATH = "PYTHONPATH"


@dataclass(frozen=True)
class Input:
    """A folder of objects that a host reads. Files that the host writes into it do not change the bucket."""

    path: str
    """The folder's path in the host, such as the folder of a channel."""
    source: Path
    """A folder of hard links to the files of objects. A runtime must not write to these files."""
    read_only: bool = False
    """Whether the host must not write into the folder. A runtime enforces it as far as it can."""


@dataclass(frozen=True)
class Pipe:
    """Named pipes that a host reads: `<path>_0`, `<path>_1`, …

    The runtime makes the next pipe after the host has read or closed the previous one.
    """

    path: str
    read_epoch: Callable[[int], Iterator[bytes]]
    """Returns the content of one pipe, which is the data of one epoch. The argument is the number of the pipe. If the
    function raises OSError or ValueError, the runtime ends the host."""

    def get_path(self, number: int) -> str:
        """Return the path of a named pipe. Number 0 exists before the host starts."""
        return f"{self.path}_{number}"


@dataclass(frozen=True)
class Image:
    """An image that the engine stores."""

    tags: tuple[str, ...]
    """References such as `microjobs/serve:dev`."""
    digest: str
    """The digest of the manifest, such as `sha256:…`; the digest of the configuration if the engine has no manifest."""
    size: int
    """The size in bytes."""
    created: float
    """Seconds since 1970."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HostLimits:
    """The processors and the memory that a host may use."""

    cpus: float = inf
    memory_bytes: int | None = None
    """The memory in bytes; None if it is not limited."""


@dataclass(frozen=True)
class HostPlan:
    """The plan of one host: one container, or one process on the process runtime."""

    name: str
    """The host name, such as `algo-1`. The hosts of a job reach each other by this name."""
    image: str
    files: Path
    """A folder with the small files of the contract, written with `contract.Layout`. The runtime copies the folder's
    content to the contract's root before the host starts."""
    inputs: tuple[Input, ...] = ()
    pipes: tuple[Pipe, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    arguments: tuple[str, ...] | None = None
    """If the entry point or the arguments are None, the values of the image are used."""
    environment: Mapping[str, str] = field(default_factory=dict)
    default_variables: Mapping[str, str] = field(default_factory=dict)
    """Variables for an image that does not set them itself: see `merge_variables`."""
    limits: HostLimits | None = None
    has_gpus: bool = False
    """Whether the instance type has GPUs. `gpus.select_gpus` returns the host's GPUs."""
    port: int | None = None
    """The port on which the host serves; None if it does not serve."""

    published_ports: tuple[int, ...] = ()
    """Ports of the host that are published, with the same numbers, on the loopback address of the engine's machine."""
    python_path: str = ""
    """A folder that is added in front of PYTHONPATH, even if the request or the image sets this variable."""

    def merge_variables(self, image_variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment, and those default variables that neither the environment nor the image sets.

        Case is ignored, because programs read `https_proxy` or HTTPS_PROXY: a default for one of these names must not
        hide the other name.
        """
        set_names = {name.lower() for name in (*self.environment, *image_variables)}
        defaults = {name: value for name, value in self.default_variables.items() if name.lower() not in set_names}
        variables = {**defaults, **self.environment}
        if self.python_path:
            later_path = {**image_variables, **variables}.get(PYTHON_PATH)
            variables[PYTHON_PATH] = ":".join(filter(None, (self.python_path, later_path)))
        return variables


@dataclass(frozen=True)
class Plan:
    """The hosts of a job, or of a replica of an endpoint."""

    name: str
    """A unique name on this server, such as `training-job/my-job`. A restarted server finds the hosts by this name."""
    hosts: tuple[HostPlan, ...]
    isolated: bool = False
    """EnableNetworkIsolation: the hosts can only connect to each other."""
    notes: tuple[str, ...] = ()
    """Sentences of the server for the log of each host."""

    @property
    def is_server(self) -> bool:
        return any(host.port for host in self.hosts)


@dataclass(frozen=True)
class Line:
    """A line of a host's output, without the line break."""

    time: float
    """Seconds since 1970."""
    text: bytes
    is_whole: bool = True
    """False if a long line was split after a carriage return. The rest of that line follows as the next `Line`."""


@dataclass(frozen=True)
class Exit:
    """The end of a host."""

    code: int
    """The exit code, or 128 + N if signal N ended the host."""
    reason: str | None = None
    """The cause, such as a lack of memory; None if the runtime knows only the exit code."""
    has_external_cause: bool = False
    """Whether something other than the host caused its end, such as a failure of the engine or a removed container."""
    pipe_failed: bool = False
    """Whether the runtime ended the host because it could not fill a pipe. `reason` is then the error."""


@dataclass(frozen=True)
class GpuUsage:
    """The use of one GPU, in percent."""

    utilization: float
    memory_utilization: float


@dataclass(frozen=True)
class HostUsage:
    """The resources that a host uses."""

    cpu_seconds: float
    """The CPU time since the start of the host."""
    memory_bytes: int
    memory_limit_bytes: int
    """The memory in bytes that the host may use: the limit of its instance type, or the memory of the machine."""
    gpus: Sequence[GpuUsage] = ()


class CannotRunError(Exception):
    """The plan cannot run. The message is the job's failure reason: the cause and a remedy."""


class MachineFailedError(CannotRunError):
    """The engine or this machine failed, not the plan. Another attempt may succeed."""


class WrongPortError(ConnectionRefusedError):
    """The host listens on port 8080, and not on the port of its plan."""


class Host(Protocol):
    """One started host. Methods may be called from any thread."""

    name: str

    def lines(self) -> Iterator[Line]:
        """Yield all output until the host ends. Long lines are split. Each call yields the lines from the first one,
        even after a restart of the server."""

    def wait(self) -> Exit:
        """Wait until the host has ended."""

    def stop(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after `grace` seconds; wait until the host has ended. The host may already have
        ended."""

    def measure(self) -> HostUsage | None:
        """Return the resources that the host uses now; None if it has ended, or if the runtime cannot measure it."""

    def copy(self, path: str, target: Path) -> "Tree | None":
        """Return a tree with copies of a file or a folder of the host; None if the path does not exist.

        This works during the run and after it, until the plan is removed. The files are in the folder `target` and
        belong to the caller. Raise CannotRunError if a file does not fit on this device, or cannot be read.
        """

    def add_folder(self, source: Path, path: str) -> None:
        """Copy a folder to `path` in the running host, and make the parents of `path`. The same files may already exist
        at `path`.

        Raise OSError if the device is full, and CannotRunError if the host has ended or cannot store the folder.
        """

    def remove_folder(self, path: str) -> None:
        """Remove a folder of the running host, if it exists. An empty file may remain at its path."""

    def connect(self, timeout: float) -> socket.socket:
        """Open a connection to the host's port; only this server can do so.

        Raise OSError if nothing listens, and WrongPortError if the runtime knows that the host listens elsewhere.
        """


class Program(Protocol):
    """A running program that is not a host of a job. It ends with the server, even if the server is killed.

    Methods may be called from any thread.
    """

    working_folder: str
    """The current folder of the program, which other users cannot open. It is removed when the program ends."""
    exit_code: int | None
    """None while the program runs."""

    def lines(self) -> Iterator[Line]:
        """Yield all output until the program ends."""

    def stop(self, grace: float) -> int:
        """Send SIGTERM, and SIGKILL after `grace` seconds; wait for the end, and return the exit code."""


class Programs(Protocol):
    """Starts programs. Methods may be called from any thread."""

    def start(
        self, name: str, lock_file: Path, arguments: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> Program:
        """Start Python with arguments in the environment of a lock file. Make the environment if it does not exist.

        Args:
            name: the beginning of the environment's name.
            lock_file: lists the packages of the environment.
            variables: environment variables, besides those that all programs get.
            log: the file for the output. An earlier file is replaced.

        Raises:
            CannotRunError: the environment cannot be made, or the program cannot be started.
        """

    def close(self) -> None:
        """Cancel running installations."""


class Runtime(Protocol):
    """Runs plans. Methods may be called from any thread."""

    name: str

    @property
    def machine_address(self) -> str:
        """The name or address that the hosts use to connect to the local server; empty if they cannot connect."""

    @property
    def machine_address_exists_only_while_hosts_run(self) -> bool:
        """Whether this machine has `machine_address` only while hosts run."""

    def forward(self, port: int) -> int | None:
        """Let hosts connect to a port of this machine, although the machine has no address for them.

        Return the port on the host's own loopback interface that leads to this machine's port; None if the runtime
        cannot forward.
        """

    def prepare(self, image: str, stopped: threading.Event | None = None) -> str | None:
        """Pull an image, or make the environment that replaces it.

        Return a sentence for the logs of hosts, such as that the image runs emulated; None if there is none.

        Raises:
            CannotRunError: the image does not exist, or `stopped` was set during the pull.
        """

    def images(self) -> Sequence[Image]:
        """Return the engine's images that have a name. A runtime without an engine has no images."""

    def start(self, plan: Plan) -> Sequence[Host]:
        """Start all hosts of a plan. If a host cannot start, start no host, and raise CannotRunError."""

    def find_hosts(self) -> Mapping[str, Sequence[Host]]:
        """Return the hosts of an earlier server, including ended hosts, by plan name. A plan whose start was not
        complete has no hosts."""

    def remove(self, plan_name: str) -> None:
        """End a plan's hosts and remove everything that belongs to the plan. Do nothing if the plan does not exist."""

    def cancel_installations(self) -> None:
        """Cancel installations: running and later calls of `prepare` that need an installation raise CannotRunError."""

    def close(self) -> None:
        """Close the runtime. On the docker runtime, hosts keep running, and a later server can find them. On the
        process runtime, hosts end."""
