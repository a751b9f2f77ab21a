"""Addresses and ports of hosts that are processes on one machine instead of containers.

On AWS, these settings are not needed: each host has its own network, and host names resolve.
"""

import contextlib
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from microjobs.errors import PlatformError

ADDRESS_VARIABLE = "MICROJOBS_ADDRESS"
HOST_ADDRESSES_VARIABLE = "MICROJOBS_HOST_ADDRESSES"
HOST_PORTS_VARIABLE = "MICROJOBS_HOST_PORTS"

HEARTBEAT_PORT = 8787
"""The first host's port for the heartbeat."""
TORCH_PORT = 7777
"""The first host's port for PyTorch, as in AWS's own images."""
TENSORFLOW_PORT = 8890
"""Every host's port for TensorFlow, as in AWS's own images."""
DASK_PORT = 8786
"""The first host's port for Dask's scheduler. It is Dask's default port."""

BACKLOG = 1024
"""Size of the queue of new connections. The queue is long, so that other programs cannot keep hosts of the job out by
filling it."""
SOCKET_FOLDER_VARIABLE = "MICROJOBS_SOCKET_FOLDER"


@dataclass(frozen=True)
class Network:
    """Addresses and ports as one host uses them. In a container, no variables are set, and the defaults apply."""

    address: str = "0.0.0.0"  # noqa: S104  SageMaker reaches a container from outside
    """The address that this host listens on."""
    host_addresses: Mapping[str, str] = field(default_factory=dict)
    """The address of each host of the job, by host name."""
    ports: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """The port that a host listens on instead of a default port, by host name and default port."""
    socket_path: Path | None = None
    """The Unix socket that a server listens on instead of a port, because every user of the machine could connect to a
    port."""

    def resolve(self, host: str) -> str:
        """Return the host's address. If no address is set, return the host's name, because the name resolves."""
        return self.host_addresses.get(host, host)

    def port(self, host: str, default_port: int) -> int:
        """Return the port on which a host listens: the one that `ports` sets, or the default port."""
        return self.ports.get((host, default_port), default_port)

    def listen(self, port: int) -> socket.socket:
        """Return a socket that listens on a port of this host.

        Raises:
            PlatformError: the port is not available.
        """
        try:
            # If the port was reserved for this host, a socket of the same user is bound to it and does not listen. Then
            # both sockets must allow that they share the port.
            is_reserved = port in self.ports.values()
            return socket.create_server((self.address, port), backlog=BACKLOG, reuse_port=is_reserved)
        except OSError as error:
            raise PlatformError(f"cannot listen on {self.address} port {port}: {error}") from error

    def make_variables(self) -> dict[str, str]:
        addresses = ",".join(f"{host}={address}" for host, address in self.host_addresses.items())
        ports = ",".join(f"{host}:{default_port}={port}" for (host, default_port), port in self.ports.items())
        return {ADDRESS_VARIABLE: self.address, HOST_ADDRESSES_VARIABLE: addresses, HOST_PORTS_VARIABLE: ports}

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Network":
        ports = {}
        for key, port in _parse_pairs(environ.get(HOST_PORTS_VARIABLE, "")).items():
            host, _, default_port = key.rpartition(":")
            ports[host, int(default_port)] = int(port)
        folder = environ.get(SOCKET_FOLDER_VARIABLE)
        return cls(
            environ.get(ADDRESS_VARIABLE) or cls.address,
            _parse_pairs(environ.get(HOST_ADDRESSES_VARIABLE, "")),
            ports,
            cls.make_socket_path(folder) if folder else None,
        )

    @staticmethod
    def make_socket_path(folder: str) -> Path:
        return Path(folder) / "http.socket"


def connect_unix(path: Path, timeout: float | None) -> socket.socket:
    """Connect to a server's Unix socket. The client's socket has a name, by which the server identifies the connection.

    Raises:
        OSError: the server does not listen.
    """
    # the name is not longer than the server's name, because the kernel limits the length
    name = path.with_name(f"c{secrets.token_hex(5)}")
    with contextlib.ExitStack() as cleanup:
        connection = cleanup.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(timeout)
        try:
            connection.bind(str(name))
            connection.connect(str(path))
        finally:
            name.unlink(missing_ok=True)  # the connection keeps its name after the file is removed
        cleanup.pop_all()
    return connection


def _parse_pairs(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return {key: value for key, _, value in pairs}
