"""Addresses of hosts: each has a loopback address of its own, so that jobs do not get in each other's way."""

import random
import socket

RESERVED_PORT = 8785
"""Bound for as long as an address is taken, so that no other job takes it, whoever's it is."""
ATTEMPTS = 100


def reserve() -> socket.socket:
    """A socket that holds an address of 127.64.0.0/10 until its last copy is closed.

    Raises:
        OSError: there is none to be had.
    """
    for attempt in range(ATTEMPTS):
        holder = socket.socket()
        try:
            holder.bind((_any_address(), RESERVED_PORT))
        except OSError:
            holder.close()
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return holder
    raise AssertionError  # the loop returns or raises


def _any_address() -> str:
    random_part = random.SystemRandom().randrange(1, 1 << 22)  # 10 bits are the network's
    return f"127.{64 + (random_part >> 16)}.{random_part >> 8 & 255}.{random_part & 255}"


def address_of(holder: socket.socket) -> str:
    address: str = holder.getsockname()[0]
    return address


def free_port(address: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port
