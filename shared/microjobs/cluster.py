"""The same work on several hosts: the first one calls functions on all of them.

`heartbeat.Watch` brings the hosts together, sees which are lost or fail, and tells all how the job ended, as in
training. Calls and what they return travel pickled, over a connection of each host to the first
(`multiprocessing.connection`). That trusts the peers, as Dask's and PyTorch's protocols do: it is bound to the job's
own network, as SageMaker gives every job one.
"""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, TypeVar

from microjobs import heartbeat
from microjobs.contract import ResourceConfig
from microjobs.errors import EXIT_PLATFORM, JobError, Stopped, code_and_reason
from microjobs.heartbeat import CERTAIN, ECHO, Ending, Watch
from microjobs.network import Network

PORT = 8786
STEP_SECONDS = 0.02
GREETING_SECONDS = 5.0
"""How long a caller may take to say which host it is."""
NAME_LIMIT = 256
INTERRUPT = signal.SIGUSR1
"""Wakes the main thread, whatever it waits for, when the job ends because of another host."""

T = TypeVar("T")


class Cluster:
    """The hosts of a job, seen from the first one."""

    def __init__(self, current: str, others: Mapping[str, Connection]) -> None:
        self.names = [current, *others]
        self._current = current
        self._others = others

    def each(self, function: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, T]:
        """As `Hosts.each`. A function that fails on another host ends the job there, and thereby here."""
        called = {host: self._others[host] for host in arguments if host != self._current}
        for host, connection in called.items():
            connection.send((function, arguments[host]))
        own = {self._current: function(*arguments[self._current])} if self._current in arguments else {}
        return own | {host: connection.recv() for host, connection in called.items()}

    def dismiss(self) -> None:
        """Tell the other hosts that there is no more work."""
        for connection in self._others.values():
            connection.send(None)


def lead(resources: ResourceConfig, work: Callable[[Cluster], None]) -> None:
    """On the first host: do the work, with all hosts at its command.

    Raises:
        JobError: what ended the job, the same on every host; `PlatformError` where one did not come or was lost.
        Stopped: a stop signal came, here or on another host.
    """
    network = Network.read()

    def lead_all() -> None:
        others = _accept(listener, resources.hosts[1:])
        cluster = Cluster(resources.current_host, others)
        work(cluster)
        cluster.dismiss()

    with network.listen(PORT, len(resources.hosts)) as listener:
        _end_together(resources, network, lead_all)


def follow(resources: ResourceConfig) -> None:
    """On the other hosts: do what the first one calls for, until there is no more work.

    Raises:
        JobError, Stopped: as `lead`.
    """
    network = Network.read()

    def obey() -> None:
        first = socket.create_connection((network.resolve(resources.first_host), PORT), timeout=GREETING_SECONDS)
        first.sendall(resources.current_host.encode())
        connection = _connection(first)
        while (call := connection.recv()) is not None:
            function, arguments = call
            connection.send(function(*arguments))

    _end_together(resources, network, obey)


def _accept(listener: socket.socket, hosts: Sequence[str]) -> dict[str, Connection]:
    """The connections of the other hosts, which call and say who they are; nobody else is listened to."""
    callers: dict[str, Connection] = {}
    while len(callers) < len(hosts):
        caller, _ = listener.accept()
        caller.settimeout(GREETING_SECONDS)
        name = ""
        with contextlib.suppress(OSError):
            name = caller.recv(NAME_LIMIT).decode(errors="replace")
        if name in hosts and name not in callers:
            callers[name] = _connection(caller)
        else:
            caller.close()
    return {host: callers[host] for host in hosts}


def _connection(connected: socket.socket) -> Connection:
    connected.settimeout(None)
    return Connection(connected.detach())


def _end_together(resources: ResourceConfig, network: Network, work: Callable[[], None]) -> None:
    """Do this host's part when all hosts are there; however it ends, it ends so on all of them."""
    error: BaseException | None = None
    ending = Ending(resources.current_host)
    with Watch(resources, network) as watch:
        try:
            watch.join(heartbeat.JOIN_SECONDS, lambda: True)
            if watch.verdict is None:
                with _watched(watch):
                    work()
        except _Over:
            pass
        except BaseException as raised:
            error, ending = raised, _ending(resources.current_host, raised)
        verdict = watch.end(ending)
    if error is not None and verdict == ending and ending.certainty == CERTAIN:
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
        return Ending(host, EXIT_PLATFORM, f"host {host} lost a connection ({error!r}); see its log", ECHO)
    code, reason = code_and_reason(error)
    return Ending(host, code, f"host {host} failed: {reason}")
