"""Logs of jobs, read while they grow.

GetLogEvents always returns a token for the next call, even at the end of a stream:
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator import terminal
from microjobs_orchestrator.runs.kinds import Kind

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient


@dataclass(frozen=True)
class LogEvent:
    """One line of a log."""

    stream: str
    """The log stream without the job's name: `algo-1-1763778749000`."""
    time: int
    """Milliseconds since 1970."""
    text: str
    """The line as a terminal shows it. Its only control sequences are colours."""

    @classmethod
    def from_message(cls, stream: str, time: int, message: str) -> "LogEvent":
        """Return the event of a message, which may contain any characters."""
        return cls(stream, time, terminal.strip_controls(terminal.render_line(message), keep_colours=True))

    @property
    def host(self) -> str:
        """The stream without the time at its end: `algo-1`."""
        return re.sub(r"-\d{10,}$", "", self.stream)


@dataclass
class Tail(ABC):
    """Reads new lines of the log streams of a resource."""

    kind: Kind
    name: str
    positions: dict[str, Any] = field(default_factory=dict, init=False)
    """The position in each stream."""

    @property
    def group(self) -> str:
        return self.kind.log_group(self.name)

    @property
    def prefix(self) -> str:
        """The beginning of the names of the streams."""
        return self.kind.log_prefix(self.name)

    def read(self) -> list[LogEvent]:
        """Return the lines since the last call, at most one page per stream, sorted by time.

        Pages let the caller check the job's status in between: a log can grow faster than it is read.
        """
        events = [event for stream in self._list_streams() for event in self._read_page(stream)]
        return sorted(events, key=lambda event: event.time)

    def read_remaining(self) -> Iterator[LogEvent]:
        """Yield all lines since the last call, for a job that has ended."""
        while True:  # an empty page is the last page only if the positions have not changed
            earlier_positions = dict(self.positions)
            events = self.read()
            yield from events
            if not events and self.positions == earlier_positions:
                return

    @abstractmethod
    def _list_streams(self) -> list[str]:
        """Return the names of the streams, sorted."""

    @abstractmethod
    def _read_page(self, stream: str) -> Iterable[LogEvent]:
        """Return the next lines of a stream, and store the position after them."""


@dataclass
class ClientTail(Tail):
    """A tail that reads with a client: from CloudWatch Logs, or from the local server."""

    client: "CloudWatchLogsClient"

    def _list_streams(self) -> list[str]:
        from botocore.exceptions import ClientError  # this import takes as long as the rest of `microjobs logs`

        request: dict[str, Any] = {"logGroupName": self.group}
        if self.prefix:
            request["logStreamNamePrefix"] = self.prefix
        try:
            pages = self.client.get_paginator("describe_log_streams").paginate(**request)
            return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":  # nothing has been logged
                return []
            raise

    def _read_page(self, stream: str) -> Iterable[LogEvent]:
        request: dict[str, Any] = {"logGroupName": self.group, "logStreamName": stream, "startFromHead": True}
        if stream in self.positions:
            request["nextToken"] = self.positions[stream]
        page = self.client.get_log_events(**request)
        self.positions[stream] = page["nextForwardToken"]
        for event in page["events"]:
            yield LogEvent.from_message(stream.removeprefix(self.prefix), event["timestamp"], event["message"])
