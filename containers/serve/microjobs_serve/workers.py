"""The worker processes: how many, forked by Granian, and what they tell the main process when they cannot go on."""

import contextlib
import functools
import math
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import MPServer

from microjobs.errors import PlatformError, UserError

from .metrics import Metrics
from .rsgi import Application, spawn_worker

QUIET_SECONDS = 0.25
"""After SIGTERM: no request for so long, and the server stops."""
DRAIN_SECONDS = 5.0
"""The same for clients that never pause."""
STOP_SECONDS = 20
"""What requests in flight then get to end, within the 30 s that hosting gives."""

CONNECTIONS = 4096
"""Clients that may be connected to one worker; more wait until one goes."""

OTHER_FILES = 64
"""What a worker has open besides."""

CGROUP = Path("/sys/fs/cgroup")


def count(environ: Mapping[str, str]) -> int:
    """One worker for each CPU that this container may use, or SAGEMAKER_MODEL_SERVER_WORKERS.

    Raises:
        UserError: the variable is not a positive number.
    """
    wanted = environ.get("SAGEMAKER_MODEL_SERVER_WORKERS", "")
    if not wanted:
        return max(1, int(min(len(os.sched_getaffinity(0)), cpu_quota())))
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UserError(f"SAGEMAKER_MODEL_SERVER_WORKERS is {wanted!r}: set it to a number from 1 up")
    return int(wanted)


def cpu_quota(cgroup: Path = CGROUP) -> float:
    """CPUs that `docker run --cpus` and its like allow, infinity if there is no such limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


class Reason:
    """A pipe on which a worker tells the main process why the server must end."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)

    def tell(self, error: Exception) -> None:
        """Called in a worker: have the main process end the server for this reason."""
        words = str(error).encode(errors="backslashreplace")[:4000]  # below PIPE_BUF: workers do not mix their words
        os.write(self._write, words + b"\0")
        os.kill(os.getppid(), signal.SIGTERM)

    def told(self) -> str:
        try:
            return os.read(self._read, 4001).partition(b"\0")[0].decode(errors="replace")
        except BlockingIOError:
            return ""


class _Server(MPServer):
    """Granian, which on SIGTERM first takes leave of its clients."""

    drain: Callable[[], None]

    def shutdown(self, exit_code: int = 0) -> None:
        self.drain()
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]


def drain(metrics: Metrics) -> None:
    """Go on answering, each time with "Connection: close", until no more requests come.

    Granian alone closes idle connections at once, and a request that is just then on its way to one is lost.
    """
    metrics.stop()
    deadline, seen = time.monotonic() + DRAIN_SECONDS, -1
    while time.monotonic() < deadline and (answered := metrics.invocations()) != seen:
        seen = answered
        time.sleep(QUIET_SECONDS)


def run(
    application: Callable[[], Application],
    metrics: Metrics,
    reason: Reason,
    *,
    address: str,
    port: int,
    path: Path | None = None,
    workers: int,
) -> None:
    """Serve until SIGTERM or SIGINT; then requests in flight are answered, and no others taken.

    Args:
        application: called in each worker, gives what answers its requests.
        path: a Unix socket to listen on, for this user alone, instead of address and port.

    Raises:
        UserError: the port cannot be had, or a worker told a reason.
        PlatformError: workers died again and again.
    """
    if path is None:
        _check_port(address, port)

    def start_worker() -> Application:
        # A signal to the job's process group is for the main process, which ends the workers in order.
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Granian's thread and Python's wake each other several times a request. As batch threads they do not interrupt
        # each other where they share a CPU, and each does more at a time.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return application()

    server = _Server(
        "serve",
        address=address,
        port=port,
        uds=path,
        uds_permissions=0o600,
        interface=Interfaces.RSGI,
        workers=workers,
        backpressure=_connections(),
        websockets=False,
        http=HTTPModes.http1,
        log_level=LogLevels.error,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
    )
    server.drain = functools.partial(drain, metrics)
    try:
        server.serve(spawn_worker, start_worker, wrap_loader=False)
    except SystemExit as end:
        raise PlatformError("workers died again and again: the log above says how; most likely memory") from end
    finally:
        if told := reason.told():
            raise UserError(told)


def _connections() -> int:
    """As many as the files that a process may have open: where accepting fails, Granian would try again at once."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return CONNECTIONS if most == resource.RLIM_INFINITY else max(1, min(CONNECTIONS, most - OTHER_FILES))


def in_background(task: Callable[[], None], reason: Reason) -> None:
    """Run a worker's slow start beside its serving, so that /ping can say that it is not ready yet."""

    def run_task() -> None:
        try:
            task()
        except Exception as error:
            reason.tell(error)
        except SystemExit as end:  # a thread would end without a word, and /ping say "still loading" for ever
            reason.tell(UserError(f"the model's own code ended its process while it was loaded: exit({end.code!r})"))

    threading.Thread(target=run_task, name="load", daemon=True).start()


def _check_port(address: str, port: int) -> None:
    """Granian shares its port with others that do, such as a second server started by mistake: refuse that."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise UserError(f"port {port} cannot be had ({error.strerror}): set SAGEMAKER_BIND_TO_PORT") from error
