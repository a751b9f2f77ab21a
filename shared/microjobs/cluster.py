"""Function calls from the first host of a processing job to all its hosts.

As in training, `heartbeat.Watch` waits for all hosts, detects hosts that are lost or fail, and tells all hosts how the
job ended. Calls and results use a second connection of each host to the first. `peers` authenticates both connections.
A call contains the name of a function that both sides know; `codec` decodes the values.
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
        self._calls = calls
        self._codec = Codec(calls.types)

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        """Like `Hosts.each`. If a function fails on another host, the job ends on all hosts."""
        name = self._calls.name_of(function)
        called = {host: self._others[host] for host in arguments if host != self._current}
        for host, connection in called.items():
            connection.send(self._codec.encode((name, arguments[host])))
        own = {self._current: function(*arguments[self._current])} if self._current in arguments else {}
        return own | {host: self._codec.decode(connection.receive_one()) for host, connection in called.items()}

    def dismiss(self) -> None:
        """Tell the other hosts that the work is done."""
        for connection in self._others.values():
            connection.send(self._codec.encode(None))


def lead(resources: ResourceConfig, work: Callable[[Cluster], None], calls: Calls) -> None:
    """Run the work on the first host.

    Raises:
        JobError: the reason why the job failed, the same on every host; `PlatformError` if a host is missing or lost.
        Stopped: a host received a stop signal.
    """

    def lead_all(connections: Mapping[str, Connection]) -> None:
        cluster = Cluster(resources.current_host, connections, calls)
        work(cluster)
        cluster.dismiss()

    _run_together(resources, lead_all)


def follow(resources: ResourceConfig, calls: Calls) -> None:
    """Run the functions that the first host calls, until the work is done.

    Raises:
        JobError, Stopped: see `lead`.
    """
    codec = Codec(calls.types)

    def answer_calls(connections: Mapping[str, Connection]) -> None:
        connection = connections[resources.first_host]
        while (call := codec.decode(connection.receive_one())) is not None:
            name, arguments = call
            connection.send(codec.encode(calls.named(name)(*arguments)))

    _run_together(resources, answer_calls)


def _run_together(resources: ResourceConfig, work: Callable[[Mapping[str, Connection]], None]) -> None:
    """Run this host's part when all hosts have joined. All hosts end in the same way."""
    error: BaseException | None = None
    ending = Ending(resources.current_host)
    others = resources.hosts[1:] if resources.is_first else resources.hosts[:1]
    with Watch(resources, Network.read(), [CHANNEL]) as watch:
        try:
            watch.join(heartbeat.JOIN_SECONDS, lambda: True)
            if watch.verdict is None:
                connections = {host: watch.connections[CHANNEL, host] for host in others}
                with _run_watch(watch):
                    work(connections)
        except _JobEnded:
            pass
        except BaseException as raised:
            error, ending = raised, _ending(resources.current_host, raised)
        verdict = watch.end(ending)
    if error is not None and verdict == ending and ending.certainty == Certainty.CERTAIN:
        raise error  # keeps the traceback
    verdict.conclude()


class _JobEnded(BaseException):
    """The job has ended because of another host. A `BaseException`, for the same reason as `Stopped`."""


@contextlib.contextmanager
def _run_watch(watch: Watch) -> Iterator[None]:
    """Step the watch in a thread while the block runs. A verdict raises `_JobEnded` in the block."""
    main, is_done = threading.get_ident(), threading.Event()

    def step() -> None:
        while watch.verdict is None and not is_done.is_set():
            watch.step(STEP_SECONDS)
        if not is_done.is_set():
            signal.pthread_kill(main, INTERRUPT)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if watch.verdict is not None and not is_done.is_set():
            raise _JobEnded

    stepping = threading.Thread(target=step, name="watch", daemon=True)
    before = signal.signal(INTERRUPT, interrupt)
    stepping.start()
    try:
        yield
    finally:
        is_done.set()
        stepping.join()
        signal.signal(INTERRUPT, before)


def _ending(host: str, error: BaseException) -> Ending:
    if isinstance(error, JobError):
        return Ending(host, error.exit_code, str(error))
    if isinstance(error, Stopped):
        return Ending(host, 128 + error.signal_number)
    if isinstance(error, EOFError | ConnectionError):  # most likely because another host is lost
        return Ending(
            host, EXIT_PLATFORM, f"host {host} lost a connection ({error!r}); see its log", Certainty.LOST_CONNECTION
        )
    code, reason = code_and_reason(error)
    return Ending(host, code, f"host {host} failed: {reason}")
