"""Where hosts listen and find each other when they are processes of one machine and not containers.

Ours, not AWS's: there each host has a network of its own, and names resolve.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from microjobs.errors import PlatformError

ADDRESS = "MICROJOBS_ADDRESS"
HOST_ADDRESSES = "MICROJOBS_HOST_ADDRESSES"
HOST_PORTS = "MICROJOBS_HOST_PORTS"

WATCH_PORT = 8787
"""The first host's: for the heartbeat and calls of the other hosts."""
TORCH_PORT = 7777
"""The first host's; as AWS's own images have it, like the next one."""
TENSORFLOW_PORT = 8890
"""Every host's."""

BACKLOG = 1024
"""Strangers must not keep hosts of the job out by filling the queue."""
SOCKET_FOLDER = "MICROJOBS_SOCKET_FOLDER"


@dataclass(frozen=True)
class Network:
    """One host's view; a container needs none of it, and its variables are not set."""

    address: str = "0.0.0.0"  # noqa: S104  SageMaker reaches a container from outside
    """What this host listens on."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """The addresses of all hosts of the job by their names."""
    ports: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """The ports that hosts listen on instead of the usual ones."""
    socket_path: Path | None = None
    """The Unix socket that a server listens on instead of a port, which every user of the machine could use."""

    def resolve(self, host: str) -> str:
        """The host's address, or its name, which then resolves."""
        return self.hosts.get(host, host)

    def port(self, host: str, usual: int) -> int:
        """The port that a host listens on instead of a usual one."""
        return self.ports.get((host, usual), usual)

    def listen(self, port: int) -> socket.socket:
        """A socket that listens on a port of this host.

        Raises:
            PlatformError: the port cannot be listened on.
        """
        try:
            # A port that was chosen for this host is held for it by a socket of the same user, which does not listen.
            held = port in self.ports.values()
            return socket.create_server((self.address, port), backlog=BACKLOG, reuse_port=held)
        except OSError as error:
            raise PlatformError(f"cannot listen on {self.address} port {port}: {error}") from error

    def variables(self) -> dict[str, str]:
        addresses = ",".join(f"{host}={address}" for host, address in self.hosts.items())
        ports = ",".join(f"{host}:{usual}={port}" for (host, usual), port in self.ports.items())
        return {ADDRESS: self.address, HOST_ADDRESSES: addresses, HOST_PORTS: ports}

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Network":
        ports = {}
        for key, port in _pairs(environ.get(HOST_PORTS, "")).items():
            host, _, usual = key.rpartition(":")
            ports[host, int(usual)] = int(port)
        folder = environ.get(SOCKET_FOLDER)
        return cls(
            environ.get(ADDRESS) or cls.address,
            _pairs(environ.get(HOST_ADDRESSES, "")),
            ports,
            cls.socket_in(folder) if folder else None,
        )

    @staticmethod
    def socket_in(folder: str) -> Path:
        return Path(folder) / "http.socket"


def _pairs(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return {key: value for key, _, value in pairs}
