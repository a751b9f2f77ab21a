"""The hosts of a processing job, one or several, behind one small interface.

One host runs its own work directly. Several are a `microjobs.cluster`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from microjobs.contract import ResourceConfig

T = TypeVar("T")


class Hosts(Protocol):
    """The hosts of the job, for the first one of them to give work to."""

    @property
    def names(self) -> list[str]: ...

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        """Call the function on every host named, at the same time, with that host's arguments.

        Raises:
            PlatformError: a host was lost.
        """


class OneHost:
    """The only host of a job: calls are just calls."""

    def __init__(self, name: str) -> None:
        self.names = [name]

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        return {host: function(*values) for host, values in arguments.items()}


def with_hosts(resources: ResourceConfig, lead: Callable[[Hosts], None]) -> None:
    """Run `lead` on the first host, with all hosts at its command; the others do what it asks until it is done.

    Raises:
        JobError: what ended the job, the same on every host.
    """
    if len(resources.hosts) == 1:
        lead(OneHost(resources.current_host))
        return
    from microjobs import cluster  # a tenth of the start, so one host does without

    if resources.is_first:
        cluster.lead(resources, lead)
    else:
        cluster.follow(resources)
