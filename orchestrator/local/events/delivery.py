"""Delivers the events of the outbox: one thread per target, in the order of the changes."""

import logging
import threading
import time
from collections.abc import Sequence

from microjobs_orchestrator.local.event_settings import EventTarget
from microjobs_orchestrator.local.events.targets import DeliveryError, make_deliver_function
from microjobs_orchestrator.local.outbox import Outbox, StoredEvent
from microjobs_orchestrator.local.queues import Queues

logger = logging.getLogger(__name__)

RETRY_DELAYS = (0.5, 2.0, 5.0)
"""Seconds before each retry. Commands are not retried."""
MAX_UNDELIVERED_EVENTS = 10_000
"""Maximum number of undelivered events per target. If there are more, the oldest ones are removed."""
CLOSE_SECONDS = 10.0
"""Time limit for the delivery of the last events when the server stops. The next server delivers the remaining ones."""
CANCEL_SECONDS = 1.0
"""Time limit for a cancelled command to end. A request to a webhook is not cancelled: it ends with the server."""


class Delivery:
    """Delivers events to one target until it is closed."""

    def __init__(self, outbox: Outbox, queues: Queues, target: EventTarget) -> None:
        self._outbox, self._target = outbox, target
        self._cancelled = threading.Event()
        self._deliver = make_deliver_function(target, queues, self._cancelled)
        self._delays = () if target.command else RETRY_DELAYS
        self._changed, self._is_closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"events to {target.description}", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Report that the outbox has a new event."""
        self._changed.set()

    def close(self, deadline: float) -> None:
        """Deliver the remaining events until the deadline, which is in seconds of the monotonic clock."""
        self._is_closing.set()
        self._changed.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._cancelled.set()
        self._thread.join(CANCEL_SECONDS)

    def _run(self) -> None:
        while not self._cancelled.is_set():
            self._changed.clear()
            try:
                self._deliver_all()
            except Exception:  # errors such as a full device must not end the thread
                logger.exception("events for %s are delayed", self._target.description)
                self._cancelled.wait(RETRY_DELAYS[-1])
                continue
            if self._is_closing.is_set():
                return
            self._changed.wait()

    def _deliver_all(self) -> None:
        while not self._cancelled.is_set() and (event := self._limit_and_find_first()):
            if self._try_to_deliver(event):
                self._outbox.remove(event)

    def _limit_and_find_first(self) -> StoredEvent | None:
        """Remove the oldest events if there are too many, and return the oldest remaining event."""
        if removed_count := self._outbox.keep_latest(self._target.key, MAX_UNDELIVERED_EVENTS):
            logger.error(
                "%s has too many undelivered events: the %d oldest ones are lost",
                self._target.description,
                removed_count,
            )
        return self._outbox.find_first(self._target.key)

    def _try_to_deliver(self, event: StoredEvent) -> bool:
        """Deliver an event, or log an error if all attempts fail. Return whether the event can be removed from the
        outbox: it cannot if the server stops before the last attempt."""
        for delay in (*self._delays, None):
            try:
                self._deliver(event.content)
            except (DeliveryError, OSError) as error:
                reason = str(error)
            else:
                return True
            if self._is_closing.is_set():  # the next server delivers the event
                self._cancelled.set()
                return False
            if delay is not None:
                self._is_closing.wait(delay)
        logger.error("event %.200s was not delivered to %s: %s", event.content, self._target.description, reason)
        return True


class Deliveries:
    """The deliveries to all targets."""

    def __init__(self, outbox: Outbox, queues: Queues, targets: Sequence[EventTarget]) -> None:
        if removed_count := outbox.remove_unlisted_targets([target.key for target in targets]):
            logger.warning("%d undelivered events are removed: their targets are no longer configured", removed_count)
        self._deliveries = [Delivery(outbox, queues, target) for target in targets]

    def notify(self) -> None:
        for delivery in self._deliveries:
            delivery.notify()

    def close(self) -> None:
        """Deliver the remaining events. Events that are not delivered within CLOSE_SECONDS stay in the outbox."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for delivery in self._deliveries:
            delivery.close(deadline)
