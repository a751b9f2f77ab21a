"""Events of a running job or endpoint, and the queue in which its thread waits for them."""

import queue
import threading
import time
from dataclasses import dataclass
from enum import Enum

from microjobs_orchestrator.local.runtimes.base import Exit


class StopReason(Enum):
    """The reason to stop the hosts of a job. A later reason replaces an earlier one only if it is more important."""

    FINISHED = "the hosts have finished their work"
    REQUEST = "a Stop request"
    TIMEOUT = "a time limit of the request"
    SHUTDOWN = "the server was shut down"

    @property
    def importance(self) -> int:
        """The rank among the reasons: a larger number is more important."""
        return {StopReason.FINISHED: 1, StopReason.SHUTDOWN: 3}.get(self, 2)


@dataclass(frozen=True)
class Interruption:
    """A simulated end of the spot instances that a job's hosts run on. The job may resume on new hosts."""

    notice_seconds: float = 120.0
    """Seconds between SIGTERM and SIGKILL."""
    away_seconds: float = 0.0
    """Seconds from the end of the old hosts until new hosts are available."""


@dataclass(frozen=True)
class HostExit:
    """The end of one host."""

    name: str
    exit: Exit


class Change(Enum):
    """An event without details. The thread that receives it reads the changed state itself."""

    OWNED_RESOURCE_CHANGED = "a resource that this one owns has ended, or has another status"
    METRIC_REPORTED = "a trial reported a metric"
    RESOURCE_CHANGED = "the resource's description changed, or one of its replicas or programs"


Event = StopReason | Interruption | HostExit | Change


class EventQueue:
    """The events of one job or endpoint. Any thread may send an event; the resource's own thread waits for events."""

    def __init__(self) -> None:
        self.stop_reason: StopReason | None = None
        """The reason for the stop; None before the first stop."""
        self.stopped = threading.Event()
        """The first stop sets this flag, for threads that do not wait for events."""
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def stop(self, reason: StopReason) -> None:
        """Request a stop, unless an earlier stop has a reason of the same or higher importance."""
        with self._lock:
            if self.stop_reason is None or reason.importance > self.stop_reason.importance:
                self.stop_reason = reason
                self._events.put(reason)
                self.stopped.set()

    def send(self, event: Interruption | HostExit | Change) -> None:
        self._events.put(event)

    def wait(self, timeout: float | None = None) -> list[Event]:
        """Wait for an event, and return all events that have arrived; none if no event arrives in `timeout` seconds."""
        try:
            events = [self._events.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def pause(self, seconds: float) -> None:
        """Wait for some seconds, or until the job is stopped. Drop other events, because no hosts are running."""
        end = time.monotonic() + seconds
        while self.stop_reason is None and self.wait(max(0.0, end - time.monotonic())):
            pass
