"""Where hosts listen and find each other when they are processes of one machine and not containers.

Ours, not AWS's: there each host has a network of its own, and names resolve.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from microjobs.errors import PlatformError

ADDRESS = "MICROJOBS_ADDRESS"
HOST_ADDRESSES = "MICROJOBS_HOST_ADDRESSES"


@dataclass(frozen=True)
class Network:
    """One host's view; a container needs none of it, and its variables are not set."""

    address: str = "0.0.0.0"  # noqa: S104  SageMaker reaches a container from outside
    """What this host listens on."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """The addresses of all hosts of the job by their names."""

    def resolve(self, host: str) -> str:
        """The host's address, or its name, which then resolves."""
        return self.hosts.get(host, host)

    def listen(self, port: int, callers: int) -> socket.socket:
        """A socket for so many callers.

        Raises:
            PlatformError: the port cannot be listened on.
        """
        try:
            return socket.create_server((self.address, port), backlog=callers)
        except OSError as error:
            raise PlatformError(f"cannot listen on {self.address} port {port}: {error}") from error

    def variables(self) -> dict[str, str]:
        addresses = ",".join(f"{host}={address}" for host, address in self.hosts.items())
        return {ADDRESS: self.address, HOST_ADDRESSES: addresses}

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Network":
        pairs = (pair.partition("=") for pair in environ.get(HOST_ADDRESSES, "").split(",") if pair)
        return cls(environ.get(ADDRESS) or cls.address, {host: address for host, _, address in pairs})
