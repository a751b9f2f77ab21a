"""The log of a job, read as it grows. Facts §6: DescribeLogStreams gives no token, GetLogEvents always does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from orchestrator.workflows.kinds import Kind

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

    @property
    def host(self) -> str:
        """`algo-1`: the stream without the time at its end."""
        return re.sub(r"-\d{10,}$", "", self.stream)


@dataclass
class LogTail:
    """What is new in the log streams of a group that start with a prefix."""

    client: "CloudWatchLogsClient"
    group: str
    prefix: str
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, client: "CloudWatchLogsClient", kind: Kind, name: str) -> "LogTail":
        return cls(client, kind.log_group(name), kind.log_prefix(name))

    def read(self) -> list[Event]:
        """Lines since the last call, a page of each host, in the order of their times: a log may grow faster than
        it can be read, and its job is to be looked at in between."""
        events = [event for stream in self._streams() for event in self._page(stream)]
        return sorted(events, key=lambda event: event.time)

    def rest(self) -> Iterator[Event]:
        """All lines that there are since the last call, for a job that has ended."""
        while True:  # an answer may be empty although there is more: the tokens tell
            before = dict(self.tokens)
            events = self.read()
            yield from events
            if not events and self.tokens == before:
                return

    def _streams(self) -> list[str]:
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

    def _page(self, stream: str) -> Iterator[Event]:
        request: dict[str, Any] = {"logGroupName": self.group, "logStreamName": stream, "startFromHead": True}
        if stream in self.tokens:
            request["nextToken"] = self.tokens[stream]
        answer = self.client.get_log_events(**request)
        self.tokens[stream] = answer["nextForwardToken"]
        for event in answer["events"]:
            yield Event(stream.removeprefix(self.prefix), event["timestamp"], event["message"])
