"""Signals to a running job or endpoint, and the one place where it waits for them."""

import queue
import threading
import time
from dataclasses import dataclass
from enum import Enum

from microjobs_orchestrator.local.runtimes.base import Exit


class StopReason(Enum):
    """Why the hosts of a job are stopped. A later one replaces an earlier one only if it is more important."""

    FINISHED = "the hosts have nothing more to do"
    REQUEST = "a Stop request"
    TIMEOUT = "MaxRuntimeInSeconds"
    SHUTDOWN = "the server was shut down"

    @property
    def importance(self) -> int:
        return {StopReason.FINISHED: 1, StopReason.SHUTDOWN: 3}.get(self, 2)


@dataclass(frozen=True)
class Interruption:
    """The end of a job's hosts, as AWS takes spot instances back; the job may resume on others."""

    notice: float = 120.0
    """Seconds between SIGTERM and SIGKILL."""
    away: float = 0.0
    """Seconds until new hosts are available."""


@dataclass(frozen=True)
class HostExit:
    """The end of one host."""

    name: str
    exit: Exit


class Change(Enum):
    """A change that the waiting job or endpoint reads elsewhere."""

    RESOURCE_ENDED = "a resource that this one owns has ended"
    METRIC = "a trial reported a metric"
    ENDPOINT = "the endpoint's description or one of its replicas changed"


Event = StopReason | Interruption | HostExit | Change


class Control:
    """The events of one job or endpoint. Any thread may send one; the thread that runs the job waits for them."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        """Why the job was stopped; None while it may run."""
        self.stopped = threading.Event()
        """Set with the first stop, for threads that do not wait for events."""
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def stop(self, reason: StopReason) -> None:
        with self._lock:
            if self.reason is None or reason.importance > self.reason.importance:
                self.reason = reason
                self._events.put(reason)
                self.stopped.set()

    def send(self, event: Interruption | HostExit | Change) -> None:
        self._events.put(event)

    def wait(self, timeout: float | None = None) -> list[Event]:
        """Wait for events, and return all that have arrived; none after `timeout` seconds."""
        try:
            events = [self._events.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def pause(self, seconds: float) -> None:
        """Wait until the time is over or the job is stopped. Other events are dropped: no hosts are running."""
        end = time.monotonic() + seconds
        while self.reason is None and self.wait(max(0.0, end - time.monotonic())):
            pass
