"""Addresses on which the server listens: one for clients, and one for the hosts of jobs."""

import logging
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.control import ServerError
from microjobs_orchestrator.local.gateway.listener import Server
from microjobs_orchestrator.local.runtimes.base import Runtime

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104  only with an option
MAX_CONCURRENT_REQUESTS = 64
"""Number of requests that are answered at the same time, without small invocations, which are served in tasks."""

CONNECT_TIMEOUT = 1.0
"""Timeout in seconds for the connection with which the server tests its own address at its start."""

MACHINE_NAMES = (LOOPBACK, "localhost", "host.docker.internal")
"""Names of this machine in the requests of clients. Hosts of jobs may use another address."""


class JobAccess(NamedTuple):
    """How the hosts of jobs connect to this server."""

    authority: str
    """The host and the port of the server's URL."""
    listeners: Sequence[Server] = ()
    """Listeners that only jobs use."""
    is_forwarded: bool = False
    """Whether the URL leads to the server only in hosts."""
    is_reachable: bool = True


def listen(address: str, port: int, *, may_be_absent: bool = False) -> Server:
    options = {"numthreads": MAX_CONCURRENT_REQUESTS, "request_queue_size": 128, "timeout": 60}
    server = Server((address, port), may_be_absent=may_be_absent, **options)
    try:
        server.prepare()
    except OSError as error:
        reason = str(error).rpartition("] ")[2].rstrip(") ")  # cheroot gives a list of addresses and errors
        raise ServerError(f"cannot listen on {address}:{port}: {reason}; use another --port") from error
    return server


def listen_for_jobs(runtime: Runtime, config: Config, port: int, cleanup: ExitStack) -> JobAccess:
    """Listen on the address that hosts of jobs use, unless clients use the same address.

    Clients do not need this address, and jobs that need it report the error if hosts cannot connect.
    """
    if not (address := runtime.machine_address):
        return _forward_jobs(runtime, port, cleanup)
    if address in MACHINE_NAMES or (config.all_addresses and runtime.gets_address_later):
        return JobAccess(f"{address}:{port}")
    try:
        if config.all_addresses:  # another machine may have the address, such as the one that runs this container
            socket.create_connection((address, port), CONNECT_TIMEOUT).close()
            return JobAccess(f"{address}:{port}")
        listener = listen(address, port, may_be_absent=runtime.gets_address_later)
    except (OSError, ServerError) as error:
        logger.info("jobs cannot connect to %s:%d: %s", address, port, error)
        return _forward_jobs(runtime, port, cleanup)
    cleanup.callback(listener.stop)
    return JobAccess(f"{address}:{port}", (listener,))


def _forward_jobs(runtime: Runtime, port: int, cleanup: ExitStack) -> JobAccess:
    """Let hosts of jobs connect through the engine."""
    listener = listen(LOOPBACK, 0)
    cleanup.callback(listener.stop)
    if host_port := runtime.forward(listener.bind_addr[1]):
        return JobAccess(f"{LOOPBACK}:{host_port}", (listener,), is_forwarded=True)
    logger.warning("jobs cannot connect to this server, and use no cache of packages")
    return JobAccess(f"{runtime.machine_address or LOOPBACK}:{port}", (listener,), is_reachable=False)
