"""Interface between the first host of a processing job, which controls the job, and all hosts, which do the work."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

from microjobs.contract import ResourceConfig
from microjobs.files import atomic_group

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

RegisterFile = Callable[[Path], None]
"""A function that registers a file that a host has written. If the job fails on any host, registered files are
removed."""


class Hosts(Protocol):
    """The hosts of the job. Functions, arguments and results are pickled, so functions must be in a module."""

    resources: ResourceConfig

    def call(
        self, function: Callable[[*Arguments], T], arguments_by_host: Mapping[str, tuple[*Arguments]]
    ) -> dict[str, T]:
        """Call the function on each host in `arguments_by_host`, with the host's arguments. Return the results in the
        order of `arguments_by_host`.

        The calls run at the same time. Each call may use all cores of its host. If a call fails, the job ends on all
        hosts with the error of that host.
        """

    def write(
        self, function: Callable[[RegisterFile, *Arguments], T], arguments_by_host: Mapping[str, tuple[*Arguments]]
    ) -> dict[str, T]:
        """Like `call`, for functions that write files: their first argument registers a file."""


class SingleHost:
    """The only host of a job. It calls functions directly, without Dask."""

    def __init__(self, resources: ResourceConfig, register_file: RegisterFile) -> None:
        self.resources = resources
        self._register_file = register_file

    def call(
        self, function: Callable[[*Arguments], T], arguments_by_host: Mapping[str, tuple[*Arguments]]
    ) -> dict[str, T]:
        return {host: function(*arguments) for host, arguments in arguments_by_host.items()}

    def write(
        self, function: Callable[[RegisterFile, *Arguments], T], arguments_by_host: Mapping[str, tuple[*Arguments]]
    ) -> dict[str, T]:
        return {host: function(self._register_file, *arguments) for host, arguments in arguments_by_host.items()}


def run_on_hosts(resources: ResourceConfig, coordinate: Callable[[Hosts], None]) -> None:
    """Run `coordinate` on the first host. The hosts run the calls that `coordinate` makes, until `coordinate` ends.

    Raises:
        JobError: the reason why the job failed, the same on every host. It is a `PlatformError` if a host is missing or
            lost.
        Stopped: a host received a stop signal.
    """
    if len(resources.hosts) == 1:
        with atomic_group() as register_file:
            coordinate(SingleHost(resources, register_file))
        return
    from microjobs import cluster  # this module needs Dask, which a single host does not import

    cluster.run(resources, coordinate)
