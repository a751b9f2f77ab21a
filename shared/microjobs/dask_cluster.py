"""The Dask cluster of a processing job: a scheduler on the first host, and one or more workers on each host.

Dask runs the code that it receives. Therefore, both sides of each connection prove that they have the job's
certificate (mutual TLS). On AWS, a job has no certificate, so only the job's own network protects Dask, as it protects
torchrun.

The functions that start servers need the package `distributed`, and import it only when they run.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microjobs.contract import Layout, ResourceConfig
from microjobs.errors import EXIT_OK, UserError
from microjobs.network import DASK_PORT, Network

if TYPE_CHECKING:
    from distributed import Scheduler, Security, Worker

POLL_INTERVAL = 0.01
"""Seconds between two checks whether all workers are connected."""
CONNECT_SECONDS = 60
"""Seconds for which a worker tries to connect to the scheduler."""
STATUS_POLL_INTERVAL = 0.1
"""Seconds between two checks of a worker's status."""
CLOSE_SECONDS = 5.0
"""Seconds that a worker may take to end after the scheduler has closed it."""
LOOPBACK = "127.0.0.1"
DASK_CONFIG = {
    "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
    # Each server has an HTTP port, even without a dashboard. Without routes, this port serves nothing.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # batch-score passes targets to other hosts as arguments of Dask's tasks. These arguments may be large.
    "distributed.admin.large-graph-warning-threshold": "1 PiB",
}


@dataclass(frozen=True)
class Certificate:
    """Paths of the job's certificate and of its private key, which all hosts share."""

    path: Path
    key_path: Path


@dataclass(frozen=True)
class ClusterSettings:
    """The settings with which one host takes part in the cluster.

    host_address: the IP address on which this host's servers listen.
    scheduler_address: IP address and port of the scheduler. Port 0 lets the only host of a job choose a port.
    """

    resources: ResourceConfig
    host_address: str
    scheduler_address: tuple[str, int]
    certificate: Certificate | None

    @classmethod
    def read(cls, layout: Layout, network: Network, resources: ResourceConfig) -> "ClusterSettings":
        """Return the settings of the host that runs this process.

        Raises:
            UserError: the job's certificate is incomplete, see `find_certificate`.
            OSError: a host name cannot be resolved.
        """
        certificate = find_certificate(layout)
        if len(resources.hosts) == 1:
            address = network.resolve(resources.current_host) if network.host_addresses else LOOPBACK
            return cls(resources, address, (address, 0), certificate)
        first_host = resources.first_host
        scheduler_address = socket.gethostbyname(network.resolve(first_host)), network.port(first_host, DASK_PORT)
        address = socket.gethostbyname(network.resolve(resources.current_host))
        return cls(resources, address, scheduler_address, certificate)

    @property
    def protocol(self) -> str:
        return "tls" if self.certificate else "tcp"

    def scheduler_url(self) -> str:
        host, port = self.scheduler_address
        return f"{self.protocol}://{host}:{port}"

    def client_variables(self, scheduler_url: str) -> dict[str, str]:
        """Return the variables that connect `dask.distributed.Client()` without arguments to the scheduler."""
        variables = {"DASK_SCHEDULER_ADDRESS": scheduler_url}
        if self.certificate is not None:
            prefix, certificate = "DASK_DISTRIBUTED__COMM", str(self.certificate.path)
            variables |= {
                f"{prefix}__REQUIRE_ENCRYPTION": "True",
                f"{prefix}__TLS__CA_FILE": certificate,
                f"{prefix}__TLS__CLIENT__CERT": certificate,
                f"{prefix}__TLS__CLIENT__KEY": str(self.certificate.key_path),
            }
        return variables


def find_certificate(layout: Layout) -> Certificate | None:
    """Return the job's certificate; None if the platform did not create one.

    Raises:
        UserError: the certificate or its key is missing, although the other file exists or the hosts share a secret.
    """
    certificate = Certificate(layout.job_certificate, layout.job_key)
    missing_paths = [path for path in (certificate.path, certificate.key_path) if not path.exists()]
    if not missing_paths:
        return certificate
    if layout.job_secret.exists() or len(missing_paths) == 1:
        raise UserError(
            f"{missing_paths[0]} does not exist: give every host of the job the same certificate, such as the output "
            f"of `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=job "
            f"-keyout {certificate.key_path.name} -out {certificate.path.name}`"
        )
    return None


async def serve_scheduler(settings: ClusterSettings, announce: Callable[[str], None]) -> None:
    """Run the scheduler until SIGTERM, or until a client shuts the cluster down.

    Args:
        announce: function that is called with the scheduler's URL when the scheduler listens, and again when the
            workers of all hosts are connected.
    """
    from distributed import Scheduler

    host, port = settings.scheduler_address
    async with Scheduler(host=host, port=port, **make_server_options(settings)) as scheduler:
        is_stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_stopping.set)
        announce(scheduler.address)
        while not _are_all_workers_connected(scheduler, settings.resources):
            await asyncio.sleep(POLL_INTERVAL)
        announce(scheduler.address)
        await asyncio.wait(
            [asyncio.create_task(is_stopping.wait()), asyncio.create_task(scheduler.finished())],
            return_when=asyncio.FIRST_COMPLETED,
        )


async def serve_worker(settings: ClusterSettings, scheduler_url: str, number: int, worker_count: int) -> None:
    """Run worker `number` of the `worker_count` workers of this host, until the scheduler closes it."""
    from distributed import Status, Worker

    worker = await Worker(
        scheduler_url,
        nthreads=1,
        name=f"{settings.resources.current_host}/{number}/{worker_count}",
        host=settings.host_address,
        **make_server_options(settings),
    )
    mute_log_while_closing(worker)
    while worker.status in (Status.running, Status.paused):
        await asyncio.sleep(STATUS_POLL_INTERVAL)
    try:
        await asyncio.wait_for(worker.finished(), CLOSE_SECONDS)
    except TimeoutError:  # a task may still run; its result is not needed, and a normal exit would wait for its end
        os._exit(EXIT_OK)


def mute_log_while_closing(worker: "Worker") -> None:
    """Drop Dask's log messages while a worker closes: its last heartbeat can fail, and Dask would log an error."""
    from distributed import Status

    closing_statuses = (Status.closing, Status.closing_gracefully, Status.closed)
    logging.getLogger("distributed.worker").addFilter(lambda _: worker.status not in closing_statuses)


def import_dask(variables: Mapping[str, str]) -> None:
    """Import Dask with DASK_CONFIG, and with these variables unless the user sets them."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    gc.disable()  # without this line, garbage collection would take a tenth of the import's time
    import dask
    import distributed  # noqa: F401  for the functions of this module and its callers

    gc.freeze()  # without this call, each fork would copy the memory of all modules at its first garbage collection
    gc.enable()
    dask.config.set(DASK_CONFIG)
    logging.getLogger("tornado.application").addFilter(is_not_about_a_stopped_listener)


def is_not_about_a_stopped_listener(record: logging.LogRecord) -> bool:
    """Return False for the error that Dask logs if another host begins a TLS connection and the listener has stopped.

    Hosts end at about the same time, so a host can connect to a host that is already ending.
    """
    return "non-started TCPListener" not in str(record.exc_info and record.exc_info[1])


def make_server_options(settings: ClusterSettings) -> Mapping[str, Any]:
    """Return the options that a scheduler and a worker have in common."""
    return {
        "protocol": settings.protocol,
        "security": _make_security(settings),
        "dashboard": False,
        "dashboard_address": f"{LOOPBACK}:0",
    }


def _make_security(settings: ClusterSettings) -> "Security | None":
    from distributed import Security

    if settings.certificate is None:
        return None
    certificate, key = str(settings.certificate.path), str(settings.certificate.key_path)
    roles = ("client", "scheduler", "worker")
    files = {f"tls_{role}_cert": certificate for role in roles} | {f"tls_{role}_key": key for role in roles}
    return Security(require_encryption=True, tls_ca_file=certificate, **files)


def _are_all_workers_connected(scheduler: "Scheduler", resources: ResourceConfig) -> bool:
    """Return whether all workers of all hosts are connected. The end of a worker's name is the number of workers of its
    host."""
    names = [str(state.name).split("/") for state in scheduler.workers.values()]
    expected_counts = {host: int(count) for host, _, count in names}
    connected_counts = Counter(host for host, _, _ in names)
    return all(connected_counts[host] == expected_counts.get(host, -1) for host in resources.hosts)
