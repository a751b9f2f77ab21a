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
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104  only with --all-addresses
MAX_CONCURRENT_REQUESTS = 64
"""Maximum number of requests that are answered at the same time. It does not count small invocations, which are served
in tasks."""

CONNECT_TIMEOUT = 1.0
"""Timeout in seconds for the connection with which the server tests its own address at its start."""

MACHINE_NAMES = (LOOPBACK, "localhost", "host.docker.internal")
"""Names of this machine in the requests of clients. Hosts of jobs may use another address."""


class JobAccess(NamedTuple):
    """The address of this server for the hosts of jobs."""

    authority: str
    """The host and the port of the server's URL."""
    listeners: Sequence[Server] = ()
    """Listeners that only jobs use."""
    is_forwarded: bool = False
    """Whether the authority works only in hosts, because a guard forwards their connections to the server."""
    is_reachable: bool = True
    """Whether hosts can connect to the server."""


def listen(address: str, port: int, *, allow_missing_address: bool = False) -> Server:
    """Listen on an address. Raise ServerError if this is impossible.

    Args:
        allow_missing_address: whether to listen even if this machine does not have the address yet.
    """
    options = {"numthreads": MAX_CONCURRENT_REQUESTS, "request_queue_size": 128, "timeout": 60}
    server = Server((address, port), allow_missing_address=allow_missing_address, **options)
    try:
        server.prepare()
    except OSError as error:
        reason = str(error).rpartition("] ")[2].rstrip(") ")  # cheroot's message lists addresses and errors
        raise ServerError(f"cannot listen on {address}:{port}: {reason}; use another --port") from error
    return server


def listen_for_jobs(runtime: Runtime, config: Config, port: int, cleanup: ExitStack) -> JobAccess:
    """Listen on the address that hosts of jobs use, unless clients use the same address.

    If this fails, hosts connect through the engine. If this also fails, the server starts without an address for jobs:
    clients do not need the address, and jobs that need it report the error.
    """
    if not (address := runtime.machine_address):
        return _listen_through_engine(runtime, port, cleanup)
    if address in MACHINE_NAMES or (config.all_addresses and runtime.machine_address_exists_only_while_hosts_run):
        return JobAccess(f"{address}:{port}")
    try:
        if config.all_addresses:
            # The server already listens on all addresses of its machine, which may be a container. The connection tests
            # that the address is one of them.
            socket.create_connection((address, port), CONNECT_TIMEOUT).close()
            return JobAccess(f"{address}:{port}")
        listener = listen(address, port, allow_missing_address=runtime.machine_address_exists_only_while_hosts_run)
    except (OSError, ServerError) as error:
        logger.info("jobs cannot connect to %s:%d: %s", address, port, error)
        return _listen_through_engine(runtime, port, cleanup)
    cleanup.callback(listener.stop)
    return JobAccess(f"{address}:{port}", (listener,))


def _listen_through_engine(runtime: Runtime, port: int, cleanup: ExitStack) -> JobAccess:
    """Let hosts of jobs connect through the engine, if the runtime supports it."""
    listener = listen(LOOPBACK, 0)
    cleanup.callback(listener.stop)
    if host_port := runtime.forward(listener.bind_addr[1]):
        return JobAccess(f"{LOOPBACK}:{host_port}", (listener,), is_forwarded=True)
    logger.warning("jobs cannot connect to this server: they install packages without its cache")
    return JobAccess(f"{runtime.machine_address or LOOPBACK}:{port}", (listener,), is_reachable=False)
