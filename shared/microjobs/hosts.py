"""Interface to the hosts of a processing job: a single host calls functions directly, several use `cluster`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from microjobs.contract import ResourceConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Calls:
    """Functions that the first host may call on all hosts.

    functions: functions with different names.
    types: dataclasses of their arguments and results.
    """

    functions: tuple[Callable[..., Any], ...]
    types: tuple[type, ...] = ()

    def find(self, name: str) -> Callable[..., Any]:
        functions = {function.__name__: function for function in self.functions}
        if name not in functions:
            raise ValueError(f"{name!r} cannot be called on other hosts: add it to Calls.functions")
        return functions[name]


class Hosts(Protocol):
    """The hosts of the job, as the first host sees them."""

    names: list[str]

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        """Call the function on the named hosts in parallel, each with its own arguments.

        Raises:
            PlatformError: a host was lost.
        """


class OneHost:
    """The only host of a job, which calls functions directly."""

    def __init__(self, name: str) -> None:
        self.names = [name]

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        return {host: function(*values) for host, values in arguments.items()}


def with_hosts(resources: ResourceConfig, lead: Callable[[Hosts], None], calls: Calls) -> None:
    """Run `lead` on the first host. The other hosts run the functions that it calls, until it returns.

    Raises:
        JobError: the reason why the job failed, the same on every host.
    """
    if len(resources.hosts) == 1:
        lead(OneHost(resources.current_host))
        return
    from microjobs import cluster  # takes a tenth of the start time, so a single host does not import it

    if resources.is_first:
        cluster.lead(resources, lead, calls)
    else:
        cluster.follow(resources, calls)
