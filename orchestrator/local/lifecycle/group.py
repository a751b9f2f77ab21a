"""The hosts of a running job: followed, waited for and stopped together."""

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from microjobs_orchestrator.local.logs import Stream
from microjobs_orchestrator.local.runtimes.base import Exit, Host, Line

logger = logging.getLogger(__name__)

GRACE_SECONDS = 120.0
"""Between SIGTERM and SIGKILL, as on SageMaker (facts §2.1)."""
SHUTDOWN_GRACE_SECONDS = 10.0
"""The same when the server itself ends, and somebody waits for it."""
AGAIN_SECONDS = 1.0
"""Between two tries to stop a host."""
LOG_SECONDS = 30.0
"""What the next line gets to arrive after a host's end."""


class Why(Enum):
    """Why a job was stopped."""

    ASKED = "a Stop request"
    TIME = "MaxRuntimeInSeconds"
    SHUTDOWN = "the server was shut down"


@dataclass(frozen=True)
class Interruption:
    """The hosts are taken away, as AWS takes spot instances back; the job may go on with others."""

    notice: float = 120.0
    """Seconds between SIGTERM and SIGKILL."""
    away: float = 0.0
    """Seconds until there are others."""


class Control:
    """The switch of one job: anyone may turn it, at any moment, the job sees it when it can."""

    def __init__(self) -> None:
        self.why: Why | None = None
        self.events: queue.SimpleQueue[Why | Interruption | tuple[str, Exit]] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def stop(self, why: Why) -> None:
        with self._lock:
            if self.why is None or why is Why.SHUTDOWN:
                self.why = why
                self.events.put(why)

    def interrupt(self, interruption: Interruption) -> None:
        """Take the hosts away; the job is not stopped by that."""
        self.events.put(interruption)

    def pause(self, seconds: float) -> None:
        """Wait, at most until the job is stopped; for times when no hosts run."""
        until = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while self.why is None:
                self.events.get(timeout=max(0.0, until - time.monotonic()))


@dataclass
class Outcome:
    """How the hosts ended."""

    exits: dict[str, Exit] = field(default_factory=dict)
    first_failed: str | None = None
    """The host that ended badly by itself; the others were stopped for it."""
    interruption: Interruption | None = None
    """What ended the hosts, well or badly, if it was one."""


def run(
    hosts: Sequence[Host],
    streams: Mapping[str, Stream],
    control: Control,
    *,
    seconds: float | None,
    on_line: Callable[[Line], None],
    on_interruption: Callable[[], None] = lambda: None,
) -> Outcome:
    """Follow hosts until all have ended, and write their output to their streams.

    Args:
        streams: by the hosts' names; output that is in them already is not written again.
        seconds: what the hosts get until they are stopped; None: no limit.
        on_line: called with every line, from the hosts' threads.
        on_interruption: called before the hosts are told of an interruption.
    """
    outcome = Outcome()
    end = None if seconds is None else time.monotonic() + seconds
    followers = [_thread(_follow, host, streams[host.name], on_line) for host in hosts]
    for host in hosts:
        _thread(lambda host: control.events.put((host.name, host.wait())), host)
    while len(outcome.exits) < len(hosts):
        try:
            event = control.events.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
        except queue.Empty:
            end = None
            control.stop(Why.TIME)
            continue
        if isinstance(event, Why):
            _stop_all(hosts, SHUTDOWN_GRACE_SECONDS if event is Why.SHUTDOWN else GRACE_SECONDS, outcome)
            continue
        if isinstance(event, Interruption):
            if control.why is None and outcome.first_failed is None and outcome.interruption is None:
                outcome.interruption = event
                on_interruption()
                _stop_all(hosts, event.notice, outcome)
            continue
        name, ended = event
        outcome.exits[name] = ended
        by_itself = control.why is None and outcome.interruption is None
        if ended.code != 0 and outcome.first_failed is None and by_itself:
            outcome.first_failed = name
            _stop_all(hosts, GRACE_SECONDS, outcome)
    for host, follower in zip(hosts, followers, strict=True):
        _finish(follower, streams[host.name])
    return outcome


def _follow(host: Host, stream: Stream, on_line: Callable[[Line], None]) -> None:
    with stream.writer() as write:
        # By their number: times repeat within a millisecond, and go back when the clock is set.
        lines = itertools.islice(host.lines(), stream.known(), None)
        for line in last_states(_written(lines, write)):
            on_line(line)


def _written(lines: Iterable[Line], write: Callable[[Line], None]) -> Iterator[Line]:
    for line in lines:
        write(line)
        yield line


def last_states(lines: Iterable[Line]) -> Iterator[Line]:
    """Each line once: of one that came in several parts the last part that shows anything."""
    part: Line | None = None
    for line in lines:
        if not line.is_whole:
            part = line
            continue
        yield line if part is None or line.text.strip() else part
        part = None
    if part is not None:
        yield part


def _finish(follower: threading.Thread, stream: Stream) -> None:
    """Wait for the last lines of a host that has ended, for as long as any come."""
    before = -1
    while follower.is_alive() and stream.size() > before:
        before = stream.size()
        follower.join(LOG_SECONDS)
    if follower.is_alive():
        logger.warning("%s: no more lines came, and its end was not seen", stream.path)


def _stop_all(hosts: Sequence[Host], grace: float, outcome: Outcome) -> None:
    for host in hosts:
        _thread(_stop, host, grace, outcome)


def _stop(host: Host, grace: float, outcome: Outcome) -> None:
    """Stop a host, again if the engine could not: nobody would ask a second time."""
    while host.name not in outcome.exits:
        try:
            host.stop(grace)
            return
        except Exception:
            logger.exception("%s could not be stopped; trying again", host.name)
            time.sleep(AGAIN_SECONDS)


def _thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=_logged, args=(target, *arguments), daemon=True)
    thread.start()
    return thread


def _logged(target: Callable[..., None], *arguments: object) -> None:
    try:
        target(*arguments)
    except Exception:
        logger.exception("a thread of a job failed")
