"""The hosts of a processing job, one or several, behind one small interface.

One host runs its own work directly. Several are a `microjobs.cluster`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from microjobs.contract import ResourceConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Calls:
    """The calls that hosts accept from the first one.

    functions: the functions, each with a name of its own.
    types: the dataclasses among their arguments and results.
    """

    functions: tuple[Callable[..., Any], ...]
    types: tuple[type, ...] = ()

    def name_of(self, function: Callable[..., Any]) -> str:
        if function not in self.functions:
            raise ValueError(f"{function!r} cannot be called on other hosts: name it in Calls.functions")
        return function.__name__

    def named(self, name: str) -> Callable[..., Any]:
        return {function.__name__: function for function in self.functions}[name]


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


def with_hosts(resources: ResourceConfig, lead: Callable[[Hosts], None], calls: Calls) -> None:
    """Run `lead` on the first host, with all hosts at its command; the others do what it asks until it is done.

    Raises:
        JobError: what ended the job, the same on every host.
    """
    if len(resources.hosts) == 1:
        lead(OneHost(resources.current_host))
        return
    from microjobs import cluster  # a tenth of the start, so one host does without

    if resources.is_first:
        cluster.lead(resources, lead, calls)
    else:
        cluster.follow(resources, calls)
