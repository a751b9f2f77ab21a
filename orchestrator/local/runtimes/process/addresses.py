"""Addresses and ports of hosts: each has a loopback address of its own, so that jobs do not get in each other's way."""

import contextlib
import random
import socket
from collections.abc import Iterator, Mapping, Sequence

from microjobs.network import TENSORFLOW_PORT, TORCH_PORT, WATCH_PORT, Network

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  where frameworks listen, whatever a job says


@contextlib.contextmanager
def reserve(hosts: Sequence[str]) -> Iterator[tuple[Network, list[socket.socket]]]:
    """Addresses for the hosts of a job, and free ports for what listens on them when there are several.

    The sockets are bound and do not listen. As long as a copy of one is open, the system gives its port to nobody
    else. The port of our own watch can be listened on by processes of the same user only.

    Raises:
        OSError: no address or port is available.
    """
    numbers = random.SystemRandom().sample(range(1, 1 << 22), len(hosts))  # 10 bits are the network's
    addresses = {host: _address(number) for host, number in zip(hosts, numbers, strict=True)}
    with contextlib.ExitStack() as stack:
        held = {
            key: stack.enter_context(_bound(address, option))
            for key, (address, option) in (_listeners(addresses) if len(hosts) > 1 else {}).items()
        }
        ports = {key: holder.getsockname()[1] for key, holder in held.items()}
        yield Network(hosts=addresses, ports=ports), list(held.values())


def _address(number: int) -> str:
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _listeners(addresses: Mapping[str, str]) -> dict[tuple[str, int], tuple[str, int]]:
    """What hosts listen on, by host and usual port: an address, and the option by which they share its port.

    Frameworks share no port with SO_REUSEPORT, which is for sockets of one user only.
    """
    first = next(iter(addresses))
    return {
        (first, WATCH_PORT): (addresses[first], socket.SO_REUSEPORT),
        (first, TORCH_PORT): (EVERY_ADDRESS, socket.SO_REUSEADDR),
        **{(host, TENSORFLOW_PORT): (EVERY_ADDRESS, socket.SO_REUSEADDR) for host in addresses},
    }


def _bound(address: str, option: int) -> socket.socket:
    holder = socket.socket()
    try:
        holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind((address, 0))
    except BaseException:
        holder.close()
        raise
    return holder
