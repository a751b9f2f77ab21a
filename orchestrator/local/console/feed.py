"""Changes of resources, logs and metrics, as streams of server-sent events. Each browser reads one stream, for all its
tabs.

A stream occupies a thread of the server, so their number is limited. An event only names what has changed. Pages
request the descriptions, lines and points that they show, starting after those that they already have. Therefore, the
server keeps no lines or points for slow browsers, and a browser that missed events requests all that it lacks.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import all_kinds
from microjobs_orchestrator.local.state import Record

MAX_STREAMS = 10
MAX_PENDING = 500
"""Maximum number of changes in one event. If there are more, the event lists none, and its member `many` is true."""
INTERVAL = 0.25
"""Minimum time between two events of a stream, in seconds: changes in this time become one event."""
CHECK_INTERVAL = 5.0
"""Interval in seconds at which a stream without changes checks whether its page and its session are open."""
ROOM_TIMEOUT = 1.0
"""Maximum time in seconds that a new stream waits for the server to detect that another stream's page is closed."""

PAUSE = b""
"""An empty part of a response. It makes the listener check whether the client is still connected."""

Topic = Literal["changes", "logs", "metrics"]
TOPICS: tuple[Topic, ...] = ("changes", "logs", "metrics")


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

        Records that are only parts of a resource, such as the steps of an execution, are added, too.
        """
        if record.kind in self._kinds or (record.owner is not None and record.owner.kind in self._kinds):
            change = {"kind": record.kind, "name": record.name, "arn": record.arn, "status": record.status}
            self._add("changes", {record.arn: change})

    def publish_line(self, group: str, stream: str) -> None:
        """Add a log stream with new lines to all streams."""
        self._add("logs", {f"{group}/{stream}": {"group": group, "stream": stream}})

    def publish_points(self, dimensions: Iterable[Mapping[str, str]]) -> None:
        """Add the dimensions of metrics with new points to all streams."""
        if self._streams:
            self._add("metrics", {json.dumps(group, sort_keys=True): dict(group) for group in dimensions})

    def _add(self, topic: Topic, changes: Mapping[str, Any]) -> None:
        if not self._streams:  # a page that opens a stream requests all its data first
            return
        with self._changed:
            for stream in self._streams:
                stream.add(topic, changes)
            self._changed.notify_all()

    def close(self) -> None:
        """End all streams."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()

    def open(self, is_allowed: Callable[[], bool]) -> "Stream":
        """Return a new stream. The caller closes it.

        Args:
            is_allowed: returns whether the session of the stream is open; otherwise, the stream ends.

        Raises:
            ServiceError: too many streams are open.
        """
        stream = Stream(self._wait, self._remove, is_allowed)
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
        """Return the next event of a stream, or a pause; None if the server stops or the session has ended."""
        self._closing.wait(INTERVAL)
        with self._changed:
            self._changed.wait_for(
                lambda: stream.has_changes or self._must_check or self._closing.is_set(), CHECK_INTERVAL
            )
            return None if self._closing.is_set() or not stream.is_allowed() else stream.take()


class Stream:
    """The changes that one console has not received yet: an iterator over the parts of a response.

    Args:
        wait: returns the next part for a stream; None at the end.
        remove: called when the stream is closed.
        is_allowed: returns whether the session of the stream is open.
    """

    def __init__(
        self,
        wait: Callable[["Stream"], bytes | None],
        remove: Callable[["Stream"], None],
        is_allowed: Callable[[], bool],
    ) -> None:
        self._wait, self._remove, self.is_allowed = wait, remove, is_allowed
        self._pending: dict[tuple[Topic, str], Any] = {}
        self._has_started = False

    @property
    def has_changes(self) -> bool:
        return bool(self._pending)

    def add(self, topic: Topic, changes: Mapping[str, Any]) -> None:
        """Add changes by their identities. A later change replaces an earlier one."""
        if len(self._pending) <= MAX_PENDING:
            self._pending.update(((topic, key), change) for key, change in changes.items())

    def take(self) -> bytes:
        """Return the changes as an event, and forget them."""
        pending, self._pending = self._pending, {}
        if not pending:
            return PAUSE
        event: dict[str, Any] = {topic: [] for topic in TOPICS}
        event["many"] = len(pending) > MAX_PENDING
        if not event["many"]:
            for (topic, _), change in pending.items():
                event[topic].append(change)
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
