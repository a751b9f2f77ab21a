"""Ports for the servers that tests start."""

import random
import socket
from collections.abc import Iterator

PORTS = range(10_000, 32_000)
"""Ports that the system does not assign to clients. On Linux, it assigns ports from 32768 on."""

_first = random.SystemRandom().randrange(len(PORTS))
_candidates: Iterator[int] = iter([*PORTS[_first:], *PORTS[:_first]])


def find_free_port() -> int:
    """Return a port on which no program listens, and which this process has not returned before.

    If two processes asked the system for any free port, both could get the same one before their servers listen.
    Servers that set SO_REUSEPORT would then share it, and get each other's requests. So each process tries its own
    sequence of ports.
    """
    for port in _candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port of {PORTS} is left")
