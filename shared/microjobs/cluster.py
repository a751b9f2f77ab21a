"""Exchange of values between the hosts of a processing job.

`heartbeat.Watch`, which training jobs also use, waits for all hosts, detects lost and failed hosts, and sends the
verdict to all hosts. Values use a second connection from each host to the first host. `peers` authenticates both
connections, and `codec` encodes the values.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TypeVar

from microjobs import heartbeat
from microjobs.codec import Codec
from microjobs.contract import ResourceConfig
from microjobs.endings import Certainty, Ending
from microjobs.errors import EXIT_PLATFORM, JobError, Stopped, code_and_reason
from microjobs.heartbeat import Watch
from microjobs.network import Network
from microjobs.peers import Connection

CHANNEL = "values"
STEP_SECONDS = 0.02
INTERRUPT_SIGNAL = signal.SIGUSR1
"""Signal that interrupts the main thread when the job ends because of another host."""

T = TypeVar("T")


class Cluster:
    """The hosts of a job, from the point of view of one host. Implements `hosts.Hosts`."""

    def __init__(self, resources: ResourceConfig, connections: Mapping[str, Connection], codec: Codec) -> None:
        self.resources = resources
        self._connections = connections
        self._codec = codec

    def gather(self, value: T) -> dict[str, T]:
        """Return the values of all hosts. The first host receives them and sends all of them to each host."""
        if not self.resources.is_first:
            first = self._connections[self.resources.first_host]
            first.send(self._codec.encode(value))
            gathered: dict[str, T] = self._codec.decode(first.receive_one())
            return gathered
        received = {host: self._codec.decode(peer.receive_one()) for host, peer in self._connections.items()}
        values = {self.resources.current_host: value, **received}
        content = self._codec.encode(values)
        for peer in self._connections.values():
            peer.send(content)
        return values


def run(resources: ResourceConfig, work: Callable[[Cluster], None], types: tuple[type, ...]) -> None:
    """Run `work` on this host when all hosts have joined. All hosts end with the same verdict; see `run_on_hosts`."""
    error: BaseException | None = None
    ending = Ending(resources.current_host)
    others = resources.hosts[1:] if resources.is_first else resources.hosts[:1]
    with Watch(resources, Network.read(), [CHANNEL]) as watch:
        try:
            watch.join(heartbeat.JOIN_SECONDS, lambda: True)
            if watch.verdict is None:
                connections = {host: watch.connections[CHANNEL, host] for host in others}
                with _step_in_thread(watch):
                    work(Cluster(resources, connections, Codec(types)))
        except _JobEnded:
            pass
        except BaseException as exception:
            error, ending = exception, _make_ending(resources.current_host, exception)
        verdict = watch.end(ending)
    if error is not None and verdict == ending and ending.certainty == Certainty.CERTAIN:
        raise error  # unlike a new error, this one has the traceback
    verdict.raise_error()


class _JobEnded(BaseException):
    """The job has ended because of another host. A `BaseException`, so that `except Exception` does not catch it."""


@contextlib.contextmanager
def _step_in_thread(watch: Watch) -> Iterator[None]:
    """Call `watch.step` in a thread while the `with` block runs. A verdict raises `_JobEnded` in the block."""
    main_thread_id, is_done = threading.get_ident(), threading.Event()

    def step() -> None:
        while watch.verdict is None and not is_done.is_set():
            watch.step(STEP_SECONDS)
        if not is_done.is_set():
            signal.pthread_kill(main_thread_id, INTERRUPT_SIGNAL)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if watch.verdict is not None and not is_done.is_set():
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
