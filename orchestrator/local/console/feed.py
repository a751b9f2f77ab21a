"""Changes of resources, logs and metrics, as streams of server-sent events. Each browser reads one stream, for all its
tabs.

A stream occupies a connection, but no thread: a task serves it. An event only names what has changed. Pages
request the descriptions, lines and points that they show, starting after those that they already have. Therefore, the
server keeps no lines or points for slow browsers, and a browser that missed events can request the missing data.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import load_kinds
from microjobs_orchestrator.local.state import Record
from microjobs_orchestrator.local.tasks import Event

MAX_STREAMS = 200
"""Maximum number of streams. It is lower than the number of connections, so that other requests are possible."""
MAX_PENDING_CHANGES = 500
"""Maximum number of changes in one event. If there are more, the event lists none, and `isTruncated` is true."""
MIN_EVENT_INTERVAL = 0.25
"""Minimum time between two events of a stream, in seconds. Changes in this time become one event."""
CHECK_INTERVAL = 5.0
"""Interval in seconds at which a stream without changes checks whether its page and its session are open."""

PAUSE = b""
"""An empty part of a response. It makes the listener check whether the client is still connected."""

Topic = Literal["changes", "logs", "metrics"]
TOPICS: tuple[Topic, ...] = ("changes", "logs", "metrics")


class Feed:
    """All streams. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._kinds = {kind.arn_type for kind in load_kinds()}
        self._lock = threading.Lock()
        self._is_closed = False
        self._streams: set[ChangeStream] = set()

    def publish(self, record: Record) -> None:
        """Report a new, changed or deleted resource to all consoles, without waiting until they have read it.

        Records that are only parts of a resource, such as the steps of an execution, are reported, too.
        """
        if record.kind in self._kinds or (record.owner is not None and record.owner.kind in self._kinds):
            change = {"kind": record.kind, "name": record.name, "arn": record.arn, "status": record.status}
            self._add("changes", {record.arn: change})

    def publish_line(self, log_group: str, log_stream: str) -> None:
        """Report to all consoles that a log stream has new lines."""
        self._add("logs", {f"{log_group}/{log_stream}": {"group": log_group, "stream": log_stream}})

    def publish_points(self, dimensions: Iterable[Mapping[str, str]]) -> None:
        """Report to all consoles the dimensions of metrics that have new points."""
        if self._streams:
            self._add("metrics", {json.dumps(group, sort_keys=True): dict(group) for group in dimensions})

    def _add(self, topic: Topic, changes: Mapping[str, Any]) -> None:
        # without a stream, no page needs the change: when a stream opens, the pages request all their data again
        if not self._streams:
            return
        with self._lock:
            for stream in self._streams:
                stream.add(topic, changes)

    def close(self) -> None:
        """End all streams, and each stream that is opened later."""
        with self._lock:
            self._is_closed = True
            for stream in self._streams:
                stream.end()

    def open(self, is_allowed: Callable[[], bool]) -> "ChangeStream":
        """Return a new stream. The caller closes it.

        Args:
            is_allowed: returns whether the session of the stream is open; otherwise, the stream ends.

        Raises:
            ServiceError: too many streams are open.
        """
        stream = ChangeStream(self._remove, is_allowed)
        with self._lock:
            if len(self._streams) >= MAX_STREAMS:
                message = f"{MAX_STREAMS} consoles are open: close one of them"
                raise ServiceError("ServiceUnavailable", message, 503)
            self._streams.add(stream)
            if self._is_closed:
                stream.end()
        return stream

    def _remove(self, stream: "ChangeStream") -> None:
        with self._lock:
            self._streams.discard(stream)


class ChangeStream:
    """The changes that one console has not received yet: an iterator over the parts of a response.

    Args:
        remove: called when the stream is closed.
        is_allowed: returns whether the session of the stream is open.
    """

    def __init__(self, remove: Callable[["ChangeStream"], None], is_allowed: Callable[[], bool]) -> None:
        self._remove, self._is_allowed = remove, is_allowed
        self._change_event, self._end_event = Event(), Event()
        self._lock = threading.Lock()
        self._pending: dict[tuple[Topic, str], Any] = {}
        self._has_started = False

    @property
    def has_changes(self) -> bool:
        return bool(self._pending)

    def add(self, topic: Topic, changes: Mapping[str, Any]) -> None:
        """Add changes by their identities. A later change replaces an earlier change with the same identity."""
        with self._lock:
            if len(self._pending) <= MAX_PENDING_CHANGES:
                self._pending.update(((topic, key), change) for key, change in changes.items())
            self._change_event.set()

    def end(self) -> None:
        """End the stream: the client receives no more events."""
        self._end_event.set()
        self._change_event.set()

    def take(self) -> bytes:
        """Return the changes as an event, and remove them from the stream. Return PAUSE if there are none."""
        with self._lock:
            self._change_event.clear()
            pending, self._pending = self._pending, {}
        if not pending:
            return PAUSE
        event: dict[str, Any] = {topic: [] for topic in TOPICS}
        event["isTruncated"] = len(pending) > MAX_PENDING_CHANGES
        if not event["isTruncated"]:
            for (topic, _), change in pending.items():
                event[topic].append(change)
        return f"data: {json.dumps(event)}\n\n".encode()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._has_started:
            self._has_started = True
            return b": open\n\n"
        if not self._end_event.wait(MIN_EVENT_INTERVAL):
            self._change_event.wait(CHECK_INTERVAL)
        if self._end_event.is_set() or not self._is_allowed():
            raise StopIteration
        return self.take()

    def close(self) -> None:
        self._remove(self)
