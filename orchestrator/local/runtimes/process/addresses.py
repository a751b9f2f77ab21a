"""Addresses and ports of hosts. Each host has its own loopback address, so that jobs can use the same ports."""

import contextlib
import random
import socket
from collections.abc import Iterator, Mapping, Sequence

from microjobs.network import DASK_PORT, HEARTBEAT_PORT, TENSORFLOW_PORT, TORCH_PORT, Network

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  some frameworks listen on all addresses


@contextlib.contextmanager
def reserve(hosts: Sequence[str]) -> Iterator[tuple[Network, list[socket.socket]]]:
    """Yield a network with the addresses of a job's hosts. If there are several hosts, the network also has ports.

    Also yield the sockets that reserve the ports. The sockets do not listen. While a file descriptor of a socket is
    open, in this process or in one that inherited it, the system does not choose the socket's port for another program.
    A host can nevertheless listen on the port, because it asks for the port by its number and with the option of
    `_list_listeners`. Other programs can do the same. On the port that replaces HEARTBEAT_PORT, only programs of the
    same user can.

    Raise OSError if no address or port is available.
    """
    numbers = random.SystemRandom().sample(range(1, 1 << 22), len(hosts))  # the network has 22 bits for hosts
    addresses = {host: _format_address(number) for host, number in zip(hosts, numbers, strict=True)}
    with contextlib.ExitStack() as stack:
        port_sockets = {}
        for key, (address, option) in (_list_listeners(addresses) if len(hosts) > 1 else {}).items():
            port_sockets[key] = port_socket = stack.enter_context(socket.socket())
            port_socket.setsockopt(socket.SOL_SOCKET, option, 1)
            port_socket.bind((address, 0))
        ports = {key: port_socket.getsockname()[1] for key, port_socket in port_sockets.items()}
        yield Network(host_addresses=addresses, ports=ports), list(port_sockets.values())


def _format_address(number: int) -> str:
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _list_listeners(addresses: Mapping[str, str]) -> dict[tuple[str, int], tuple[str, int]]:
    """Return a job's listeners by host and default port: an address, and the socket option that shares the port.

    The option SO_REUSEPORT shares a port only between sockets of one user. Frameworks and Dask do not set it, so their
    ports have SO_REUSEADDR.
    """
    first_host = next(iter(addresses))
    return {
        (first_host, HEARTBEAT_PORT): (addresses[first_host], socket.SO_REUSEPORT),
        (first_host, DASK_PORT): (addresses[first_host], socket.SO_REUSEADDR),
        (first_host, TORCH_PORT): (EVERY_ADDRESS, socket.SO_REUSEADDR),
        **{(host, TENSORFLOW_PORT): (EVERY_ADDRESS, socket.SO_REUSEADDR) for host in addresses},
    }
