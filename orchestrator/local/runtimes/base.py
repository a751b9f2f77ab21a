"""The interface of a runtime: it starts the hosts of a plan, and each host can be followed, stopped and copied from.

A plan is a plain value that states what SageMaker would give to containers; creating it has no effects. Its paths are
those of requests, below the contract's root. Each runtime chooses where that root is.
"""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from microjobs_orchestrator.local.trees import Tree


@dataclass(frozen=True)
class Input:
    """A folder of objects that a host reads. A host that writes into it does not change the bucket."""

    path: str
    """The folder's path in the host, such as the folder of a channel."""
    source: Path
    """A folder of hard links to the objects' files. A runtime must not write to these files."""
    read_only: bool = False
    """Whether the host must not write into the folder. A runtime enforces it as far as it can."""


@dataclass(frozen=True)
class Pipe:
    """Named pipes that a host reads: `<path>_0`, `<path>_1`, …

    The first one exists when the host starts. The next one is made when the host has read or closed the one before.
    """

    path: str
    epoch: Callable[[int], Iterator[bytes]]
    """Returns the content of the pipe with a number. If it raises OSError or ValueError, the host is ended."""


@dataclass(frozen=True)
class Image:
    """An image of the engine."""

    tags: tuple[str, ...]
    """References such as `microjobs/serve:dev`."""
    digest: str
    """The digest of the manifest if the engine knows it, else of the configuration, such as `sha256:…`."""
    size: int
    """Bytes."""
    created: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Limits:
    """The size of an instance type, which limits a host."""

    cpus: float
    memory_bytes: int


@dataclass(frozen=True)
class HostPlan:
    """One host of a job: one container."""

    name: str
    """The host name, such as `algo-1`. The hosts of a job reach each other by it."""
    image: str
    files: Path
    """A small tree of the contract's files, written with `contract.Layout`. Before the host starts, it is copied to
    the contract's root of the host."""
    inputs: tuple[Input, ...] = ()
    pipes: tuple[Pipe, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    """None: the image's entry point."""
    arguments: tuple[str, ...] | None = None
    """None: the image's arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits | None = None
    gpus: bool = False
    port: int | None = None
    """The port on which the host serves; None if it does not serve."""


@dataclass(frozen=True)
class Plan:
    """The hosts of a job, or of a replica of an endpoint."""

    name: str
    """A unique name on this server, such as `training-job/my-job`. A later server finds running hosts by it."""
    hosts: tuple[HostPlan, ...]
    isolated: bool = False
    """EnableNetworkIsolation: the hosts reach each other and nothing else."""


@dataclass(frozen=True)
class Line:
    """A line of a host's output, without the line break."""

    time: float
    """Seconds since 1970."""
    text: bytes
    is_whole: bool = True
    """False for a part of a line with carriage returns. The rest of that line follows as the next line."""


@dataclass(frozen=True)
class Exit:
    """How a host ended."""

    code: int
    """The exit code, 128 + N if signal N ended the host."""
    reason: str | None = None
    """The cause, if the runtime knows more than the code, such as that memory ran out."""
    lost: bool = False
    """Whether the job did not cause the end: the container was removed, or the engine did not come back."""
    starved: bool = False
    """Whether the host was ended because a pipe could not be filled, for the given reason."""


class CannotRunError(Exception):
    """The plan cannot be started. The message is the job's failure reason: the cause and a remedy."""


class MachineFailedError(CannotRunError):
    """The engine or this machine failed, not the plan. Another attempt may succeed."""


class Host(Protocol):
    """One started host. Methods may be called from any thread."""

    name: str

    def lines(self) -> Iterator[Line]:
        """Yield each line of stdout and stderr from the first one, until the host has ended.

        Each call yields the same lines, also on a later server. A very long line is split.
        """

    def wait(self) -> Exit:
        """Wait until the host has ended."""

    def stop(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after `grace` seconds, and wait until the host has ended. It may have ended."""

    def copy(self, path: str, to: Path) -> "Tree | None":
        """Copy a file or a folder, while the host runs or after its end, until the plan is removed.

        Args:
            path: a path of the contract.
            to: the folder for the content of files. The copies belong to the caller.

        Returns:
            The tree; None if nothing exists at the path.

        Raises:
            CannotRunError: a file does not fit on this device, or cannot be read.
        """

    def connect(self, timeout: float) -> socket.socket:
        """Open a connection to the host's port. Only this server can do that.

        Raises:
            OSError: the host does not listen yet, or has ended.
        """


class Runtime(Protocol):
    """Runs plans. Methods may be called from any thread."""

    name: str

    @property
    def machine(self) -> str:
        """The name or address under which hosts reach this machine, on which the server listens."""

    def prepare(self, image: str) -> None:
        """Pull an image or make its virtual environment, so that it can be started. This may take minutes.

        Raises:
            CannotRunError: the image does not exist.
        """

    def images(self) -> Sequence[Image]:
        """Return the engine's images that have a name; none for a runtime without an engine."""

    def start(self, plan: Plan) -> Sequence[Host]:
        """Start all hosts of a plan, or none.

        Raises:
            CannotRunError: a host cannot be started. Everything that was started has been removed.
        """

    def running(self) -> Mapping[str, Sequence[Host]]:
        """Return the hosts that an earlier server started, also ended ones, by the plan's name.

        A plan whose hosts were not all started has no hosts.
        """

    def remove(self, plan_name: str) -> None:
        """End a plan's hosts and remove everything that belongs to the plan. Do nothing if it does not exist."""

    def close(self) -> None:
        """Close the connections to the engine. Plans keep running on a runtime that can find them again."""
