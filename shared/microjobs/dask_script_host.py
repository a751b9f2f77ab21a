"""Runs one host's part of a Dask job: its workers and, on the first host, the scheduler and the user's command.

`dask_script` starts this program on each host. The servers (the scheduler and the workers) are forks of this process:
otherwise, each server would need half a second of CPU time to import Dask. If a server fails, the job fails. Otherwise,
Dask would repeat a failed worker's tasks on other workers, and a task that needs too much memory would end all workers,
one after the other.
"""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from microjobs import worker
from microjobs.contract import Layout, read_processing_resource_config
from microjobs.dask_cluster import ClusterSettings, import_dask, serve_scheduler, serve_worker
from microjobs.errors import EXIT_BUG, EXIT_OK, EXIT_PLATFORM, EXIT_USER, explain_error
from microjobs.interpreter import read_user_paths
from microjobs.network import Network
from microjobs.script_mode import StderrReader, format_reason
from microjobs.stopping import StopRequest, stop_request

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
POLL_INTERVAL = 0.02
"""Seconds between two checks of the processes."""
START_SECONDS = 120.0
"""Time limit for the connections of all workers, after all hosts have joined."""
CLOSE_SECONDS = 10.0
"""Time limit for the end of this host's servers after the user's command has ended."""

SCRIPT_SUFFIXES = (".py", ".sh")

SERVER_VARIABLES = {
    "DASK_LOGGING__DISTRIBUTED": "warning",
    # Each core has a worker, so a worker uses one thread. Dask's own worker processes do the same.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Environment variables of the servers. Values that the user sets have priority."""


class HostError(Exception):
    """A server or the user's command failed. The message is the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Servers:
    """The servers of the cluster on this host: processes by name."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("fork")
        self._processes: dict[str, multiprocessing.context.ForkProcess] = {}
        self._announcements, self._announcer = self._context.Pipe(duplex=False)

    def start_scheduler(self) -> None:
        self._start("Dask's scheduler", serve_scheduler, self._settings, self._announcer.send)

    def start_workers(self, scheduler_url: str, worker_count: int) -> None:
        for number in range(1, worker_count + 1):
            name = f"Dask worker {number} of {worker_count}"
            self._start(name, serve_worker, self._settings, scheduler_url, number, worker_count)

    def wait_for_announcement(self, stop: StopRequest) -> str | None:
        """Wait for the scheduler's next announcement, and return the scheduler's URL. Return None on a stop request.

        The first announcement means that the scheduler listens, the second that the workers of all hosts are connected.

        Raises:
            HostError: a server failed, or the workers of all hosts did not connect in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._announcements.poll(POLL_INTERVAL):
            self.check()
            if stop:
                return None
            if time.monotonic() > deadline:
                raise HostError(
                    EXIT_PLATFORM,
                    f"not all Dask workers connected within {START_SECONDS:g} s; see the log of each host",
                )
        return str(self._announcements.recv())

    def check(self) -> None:
        """Raise HostError if a server failed."""
        for name, process in self._processes.items():
            if process.exitcode:
                raise HostError(*_explain(name, process.exitcode))

    def have_ended(self) -> bool:
        return all(process.exitcode is not None for process in self._processes.values())

    def close(self) -> None:
        """Let the scheduler close the workers of all hosts and itself. Wait until this host's servers have ended."""
        scheduler, *_ = self._processes.values()
        # the scheduler may have ended already, because the script has called `Client.shutdown`
        if scheduler.exitcode is None:
            scheduler.terminate()
        deadline = time.monotonic() + CLOSE_SECONDS
        while not self.have_ended() and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()

    def _start(self, name: str, serve: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        process = self._context.Process(target=_run_server, args=(serve, arguments))
        process.start()
        self._processes[name] = process


class Command:
    """The user's command. Its stderr goes to the log, and the end of stderr becomes the reason of a failure."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self._name = next((Path(part).name for part in command if part.endswith(SCRIPT_SUFFIXES)), command[0])
        try:
            self._process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE)
        except OSError as error:
            raise HostError(EXIT_USER, f"cannot run {command[0]!r}: {error.strerror}") from error
        self._stderr_reader = StderrReader(self._process)
        self._was_signalled = False

    def wait(self, servers: Servers, stop: StopRequest) -> int:
        """Wait until the command has ended, and forward a stop signal to it. Return EXIT_OK, or EXIT_BUG if it failed
        after a stop signal.

        Raises:
            HostError: the command failed without a stop signal, or a server failed and the command was killed.
        """
        try:
            return self._wait(servers, stop)
        finally:
            self._process.kill()  # this call has no effect if the process has ended
            self._process.wait()

    def _wait(self, servers: Servers, stop: StopRequest) -> int:
        while (code := self._process.poll()) is None:
            servers.check()
            if stop.signal_number is not None and not self._was_signalled:
                self._was_signalled = True
                self._process.send_signal(stop.signal_number)
            time.sleep(POLL_INTERVAL)
        stderr = self._stderr_reader.read()
        if code != 0 and not self._was_signalled:
            servers.check()  # a worker that failed is a more probable cause than the command
            raise HostError(EXIT_BUG, format_reason(self._name, code, stderr))
        return EXIT_OK if code == 0 else EXIT_BUG


def main(command: Sequence[str]) -> int:
    """Run this host's part of the job, report a failure to the parent process, and return the exit code."""
    variables = {name: value for name, value in os.environ.items() if name != worker.REPORT_VARIABLE}
    with stop_request() as stop:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # `distributed.launch` has blocked these signals
        try:
            return _run(command, variables, stop)
        except HostError as error:
            worker.report(error.code, str(error))
        except Exception as error:
            worker.report(*explain_error(error))
        return EXIT_BUG


def _run(command: Sequence[str], variables: Mapping[str, str], stop: StopRequest) -> int:
    layout = Layout.from_environment()
    settings = ClusterSettings.read(layout, Network.read(), read_processing_resource_config(layout))
    import_dask(SERVER_VARIABLES)  # the servers are forks of this process
    worker_count = _count_cores()
    sys.path[:0] = _find_module_folders(command)  # tasks of the user's script may import modules of these folders
    servers = Servers(settings)
    try:
        if settings.resources.is_first:
            return _run_first_host(servers, settings, worker_count, command, variables, stop)
        servers.start_workers(settings.scheduler_url(), worker_count)
        # This loop does not check `stop`: on the first host, a stop request ends the user's command. Then the scheduler
        # closes these workers.
        while not servers.have_ended():
            time.sleep(POLL_INTERVAL)
            servers.check()
        return EXIT_OK
    finally:
        servers.kill()


def _run_first_host(
    servers: Servers,
    settings: ClusterSettings,
    worker_count: int,
    command: Sequence[str],
    variables: Mapping[str, str],
    stop: StopRequest,
) -> int:
    servers.start_scheduler()
    if (scheduler_url := servers.wait_for_announcement(stop)) is not None:
        servers.start_workers(scheduler_url, worker_count)
        scheduler_url = servers.wait_for_announcement(stop)
    if scheduler_url is None:
        return EXIT_BUG
    code = Command(command, {**variables, **settings.client_variables(scheduler_url)}).wait(servers, stop)
    servers.close()
    return code


def _count_cores() -> int:
    import dask.system

    return int(dask.system.CPU_COUNT)


def _find_module_folders(command: Sequence[str]) -> list[str]:
    """Return the folders in which the user's script finds modules. This interpreter ignores PYTHONPATH."""
    scripts = [Path(part) for part in command if part.endswith(".py")]
    folders = [str(script.resolve().parent) for script in scripts[:1] if script.exists()]
    return [*folders, str(Path.cwd()), *read_user_paths()]


def _run_server(serve: Callable[..., Coroutine[Any, Any, None]], arguments: Sequence[object]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve(*arguments))


def _explain(name: str, code: int) -> tuple[int, str]:
    """Return the exit code and the reason of a server that failed."""
    if code == -signal.SIGKILL:
        remedy = "most likely out of memory: use a larger instance, more hosts or smaller partitions"
        return EXIT_PLATFORM, f"{name} was ended by SIGKILL, {remedy}"
    if code < 0:
        return EXIT_BUG, f"{name} was ended by {signal.Signals(-code).name}: a crash in native code; see the log above"
    return EXIT_BUG, f"{name} exited with code {code}; see the log above"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
