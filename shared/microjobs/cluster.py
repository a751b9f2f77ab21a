"""The same work on several hosts: the first one calls functions on all of them.

`heartbeat.Watch` brings the hosts together, sees which are lost or fail, and tells all how the job ended, as in
training. Calls and their results travel over a second connection of each host to the first. Both connections are
authenticated (`peers`), a call names one of the functions that both sides know, and values are decoded by `codec`.
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
"""Wakes the main thread, whatever it waits for, when the job ends because of another host."""

T = TypeVar("T")


class Cluster:
    """The hosts of a job, seen from the first one."""

    def __init__(self, current: str, others: Mapping[str, Connection], calls: Calls) -> None:
        self.names = [current, *others]
        self._current = current
        self._others = others
        self._calls = calls
        self._codec = Codec(calls.types)

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        """As `Hosts.each`. A function that fails on another host ends the job there, and thereby here."""
        name = self._calls.name_of(function)
        called = {host: self._others[host] for host in arguments if host != self._current}
        for host, connection in called.items():
            connection.send(self._codec.encode((name, arguments[host])))
        own = {self._current: function(*arguments[self._current])} if self._current in arguments else {}
        return own | {host: self._codec.decode(connection.receive_one()) for host, connection in called.items()}

    def dismiss(self) -> None:
        """Tell the other hosts that there is no more work."""
        for connection in self._others.values():
            connection.send(self._codec.encode(None))


def lead(resources: ResourceConfig, work: Callable[[Cluster], None], calls: Calls) -> None:
    """On the first host: do the work, with all hosts at its command.

    Raises:
        JobError: what ended the job, the same on every host; `PlatformError` where one did not come or was lost.
        Stopped: a stop signal came, here or on another host.
    """

    def lead_all(connections: Mapping[str, Connection]) -> None:
        cluster = Cluster(resources.current_host, connections, calls)
        work(cluster)
        cluster.dismiss()

    _end_together(resources, lead_all)


def follow(resources: ResourceConfig, calls: Calls) -> None:
    """On the other hosts: do what the first one calls for, until there is no more work.

    Raises:
        JobError, Stopped: as `lead`.
    """
    codec = Codec(calls.types)

    def obey(connections: Mapping[str, Connection]) -> None:
        connection = connections[resources.first_host]
        while (call := codec.decode(connection.receive_one())) is not None:
            name, arguments = call
            connection.send(codec.encode(calls.named(name)(*arguments)))

    _end_together(resources, obey)


def _end_together(resources: ResourceConfig, work: Callable[[Mapping[str, Connection]], None]) -> None:
    """Do this host's part when all hosts are there; however it ends, it ends so on all of them."""
    error: BaseException | None = None
    ending = Ending(resources.current_host)
    others = resources.hosts[1:] if resources.is_first else resources.hosts[:1]
    with Watch(resources, Network.read(), [CHANNEL]) as watch:
        try:
            watch.join(heartbeat.JOIN_SECONDS, lambda: True)
            if watch.verdict is None:
                connections = {host: watch.connections[CHANNEL, host] for host in others}
                with _watched(watch):
                    work(connections)
        except _Over:
            pass
        except BaseException as raised:
            error, ending = raised, _ending(resources.current_host, raised)
        verdict = watch.end(ending)
    if error is not None and verdict == ending and ending.certainty == Certainty.CERTAIN:
        raise error  # with its traceback, if it has one to show
    verdict.conclude()


class _Over(BaseException):
    """The job has ended because of another host; a `BaseException` for the same reason as `Stopped`."""


@contextlib.contextmanager
def _watched(watch: Watch) -> Iterator[None]:
    """Step the watch beside the block, which `_Over` ends as soon as there is a verdict."""
    main, left = threading.get_ident(), threading.Event()

    def step() -> None:
        while watch.verdict is None and not left.is_set():
            watch.step(STEP_SECONDS)
        if not left.is_set():
            signal.pthread_kill(main, INTERRUPT)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if watch.verdict is not None and not left.is_set():
            raise _Over

    stepping = threading.Thread(target=step, name="watch", daemon=True)
    before = signal.signal(INTERRUPT, interrupt)
    stepping.start()
    try:
        yield
    finally:
        left.set()
        stepping.join()
        signal.signal(INTERRUPT, before)


def _ending(host: str, error: BaseException) -> Ending:
    if isinstance(error, JobError):
        return Ending(host, error.exit_code, str(error))
    if isinstance(error, Stopped):
        return Ending(host, 128 + error.signal_number)
    if isinstance(error, EOFError | ConnectionError):  # most likely the echo of a host that is lost
        return Ending(
            host, EXIT_PLATFORM, f"host {host} lost a connection ({error!r}); see its log", Certainty.LOST_CONNECTION
        )
    code, reason = code_and_reason(error)
    return Ending(host, code, f"host {host} failed: {reason}")
