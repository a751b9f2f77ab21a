"""Runs a processing job on several hosts, so that all hosts end with the same verdict.

`HostHeartbeat`, which training jobs also use, waits for all hosts, detects lost and failed hosts, and sends the
verdict to all hosts. `dask_hosts` runs the work.
"""

import contextlib
import importlib.util
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from microjobs import dask_hosts, heartbeat
from microjobs.contract import Layout, ResourceConfig
from microjobs.dask_cluster import find_certificate
from microjobs.endings import Certainty, Ending
from microjobs.errors import EXIT_PLATFORM, JobError, Stopped, UserError, explain_error
from microjobs.files import atomic_group
from microjobs.heartbeat import HostHeartbeat
from microjobs.hosts import Hosts, RegisterFile
from microjobs.network import Network

STEP_SECONDS = 0.02
"""Maximum duration of a step, in which the heartbeat receives messages."""
INTERRUPT_SIGNAL = signal.SIGUSR1
"""Signal that interrupts the main thread when the job ends because of another host."""


def run(resources: ResourceConfig, coordinate: Callable[[Hosts], None]) -> None:
    """Run this host's part of the job when all hosts have joined.

    Args:
        coordinate: function that runs on the first host, and calls functions on all hosts.

    Raises:
        JobError: see `microjobs.hosts.run_on_hosts`.
    """
    if importlib.util.find_spec("distributed") is None:
        raise UserError("this image has no Dask, which a job on several hosts needs: add distributed to its cpu.in")
    # an incomplete certificate is reported before this host waits for the other hosts
    find_certificate(Layout.from_environment())
    with atomic_group() as register_file, HostHeartbeat(resources, Network.read()) as host_heartbeat:
        error = _run_host(resources, coordinate, register_file, host_heartbeat)
        ending = _make_ending(resources.current_host, error)
        verdict = host_heartbeat.end(ending)
        if error is not None and verdict == ending and ending.certainty == Certainty.CERTAIN:
            raise error  # the original error is raised again, because it has the traceback
        verdict.raise_error()


def _run_host(
    resources: ResourceConfig,
    coordinate: Callable[[Hosts], None],
    register_file: RegisterFile,
    host_heartbeat: HostHeartbeat,
) -> BaseException | None:
    """Run this host's part until it is complete, or another host ends the job. Return the error if this part failed."""
    try:
        host_heartbeat.join(heartbeat.JOIN_SECONDS, lambda: True)
        if host_heartbeat.verdict is None:
            with _step_in_thread(host_heartbeat):
                dask_hosts.run(resources, coordinate, register_file)
    except _JobEnded:
        pass
    except BaseException as error:
        return error
    return None


class _JobEnded(BaseException):
    """Another host has ended the job. This is a `BaseException`, so that `except Exception` does not catch it."""


@contextlib.contextmanager
def _step_in_thread(host_heartbeat: HostHeartbeat) -> Iterator[None]:
    """Call `host_heartbeat.step` in a thread while the `with` block runs. A verdict raises `_JobEnded` in the block."""
    main_thread_id, is_done = threading.get_ident(), threading.Event()

    def step() -> None:
        while host_heartbeat.verdict is None and not is_done.is_set():
            host_heartbeat.step(STEP_SECONDS)
        if not is_done.is_set():
            signal.pthread_kill(main_thread_id, INTERRUPT_SIGNAL)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if host_heartbeat.verdict is not None and not is_done.is_set():
            raise _JobEnded

    step_thread = threading.Thread(target=step, name="watch", daemon=True)
    previous_handler = signal.signal(INTERRUPT_SIGNAL, interrupt)
    step_thread.start()
    try:
        yield
    finally:
        is_done.set()
        step_thread.join()
        signal.signal(INTERRUPT_SIGNAL, previous_handler)


def _make_ending(host: str, error: BaseException | None) -> Ending:
    if error is None:
        return Ending(host)
    if isinstance(error, JobError):
        return Ending(host, error.exit_code, str(error))
    if isinstance(error, Stopped):
        return Ending(host, 128 + error.signal_number)
    if isinstance(error, EOFError | ConnectionError):  # the probable cause is another host that is lost
        return Ending(
            host, EXIT_PLATFORM, f"host {host} lost a connection ({error!r}); see its log", Certainty.LOST_CONNECTION
        )
    code, reason = explain_error(error)
    return Ending(host, code, f"host {host} failed: {reason}")
