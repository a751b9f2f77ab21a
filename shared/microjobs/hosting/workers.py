"""Runs the worker processes from their start to SIGTERM, and reports fatal errors."""

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

from microjobs.errors import PlatformError, UserError

from .listener import Application, ListenerSettings, Serve, StartWorker
from .metrics import Metrics

CGROUP = Path("/sys/fs/cgroup")

QUIET_PERIOD = 0.25
"""After SIGTERM, the server closes its connections when no invocation was answered for this number of seconds."""
DRAIN_TIMEOUT = 5.0
"""Seconds after which the server closes its connections even if it still answers invocations."""

MAX_CONNECTIONS = 4096
"""Maximum number of open connections per worker. More connections wait until a connection is closed."""

RESERVED_FILES = 64
"""File descriptors of a worker that are not connections."""

MAX_MESSAGE_BYTES = 4000
"""Maximum size of a failure message. Several processes' writes do not mix if each is below PIPE_BUF (4096 bytes)."""


class FailurePipe:
    """A pipe through which a worker reports to the main process why the server must end."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)

    def send(self, error: Exception) -> None:
        """Report an error of this worker, and make the main process end the server."""
        message = str(error).encode(errors="backslashreplace")[:MAX_MESSAGE_BYTES]
        os.write(self._write_end, message + b"\0")
        os.kill(os.getppid(), signal.SIGTERM)

    def receive(self) -> str:
        """Return the first message, or an empty string."""
        try:
            return os.read(self._read_end, MAX_MESSAGE_BYTES + 1).partition(b"\0")[0].decode(errors="replace")
        except BlockingIOError:
            return ""


def read_worker_count(environ: Mapping[str, str]) -> int:
    """Return SAGEMAKER_MODEL_SERVER_WORKERS, or one worker per CPU that this container may use.

    Raises:
        UserError: the variable is not a positive number.
    """
    text = environ.get("SAGEMAKER_MODEL_SERVER_WORKERS", "")
    if not text:
        return _count_cpus()
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"SAGEMAKER_MODEL_SERVER_WORKERS is {text!r}: set it to a number of at least 1")
    return int(text)


def compute_threads_per_worker(environ: Mapping[str, str]) -> int:
    """Return one worker's share of the CPUs that this container may use, and at least 1."""
    return max(1, _count_cpus() // read_worker_count(environ))


def _count_cpus() -> int:
    return max(1, int(min(len(os.sched_getaffinity(0)), read_cpu_quota())))


def read_cpu_quota(cgroup: Path = CGROUP) -> float:
    """Return the number of CPUs that `docker run --cpus` and similar options allow; infinity if there is no limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # the file does not exist, or contains "max"
        return math.inf


def run(
    serve: Serve,
    start_application: StartWorker,
    metrics: Metrics,
    failures: FailurePipe,
    settings: ListenerSettings,
) -> None:
    """Serve until SIGTERM or SIGINT. Then continue until `drain` returns, and finish the requests in progress.

    Args:
        start_application: function that each worker calls; it returns the application that answers the worker's
            requests.

    Raises:
        UserError: the port is not available, or a worker reported an error.
        PlatformError: workers keep crashing.
    """
    if settings.socket_path is None:
        _check_port(settings.address, settings.port)
    try:
        serve(functools.partial(_start_worker, start_application), functools.partial(drain, metrics), settings)
    except SystemExit as end:
        raise PlatformError("workers keep crashing, probably out of memory: see the log above") from end
    finally:
        if message := failures.receive():
            raise UserError(message)


def _start_worker(start_application: StartWorker) -> Application:
    # The main process ends the workers in order, so a signal to the job's process group must not reach them.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return start_application()


def drain(metrics: Metrics) -> None:
    """Wait for a quiet period without answered invocations. Meanwhile, each response has "Connection: close".

    Without this wait, Granian would close idle connections immediately, and lose requests that arrive at that moment.
    """
    metrics.mark_stopping()
    deadline, previous_count = time.monotonic() + DRAIN_TIMEOUT, -1
    while time.monotonic() < deadline and (count := metrics.count_invocations()) != previous_count:
        previous_count = count
        time.sleep(QUIET_PERIOD)


def raise_connection_limit() -> int:
    """Raise this process's limit of open files, and return the maximum number of connections per worker.

    The number leaves file descriptors for other uses: if accepting fails, Granian retries in a busy loop.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return MAX_CONNECTIONS if limit == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, limit - RESERVED_FILES))


def run_in_background(task: Callable[[], None], failures: FailurePipe) -> None:
    """Run a worker's slow start in a thread, so that /ping can answer that the worker is not ready yet."""

    def run_task() -> None:
        try:
            task()
        except Exception as error:
            failures.send(error)
        except SystemExit as end:  # it would end the thread silently, and /ping would answer "still loading" forever
            message = f"the model's code called exit({end.code!r}) while the model was loaded"
            failures.send(UserError(message))

    threading.Thread(target=run_task, name="load", daemon=True).start()


def _check_port(address: str, port: int) -> None:
    """Check that no other server listens on the port: Granian would share it with that server."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            reason = f"cannot listen on port {port} ({error.strerror})"
            raise UserError(f"{reason}: set SAGEMAKER_BIND_TO_PORT to a free port") from error
