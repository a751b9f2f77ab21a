"""Function calls from the first host of a processing job to all its hosts.

`heartbeat.Watch`, which training jobs also use, waits for all hosts, detects lost and failed hosts, and sends the
verdict to all hosts. Calls and results use a second connection from each host to the first host. `peers` authenticates
both connections. A call contains the name of a function that both sides know, and its arguments. `codec` encodes calls
and results.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar

from microjobs import heartbeat
from microjobs.codec import Codec
from microjobs.contract import ResourceConfig
from microjobs.endings import Certainty, Ending
from microjobs.errors import EXIT_PLATFORM, JobError, Stopped, code_and_reason
from microjobs.heartbeat import Watch
from microjobs.hosts import Calls
from microjobs.network import Network
from microjobs.peers import Connection

CHANNEL = "calls"
STEP_SECONDS = 0.02
INTERRUPT = signal.SIGUSR1
"""Signal that interrupts the main thread when the job ends because of another host."""

T = TypeVar("T")


class Cluster:
    """The hosts of a job, as the first host sees them."""

    def __init__(self, current: str, others: Mapping[str, Connection], calls: Calls) -> None:
        self.names = [current, *others]
        self._current = current
        self._others = others
        self._codec = Codec(calls.types)

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        """Call the function on the named hosts, as `Hosts.each` defines.

        If the function fails on another host, the job ends on all hosts.
        """
        connections = {host: self._others[host] for host in arguments if host != self._current}
        for host, connection in connections.items():
            connection.send(self._codec.encode((function.__name__, arguments[host])))
        own_result = {self._current: function(*arguments[self._current])} if self._current in arguments else {}
        return own_result | {
            host: self._codec.decode(connection.receive_one()) for host, connection in connections.items()
        }

    def dismiss(self) -> None:
        """Tell the other hosts that no more calls follow."""
        for connection in self._others.values():
            connection.send(self._codec.encode(None))


def lead(resources: ResourceConfig, work: Callable[[Cluster], None], calls: Calls) -> None:
    """Run `work` on the first host. Its cluster can call functions on all hosts.

    Raises:
        JobError: the job failed; all hosts raise the same error. It is a `PlatformError` if a host is missing or lost.
        Stopped: a host received a stop signal.
    """

    def lead_cluster(connections: Mapping[str, Connection]) -> None:
        cluster = Cluster(resources.current_host, connections, calls)
        work(cluster)
        cluster.dismiss()

    _run_together(resources, lead_cluster)


def follow(resources: ResourceConfig, calls: Calls) -> None:
    """Run the functions that the first host calls, until it sends no more calls.

    Raises:
        JobError, Stopped: see `lead`.
    """
    codec = Codec(calls.types)

    def answer_calls(connections: Mapping[str, Connection]) -> None:
        connection = connections[resources.first_host]
        while (call := codec.decode(connection.receive_one())) is not None:
            name, arguments = call
            connection.send(codec.encode(calls.find(name)(*arguments)))

    _run_together(resources, answer_calls)


def _run_together(resources: ResourceConfig, work: Callable[[Mapping[str, Connection]], None]) -> None:
    """Run `work` on this host when all hosts have joined. All hosts end with the same verdict."""
    error: BaseException | None = None
    ending = Ending(resources.current_host)
    others = resources.hosts[1:] if resources.is_first else resources.hosts[:1]
    with Watch(resources, Network.read(), [CHANNEL]) as watch:
        try:
            watch.join(heartbeat.JOIN_SECONDS, lambda: True)
            if watch.verdict is None:
                connections = {host: watch.connections[CHANNEL, host] for host in others}
                with _step_in_thread(watch):
                    work(connections)
        except _JobEnded:
            pass
        except BaseException as exception:
            error, ending = exception, _make_ending(resources.current_host, exception)
        verdict = watch.end(ending)
    if error is not None and verdict == ending and ending.certainty == Certainty.CERTAIN:
        raise error  # unlike a new error, this one has the traceback
    verdict.conclude()


class _JobEnded(BaseException):
    """The job has ended because of another host. A `BaseException`, so that `except Exception` does not catch it."""


@contextlib.contextmanager
def _step_in_thread(watch: Watch) -> Iterator[None]:
    """Step the watch in a thread while the `with` block runs. A verdict raises `_JobEnded` in the block."""
    main_thread_id, is_done = threading.get_ident(), threading.Event()

    def step() -> None:
        while watch.verdict is None and not is_done.is_set():
            watch.step(STEP_SECONDS)
        if not is_done.is_set():
            signal.pthread_kill(main_thread_id, INTERRUPT)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if watch.verdict is not None and not is_done.is_set():
            raise _JobEnded

    step_thread = threading.Thread(target=step, name="watch", daemon=True)
    previous_handler = signal.signal(INTERRUPT, interrupt)
    step_thread.start()
    try:
        yield
    finally:
        is_done.set()
        step_thread.join()
        signal.signal(INTERRUPT, previous_handler)


def _make_ending(host: str, error: BaseException) -> Ending:
    if isinstance(error, JobError):
        return Ending(host, error.exit_code, str(error))
    if isinstance(error, Stopped):
        return Ending(host, 128 + error.signal_number)
    if isinstance(error, EOFError | ConnectionError):  # probably because another host is lost
        return Ending(
            host, EXIT_PLATFORM, f"host {host} lost a connection ({error!r}); see its log", Certainty.LOST_CONNECTION
        )
    code, reason = code_and_reason(error)
    return Ending(host, code, f"host {host} failed: {reason}")
