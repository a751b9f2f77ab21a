"""What a runtime is: it starts the hosts of a plan, and each host can be followed, stopped and copied from.

A plan is a plain value that says what SageMaker would give to a container; making it has no effects. Paths in it are
spelled as requests spell them, below the contract's root; a runtime decides where that is.
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
    """A folder of objects that a host finds. It may write into it, and the bucket does not change."""

    path: str
    """Where the host finds it, such as the folder of a channel."""
    source: Path
    """A folder of hard links to the objects' files: to be read, and never written through."""
    read_only: bool = False
    """The host shall not write into it, as far as the runtime can see to that."""


@dataclass(frozen=True)
class Pipe:
    """Named pipes that a host finds: `<path>_0` from its start, and the next one when one has been read or closed."""

    path: str
    epoch: Callable[[int], Iterator[bytes]]
    """What the pipe of a number gives; an OSError or ValueError of it ends the host."""


@dataclass(frozen=True)
class Image:
    """An image that the engine has."""

    tags: tuple[str, ...]
    """References such as `microjobs/serve:dev`."""
    digest: str
    """Such as `sha256:…`: of its manifest if the engine knows it, else of its configuration."""
    size: int
    """In bytes."""
    created: float
    """In seconds since 1970."""


@dataclass(frozen=True)
class Limits:
    """What an instance type gives."""

    cpus: float
    memory_bytes: int


@dataclass(frozen=True)
class HostPlan:
    """One host of a job: one container."""

    name: str
    """`algo-1` …: how the hosts of a job know each other."""
    image: str
    files: Path
    """A small tree that stands for the contract's root, files and folders, written with `contract.Layout`.
    The host gets a copy of it before it starts."""
    inputs: tuple[Input, ...] = ()
    pipes: tuple[Pipe, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    """None: the image's own."""
    arguments: tuple[str, ...] | None = None
    """None: the image's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits | None = None
    gpus: bool = False
    port: int | None = None
    """The port that the host listens on, if it serves."""


@dataclass(frozen=True)
class Plan:
    """Hosts that belong together: those of a job, or the one of an endpoint's variant."""

    name: str
    """Unique on this server, such as `training-job/my-job`; what is left running is found again by it."""
    hosts: tuple[HostPlan, ...]
    isolated: bool = False
    """EnableNetworkIsolation: the hosts reach each other and nothing else."""


@dataclass(frozen=True)
class Line:
    """A line of a host's output, without its end. Times are seconds since 1970."""

    time: float
    text: bytes
    is_whole: bool = True
    """False for a part of a rewritten line: it ends with a carriage return, and the rest follows."""


@dataclass(frozen=True)
class Exit:
    """How a host ended. `reason` says what the runtime knows beyond the code, such as that memory ran out."""

    code: int
    reason: str | None = None
    lost: bool = False
    """The host is gone, whatever the job did: its container was removed, or the engine went away."""
    starved: bool = False
    """Its pipes could not be filled; `reason` says why."""


class CannotRunError(Exception):
    """A plan cannot be started, with the reason and what to do; the job fails with it."""


class MachineFailedError(CannotRunError):
    """The engine or this machine failed, not the plan: it may go well another time."""


class Host(Protocol):
    """One started host. Methods may be called from any thread."""

    name: str

    def lines(self) -> Iterator[Line]:
        """Each line of output from the first one on, stdout and stderr together, until the host has ended.

        Asked again, also by another server, they are the same. A very long line comes in pieces.
        """

    def wait(self) -> Exit:
        """Block until the host has ended."""

    def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds; returns when the host has ended. Harmless if it has."""

    def copy(self, path: str, to: Path) -> "Tree | None":
        """Copy what a folder (or the file) at a path of the contract holds now.

        The content of files is put into the folder `to`, in files that belong to the caller. None if there is nothing
        at that path. Works while the host runs and after its end, until the plan is removed.

        Raises:
            CannotRunError: a file does not fit on this device, or cannot be read.
        """

    def connect(self, timeout: float) -> socket.socket:
        """Open a connection to the plan's port, as this server alone can.

        Raises:
            OSError: nothing listens there, or not yet; the host may have ended.
        """


class Runtime(Protocol):
    """A place to run plans. Methods may be called from any thread."""

    name: str

    @property
    def machine(self) -> str:
        """Name or address under which hosts reach this machine, and the server that listens there."""

    def prepare(self, image: str) -> None:
        """Make sure that an image can be started; may take long (a pull, a virtual environment).

        Raises:
            CannotRunError: there is no such image, with what to do.
        """

    def images(self) -> Sequence[Image]:
        """The images that can be started by name; none for a runtime without an engine."""

    def start(self, plan: Plan) -> Sequence[Host]:
        """Start all hosts of a plan, or none.

        Raises:
            CannotRunError: it cannot be started; nothing is left of it.
        """

    def running(self) -> Mapping[str, Sequence[Host]]:
        """What an earlier server left, by the plan's name: its hosts, ended ones too; none if not all have started."""

    def remove(self, plan_name: str) -> None:
        """End what still runs of a plan and remove all that is left of it. Harmless if there is nothing."""

    def close(self) -> None:
        """Let go of the engine; running plans go on."""
