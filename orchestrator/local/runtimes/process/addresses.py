"""Addresses and ports of hosts. Each host has its own loopback address, so that jobs can use the same ports."""

import contextlib
import random
import socket
from collections.abc import Iterator, Mapping, Sequence

from microjobs.network import DASK_PORT, TENSORFLOW_PORT, TORCH_PORT, WATCH_PORT, Network

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  frameworks listen on all addresses


@contextlib.contextmanager
def reserve(hosts: Sequence[str]) -> Iterator[tuple[Network, list[socket.socket]]]:
    """Yield the addresses of a job's hosts, and ports if there are several hosts, with sockets that reserve the ports.

    The sockets do not listen. While a copy of a socket is open, the system assigns its port to no other program. Only
    processes of the same user can listen on the heartbeat's port. Raise OSError if no address or port is available.
    """
    numbers = random.SystemRandom().sample(range(1, 1 << 22), len(hosts))  # the network has 22 bits for hosts
    addresses = {host: _format_address(number) for host, number in zip(hosts, numbers, strict=True)}
    with contextlib.ExitStack() as stack:
        holders = {}
        for key, (address, option) in (_list_listeners(addresses) if len(hosts) > 1 else {}).items():
            holders[key] = holder = stack.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
            holder.bind((address, 0))
        ports = {key: holder.getsockname()[1] for key, holder in holders.items()}
        yield Network(hosts=addresses, ports=ports), list(holders.values())


def _format_address(number: int) -> str:
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _list_listeners(addresses: Mapping[str, str]) -> dict[tuple[str, int], tuple[str, int]]:
    """Return a job's listeners by host and default port: an address, and the socket option that shares the port.

    Frameworks and Dask do not set SO_REUSEPORT, which shares a port between sockets of one user.
    """
    first = next(iter(addresses))
    return {
        (first, WATCH_PORT): (addresses[first], socket.SO_REUSEPORT),
        (first, DASK_PORT): (addresses[first], socket.SO_REUSEADDR),
        (first, TORCH_PORT): (EVERY_ADDRESS, socket.SO_REUSEADDR),
        **{(host, TENSORFLOW_PORT): (EVERY_ADDRESS, socket.SO_REUSEADDR) for host in addresses},
    }
