"""The hosts of a processing job as a Dask cluster. A call of a function on one host is a task of this host's worker.

Each host has one Dask worker. It runs its tasks one after the other in the main thread of the host's process, because a
signal can interrupt a task only in this thread, and an interrupted task must clean up. A task uses all cores with one
thread per core, see `arrays.map_parts`.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from microjobs.contract import Layout, ResourceConfig
from microjobs.dask_cluster import (
    POLL_INTERVAL,
    ClusterSettings,
    import_dask,
    make_server_options,
    mute_log_while_closing,
)
from microjobs.errors import PlatformError
from microjobs.hosts import Hosts, RegisterFile
from microjobs.network import Network

if TYPE_CHECKING:
    from distributed import Client, Worker

START_SECONDS = 45.0
"""Time limit for the connections of all workers, after all hosts have joined."""
CLOSE_SECONDS = 10.0
"""Seconds that this host's worker may take to end after the first host has ended the work."""
EXTENSION = "microjobs"
"""Name of the Dask worker's extension that contains the `MainThread` of its host."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def run(resources: ResourceConfig, coordinate: Callable[[Hosts], None], register_file: RegisterFile) -> None:
    """On the first host, run `coordinate`. On the other hosts, run the tasks that the first host sends, until it ends
    the work.

    Raises:
        ConnectionError: the connection to another host was lost.
        PlatformError: not all workers connected in time.
    """
    settings = ClusterSettings.read(Layout.from_environment(), Network.read(), resources)
    import_dask({"DASK_LOGGING__DISTRIBUTED": "error"})
    main_thread = MainThread(register_file)
    loop = _start_loop()
    if resources.is_first:
        _run_first_host(loop, settings, main_thread, coordinate)
    else:
        _run_tasks(loop, settings, main_thread)


class MainThread:
    """Runs tasks of this host in its main thread.

    If a task fails, `run_until` raises the task's error, and the task's future gets no result. The heartbeat then ends
    the job on all hosts.
    """

    def __init__(self, register_file: RegisterFile) -> None:
        self.register_file = register_file
        self.is_finished = False
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )

    def submit(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> Future[T]:
        """Run a call in the main thread. Other threads call this method."""
        future: Future[T] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def wake(self, _: object) -> None:
        """Let `run_until` check its condition at once."""
        self._tasks.put(None)

    def run_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            with contextlib.suppress(queue.Empty):
                task = self._tasks.get(timeout=POLL_INTERVAL)
                if task is not None:
                    future, function, arguments = task
                    future.set_result(function(*arguments))


class DaskHosts:
    """The first host's access to all hosts of the job. Implements `hosts.Hosts`."""

    def __init__(
        self, resources: ResourceConfig, client: "Client", loop: asyncio.AbstractEventLoop, main_thread: MainThread
    ) -> None:
        self.resources = resources
        self._client, self._loop, self._main_thread = client, loop, main_thread

    def call(
        self, function: Callable[[*Arguments], T], arguments_by_host: Mapping[str, tuple[*Arguments]]
    ) -> dict[str, T]:
        return self._run(_call, function, arguments_by_host)

    def write(
        self, function: Callable[[RegisterFile, *Arguments], T], arguments_by_host: Mapping[str, tuple[*Arguments]]
    ) -> dict[str, T]:
        return self._run(_write, function, arguments_by_host)

    def finish(self) -> None:
        """End the work of all hosts."""
        self._run(_finish, None, dict.fromkeys(self.resources.hosts, ()))

    def _run(
        self, task: Callable[..., Any], function: object, arguments_by_host: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, Any]:
        future = asyncio.run_coroutine_threadsafe(self._gather(task, function, arguments_by_host), self._loop)
        future.add_done_callback(self._main_thread.wake)
        self._main_thread.run_until(future.done)
        return dict(zip(arguments_by_host, future.result(), strict=True))

    async def _gather(
        self, task: Callable[..., Any], function: object, arguments_by_host: Mapping[str, tuple[Any, ...]]
    ) -> Any:
        futures = [
            self._client.submit(task, function, arguments, workers=[host], pure=False)
            for host, arguments in arguments_by_host.items()
        ]
        return await self._client.gather(futures)


async def _call(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """Run a call on the host of the Dask worker that runs this task."""
    return await asyncio.wrap_future(_find_main_thread().submit(function, arguments))


async def _write(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    main_thread = _find_main_thread()
    return await asyncio.wrap_future(main_thread.submit(function, (main_thread.register_file, *arguments)))


async def _finish(_function: None, _arguments: tuple[()]) -> None:
    main_thread = _find_main_thread()
    main_thread.is_finished = True
    main_thread.wake(None)


def _find_main_thread() -> MainThread:
    from distributed import get_worker

    main_thread: MainThread = get_worker().extensions[EXTENSION]
    return main_thread


def _run_first_host(
    loop: asyncio.AbstractEventLoop,
    settings: ClusterSettings,
    main_thread: MainThread,
    coordinate: Callable[[Hosts], None],
) -> None:
    stack = contextlib.AsyncExitStack()
    client = _run_coroutine(loop, _start_cluster(stack, settings, main_thread))
    hosts = DaskHosts(settings.resources, client, loop, main_thread)
    coordinate(hosts)
    hosts.finish()
    _run_coroutine(loop, stack.aclose())


async def _start_cluster(
    stack: contextlib.AsyncExitStack, settings: ClusterSettings, main_thread: MainThread
) -> "Client":
    """Start the scheduler, this host's worker and a client, and wait for the workers of all hosts."""
    from distributed import Client, Scheduler

    host, port = settings.scheduler_address
    try:
        scheduler = await stack.enter_async_context(Scheduler(host=host, port=port, **make_server_options(settings)))
    except RuntimeError as error:  # Dask raises this error if a server cannot start
        raise PlatformError(f"cannot listen on {host} port {port}: {error.__cause__}") from error
    await stack.enter_async_context(await _start_worker(settings, scheduler.address, main_thread))
    options = make_server_options(settings)
    client = Client(scheduler.address, security=options["security"], asynchronous=True, set_as_default=False)
    client = await stack.enter_async_context(client)
    missing_hosts = set(settings.resources.hosts)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while missing_hosts := {host for host in settings.resources.hosts if host not in scheduler.aliases}:
                await asyncio.sleep(POLL_INTERVAL)
    if missing_hosts:
        raise PlatformError(
            f"the Dask worker of {', '.join(sorted(missing_hosts))} did not connect to {scheduler.address} within "
            f"{START_SECONDS:g} s: give every host of the job the same certificate, and allow connections between hosts"
        )
    return client


def _run_tasks(loop: asyncio.AbstractEventLoop, settings: ClusterSettings, main_thread: MainThread) -> None:
    worker = _run_coroutine(loop, _start_worker(settings, settings.scheduler_url(), main_thread))

    def is_done() -> bool:
        if not main_thread.is_finished and not _is_running(worker):
            raise ConnectionError(f"the connection to the Dask scheduler at {settings.scheduler_url()} was lost")
        return main_thread.is_finished

    main_thread.run_until(is_done)
    _run_coroutine(loop, asyncio.wait_for(worker.finished(), CLOSE_SECONDS))


async def _start_worker(settings: ClusterSettings, scheduler_url: str, main_thread: MainThread) -> "Worker":
    from distributed import Worker

    worker = Worker(
        scheduler_url,
        nthreads=1,
        name=settings.resources.current_host,
        host=settings.host_address,
        memory_limit=0,  # with a limit, Dask would pause a worker whose task uses half of the memory
        **make_server_options(settings),
    )
    mute_log_while_closing(worker)
    worker.extensions[EXTENSION] = main_thread
    return await worker


def _is_running(worker: "Worker") -> bool:
    from distributed import Status

    return worker.status in (Status.running, Status.paused)


def _start_loop() -> asyncio.AbstractEventLoop:
    """Start an event loop in a thread that does not keep the process alive."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="dask", daemon=True).start()
    return loop


def _run_coroutine(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine in the event loop, and return its result.

    Raises:
        ConnectionError: the connection to another host was lost, or could not be made.
    """
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    except (OSError, RuntimeError) as error:
        # Dask raises RuntimeError if a server or a worker cannot start
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, OSError):
            raise
        raise ConnectionError(str(cause)) from error
