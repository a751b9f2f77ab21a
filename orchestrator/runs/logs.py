"""The log of a job, read as it grows. Facts §6: DescribeLogStreams gives no token, GetLogEvents always does."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator import terminal
from microjobs_orchestrator.runs.kinds import Kind

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient


@dataclass(frozen=True)
class Event:
    """A line of a log."""

    stream: str
    """Without the job's name: `algo-1-1763778749000`."""
    time: int
    """Milliseconds since 1970."""
    text: str
    """What a terminal shows of it. Colours are left, and nothing else that a terminal would obey."""

    @classmethod
    def of(cls, stream: str, time: int, message: str) -> "Event":
        """An event with a message that may hold anything."""
        return cls(stream, time, terminal.safe(terminal.shown(message), colours=True))

    @property
    def host(self) -> str:
        """`algo-1`: the stream without the time at its end."""
        return re.sub(r"-\d{10,}$", "", self.stream)


@dataclass
class Tail(ABC):
    """Reads the new lines of the log streams in a group whose names start with a prefix."""

    group: str
    prefix: str

    def read(self) -> list[Event]:
        """Lines since the last call, at most one page per stream, sorted by time.

        A log may grow faster than it can be read, so the caller can look at the job between two pages.
        """
        events = [event for stream in self._streams() for event in self._page(stream)]
        return sorted(events, key=lambda event: event.time)

    def rest(self) -> Iterator[Event]:
        """All lines since the last call, for a job that has ended."""
        while True:  # a page may be empty although there is more: the positions tell
            before = self._positions()
            events = self.read()
            yield from events
            if not events and self._positions() == before:
                return

    @abstractmethod
    def _streams(self) -> list[str]:
        """PlanNames of the streams, sorted."""

    @abstractmethod
    def _page(self, stream: str) -> Iterable[Event]:
        """The next lines of a stream."""

    @abstractmethod
    def _positions(self) -> Mapping[str, object]:
        """How far each stream was read."""


@dataclass
class LogTail(Tail):
    """A tail that reads from CloudWatch Logs, or from the local server as its client does."""

    client: "CloudWatchLogsClient"
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, client: "CloudWatchLogsClient", kind: Kind, name: str) -> "LogTail":
        return cls(kind.log_group(name), kind.log_prefix(name), client)

    def _positions(self) -> Mapping[str, object]:
        return dict(self.tokens)

    def _streams(self) -> list[str]:
        from botocore.exceptions import ClientError  # takes as long as all the rest of `microjobs logs`

        request: dict[str, Any] = {"logGroupName": self.group}
        if self.prefix:
            request["logStreamNamePrefix"] = self.prefix
        try:
            pages = self.client.get_paginator("describe_log_streams").paginate(**request)
            return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":  # nothing was logged yet
                return []
            raise

    def _page(self, stream: str) -> Iterable[Event]:
        request: dict[str, Any] = {"logGroupName": self.group, "logStreamName": stream, "startFromHead": True}
        if stream in self.tokens:
            request["nextToken"] = self.tokens[stream]
        answer = self.client.get_log_events(**request)
        self.tokens[stream] = answer["nextForwardToken"]
        for event in answer["events"]:
            yield Event.of(stream.removeprefix(self.prefix), event["timestamp"], event["message"])
