"""Interface between the hosts of a processing job. All hosts run the same code and exchange values."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from microjobs.contract import ResourceConfig

T = TypeVar("T")


class Hosts(Protocol):
    """The hosts of the job, from the point of view of one host."""

    resources: ResourceConfig

    def gather(self, value: T) -> dict[str, T]:
        """Return the values of all hosts, by host name. All hosts must call this function the same number of times.

        Raises:
            PlatformError: a host was lost.
        """


class OneHost:
    """The only host of a job."""

    def __init__(self, resources: ResourceConfig) -> None:
        self.resources = resources

    def gather(self, value: T) -> dict[str, T]:
        return {self.resources.current_host: value}


def run_on_hosts(resources: ResourceConfig, work: Callable[[Hosts], None], types: tuple[type, ...]) -> None:
    """Run `work` on this host, while the other hosts run it too.

    Args:
        types: the dataclasses that the exchanged values may contain.

    Raises:
        JobError: the reason why the job failed, the same on every host. It is a `PlatformError` if a host is missing or
            lost.
        Stopped: a host received a stop signal.
    """
    if len(resources.hosts) == 1:
        work(OneHost(resources))
        return
    from microjobs import cluster  # takes a tenth of the start time, so a single host does not import it

    cluster.run(resources, work, types)
