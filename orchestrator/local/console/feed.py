"""Changes of resources, as streams of server-sent events. Each browser reads one stream, for all its tabs.

A stream occupies a thread of the server, so their number is limited. A stream contains names and statuses; a page
requests the descriptions that it shows.
"""

import json
import threading
from collections.abc import Callable, Iterator

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import all_kinds
from microjobs_orchestrator.local.state import Record

MAX_STREAMS = 10
MAX_PENDING = 500
"""Maximum number of changed resources in one event. Beyond it, the event states only that many have changed."""
INTERVAL = 0.25
"""Minimum time between two events of a stream, in seconds: changes in this time become one event."""
CHECK_INTERVAL = 5.0
"""Interval in which a stream without changes checks whether its page is open."""
ROOM_TIMEOUT = 1.0
"""Time for which a new stream waits until the server has found that the page of another stream is closed."""

PAUSE = b""
"""The part of a response for which the listener checks whether the client has left."""


class Feed:
    """All streams. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._kinds = {kind.arn_type for kind in all_kinds()}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._streams: set[Stream] = set()
        self._must_check = False

    def publish(self, record: Record) -> None:
        """Add a new, changed or deleted resource to all streams, without waiting for them.

        A part of a resource that is no resource itself, such as a step of an execution, is added, too.
        """
        if record.kind in self._kinds or (record.owner is not None and record.owner.kind in self._kinds):
            with self._changed:
                for stream in self._streams:
                    stream.add(record)
                self._changed.notify_all()

    def close(self) -> None:
        """End all streams."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()

    def open(self) -> "Stream":
        """Return a new stream. The caller closes it.

        Raises:
            ServiceError: too many streams are open.
        """
        stream = Stream(self._wait, self._remove)
        with self._changed:
            if len(self._streams) >= MAX_STREAMS:
                self._make_room()
            if len(self._streams) >= MAX_STREAMS:
                message = f"{MAX_STREAMS} consoles are open: close one of them"
                raise ServiceError("ServiceUnavailable", message, 503)
            self._streams.add(stream)
        return stream

    def _make_room(self) -> None:
        """Let all streams check whether their pages are open, and wait for the end of one."""
        self._must_check = True
        self._changed.notify_all()
        self._changed.wait_for(lambda: len(self._streams) < MAX_STREAMS, ROOM_TIMEOUT)
        self._must_check = False

    def _remove(self, stream: "Stream") -> None:
        with self._changed:
            self._streams.discard(stream)
            self._changed.notify_all()

    def _wait(self, stream: "Stream") -> bytes | None:
        """Return the next event of a stream, or a pause; None if the server stops."""
        self._closing.wait(INTERVAL)
        with self._changed:
            self._changed.wait_for(
                lambda: stream.has_changes or self._must_check or self._closing.is_set(), CHECK_INTERVAL
            )
            return None if self._closing.is_set() else stream.take()


class Stream:
    """The changes that one console has not received yet: an iterator over the parts of a response.

    Args:
        wait: returns the next part for a stream; None at the end.
        remove: called when the stream is closed.
    """

    def __init__(self, wait: Callable[["Stream"], bytes | None], remove: Callable[["Stream"], None]) -> None:
        self._wait, self._remove = wait, remove
        self._pending: dict[str, dict[str, str]] = {}
        self._has_started = False

    @property
    def has_changes(self) -> bool:
        return bool(self._pending)

    def add(self, record: Record) -> None:
        if len(self._pending) <= MAX_PENDING:
            self._pending[record.arn] = {
                "kind": record.kind,
                "name": record.name,
                "arn": record.arn,
                "status": record.status,
            }

    def take(self) -> bytes:
        """Return the changes as an event, and forget them."""
        changes, self._pending = list(self._pending.values()), {}
        if not changes:
            return PAUSE
        event = {"changes": [], "many": True} if len(changes) > MAX_PENDING else {"changes": changes, "many": False}
        return f"data: {json.dumps(event)}\n\n".encode()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._has_started:
            self._has_started = True
            return b": open\n\n"
        if (part := self._wait(self)) is None:
            raise StopIteration
        return part

    def close(self) -> None:
        self._remove(self)
