"""The same work on several hosts, with Dask distributed: scheduler on the first host, one worker on each.

Work is pinned to the host that has the files. A host that never comes or is lost ends the job on all hosts with the
reason, within `JOIN_SECONDS` and `LOST_SECONDS`. Dask's protocol trusts its peers: it is bound to the job's own
network, as SageMaker gives every job one.
"""

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import dask

from microjobs.contract import ResourceConfig
from microjobs.errors import JobError, PlatformError
from microjobs.network import Network

JOIN_SECONDS = 45
LOST_SECONDS = 20
PORT = 8786

# Before the import: Dask sets up its loggers then. What they would say of a lost host, our own reason says better.
dask.config.set(
    {
        "logging": {"distributed": "critical", "tornado.application": "critical"},
        "temporary-directory": tempfile.gettempdir(),  # only there and below the contract's root may be written
        "distributed.scheduler.worker-ttl": f"{LOST_SECONDS}s",
        "distributed.scheduler.allowed-failures": 0,
        "distributed.comm.timeouts.connect": "10s",
        "distributed.comm.timeouts.tcp": f"{LOST_SECONDS}s",
        "distributed.admin.tick.limit": "60s",
    }
)

from distributed import Client, Scheduler, SchedulerPlugin, SpecCluster, Worker  # noqa: E402

logger = logging.getLogger("microjobs")

T = TypeVar("T")

OUTCOME = "microjobs_outcome"
"""Attribute of a worker: how the job ended, as the first host told it."""


class _Watch(SchedulerPlugin):  # type: ignore[misc]  # distributed has no type hints
    """Remembers which hosts were lost."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.lost: list[str] = []

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self.names[worker] = scheduler.workers[worker].name

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:  # noqa: ARG002  Dask passes it
        self.lost.append(self.names[worker])


class Cluster:
    """The hosts of a job, seen from the first one."""

    def __init__(self, client: Client, watch: _Watch, names: list[str]) -> None:
        self.names = names
        self._client = client
        self._watch = watch

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        futures = {
            host: self._client.submit(function, *values, workers=[host], allow_other_workers=False, pure=False)
            for host, values in arguments.items()
        }
        while not all(future.done() for future in futures.values()):
            failed = [future for future in futures.values() if future.status == "error"]
            if failed:
                break
            self.check_lost()
            time.sleep(0.02)
        self.check_lost()
        for future in futures.values():
            if future.status == "error":
                raise future.exception()
        return {host: future.result() for host, future in futures.items()}

    def check_lost(self) -> None:
        """Raises PlatformError if a host is gone."""
        if self._watch.lost:
            lost = ", ".join(sorted(set(self._watch.lost)))
            raise PlatformError(f"lost host {lost}: its container ended or its network failed; see its log")

    def wait_for_all(self) -> None:
        """Raises PlatformError if a host does not come."""
        try:
            self._client.wait_for_workers(len(self.names), timeout=JOIN_SECONDS)
        except TimeoutError:
            here = set(self._watch.names.values())
            missing = ", ".join(host for host in self.names if host not in here)
            raise PlatformError(
                f"host {missing} did not join within {JOIN_SECONDS} s: {len(here)} of {len(self.names)} hosts came"
            ) from None

    def tell(self, outcome: JobError | None) -> None:
        """Tell every host that is still there how the job ended."""
        with contextlib.suppress(Exception):  # a host that cannot be told sees that the first one is gone
            self._client.run(_remember, outcome or True, on_error="ignore")


def _remember(outcome: JobError | bool, dask_worker: Worker) -> None:
    setattr(dask_worker, OUTCOME, outcome)


@contextlib.contextmanager
def first_host(resources: ResourceConfig) -> Iterator[Cluster]:
    """The job's hosts, for the first one of them to give work to.

    Raises:
        PlatformError: a host did not come or was lost.
    """
    host = resources.current_host
    common = {"host": Network.read().resolve(host), "dashboard_address": ":0", "dashboard": False}
    with (
        SpecCluster(
            scheduler={"cls": Scheduler, "options": {**common, "port": PORT}},
            workers={host: {"cls": Worker, "options": {**common, "nthreads": 1}}},
            silence_logs=False,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        watch = _Watch()
        for worker in cluster.scheduler.workers:
            watch.add_worker(cluster.scheduler, worker)
        cluster.scheduler.add_plugin(watch)
        hosts = Cluster(client, watch, list(resources.hosts))
        try:
            hosts.wait_for_all()
            yield hosts
        except JobError as error:
            hosts.tell(error)
            raise
        except Exception as error:
            hosts.tell(PlatformError(f"{host} failed: {error!r}"))
            raise
        hosts.tell(None)


def other_host(resources: ResourceConfig) -> None:
    """Work for the first host until it says how the job ended.

    Raises:
        JobError: the reason that ended the job, the same on every host.
        PlatformError: the first host did not answer or was lost.
    """
    outcome = asyncio.run(_work(resources))
    if isinstance(outcome, JobError):
        raise outcome
    if outcome is None:
        raise PlatformError(f"lost host {resources.first_host}, the first of the job; see its log")


async def _work(resources: ResourceConfig) -> JobError | bool | None:
    first, network = resources.first_host, Network.read()
    worker = Worker(
        f"tcp://{network.resolve(first)}:{PORT}",
        name=resources.current_host,
        host=network.resolve(resources.current_host),
        nthreads=1,
        death_timeout=JOIN_SECONDS,
        dashboard_address=":0",
        dashboard=False,
    )
    try:
        await worker
    except (TimeoutError, OSError) as error:
        raise PlatformError(f"host {first}, the first of the job, did not answer within {JOIN_SECONDS} s") from error
    await worker.finished()
    outcome: JobError | bool | None = getattr(worker, OUTCOME, None)
    return outcome
