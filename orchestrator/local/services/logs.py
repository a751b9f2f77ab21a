"""CloudWatch Logs: the operations with which clients read the output of jobs.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html
"""

import base64
import heapq
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from microjobs_orchestrator.local.errors import ResourceNotFoundError, ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT, REGION
from microjobs_orchestrator.local.logs import LogEvent, LogStore, LogStream
from microjobs_orchestrator.local.pages import cut_page

MAX_EVENTS = 10_000
MAX_BYTES = 1 << 20
"""Limits of one response, as on AWS. The size of an event is the length of its message plus 26 bytes."""
MAX_SCANNED_BYTES = 64 << 20
"""Limit for bytes of log files that one request reads. The client requests the rest."""
PAGE_SIZE = 50

Handler = Callable[[dict[str, Any]], Mapping[str, Any]]

_cut_page = partial(cut_page, names=("nextToken", "limit"), default_limit=PAGE_SIZE, code="InvalidParameterException")


class Logs:
    """The operations. Events are in the jobs' log files."""

    def __init__(self, store: LogStore, region: str = REGION) -> None:
        self._store = store
        self._region = region

    def operations(self) -> dict[str, Handler]:
        return {
            "DescribeLogGroups": self.describe_log_groups,
            "DescribeLogStreams": self.describe_log_streams,
            "GetLogEvents": self.get_log_events,
            "FilterLogEvents": self.filter_log_events,
        }

    def describe_log_groups(self, request: dict[str, Any]) -> Mapping[str, Any]:
        filters = {name: request[name] for name in GROUP_FILTERS if name in request}
        if len(filters) > 1:
            raise _make_parameter_error(f"{' and '.join(filters)} cannot be used together.")
        names = [name for name in self._store.groups() if all(GROUP_FILTERS[f](name, v) for f, v in filters.items())]
        page, token = _cut_page(names, request)
        return {"logGroups": [{"logGroupName": name, "arn": self._arn(name)} for name in page], **token}

    def describe_log_streams(self, request: dict[str, Any]) -> Mapping[str, Any]:
        group = self._get_group_name(request)
        streams = self._store.streams(group, request.get("logStreamNamePrefix", ""))
        described = [self._describe(group, name, stream) for name, stream in streams.items()]
        if request.get("orderBy") == "LastEventTime":
            described.sort(key=lambda stream: stream.get("lastEventTimestamp", 0))
        if request.get("descending"):
            described.reverse()
        # The last page has no token, because the SageMaker SDK requests pages until it gets no token.
        page, token = _cut_page(described, request)
        return {"logStreams": page, **token}

    def _describe(self, group: str, name: str, stream: LogStream) -> dict[str, Any]:
        first, last = stream.first_time(), stream.last_time()
        times = {} if first is None else {"firstEventTimestamp": first, "lastEventTimestamp": last}
        created = round(stream.path.stat().st_ctime * 1000) if first is None else first
        arn = f"{self._arn(group)}:log-stream:{name}"
        return {"logStreamName": name, "creationTime": created, "arn": arn, **times}

    def get_log_events(self, request: dict[str, Any]) -> Mapping[str, Any]:
        if (stream := self._store.stream(self._get_group_name(request), request["logStreamName"])) is None:
            raise ResourceNotFoundError("The specified log stream does not exist.")
        limit = min(request.get("limit", MAX_EVENTS), MAX_EVENTS)
        direction, offset = _read_position(request, stream)
        if direction == "f":
            matching = (event for event in stream.events(offset) if _is_in_time_range(event, request))
            events = list(_limit_size(itertools.islice(matching, limit), offset))
        else:
            events = stream.list_before(offset, limit, lambda event: _is_in_time_range(event, request))
        begin, end = (events[0].start, events[-1].end) if events else (offset, offset)
        return {
            "events": [_format_event(event) for event in events],
            "nextForwardToken": f"f/{end}",
            "nextBackwardToken": f"b/{begin}",
        }

    def filter_log_events(self, request: dict[str, Any]) -> Mapping[str, Any]:
        streams = self._choose_streams(request)
        positions: dict[str, int] = _read_token(request["nextToken"]) if "nextToken" in request else {}
        if not all(stream.is_start(positions.get(name, 0)) for name, stream in streams.items()):
            raise _make_token_error(request["nextToken"])
        matches, is_candidate = _parse_pattern(request.get("filterPattern", ""))
        limit = min(request.get("limit", MAX_EVENTS), MAX_EVENTS)
        found, scanned = list[dict[str, Any]](), 0
        for name, event in _merge(streams, positions, is_candidate):
            if len(found) == limit or scanned > MAX_SCANNED_BYTES:
                return {"events": found, "searchedLogStreams": [], "nextToken": _format_token(positions)}
            scanned += event.end - positions.get(name, 0)
            positions[name] = event.end
            if _is_in_time_range(event, request) and matches(event.message):
                found.append({"logStreamName": name, "eventId": f"{name}/{event.start}", **_format_event(event)})
        return {"events": found, "searchedLogStreams": []}

    def _choose_streams(self, request: Mapping[str, Any]) -> Mapping[str, LogStream]:
        group, names = self._get_group_name(request), request.get("logStreamNames")
        if "logStreamNames" in request and "logStreamNamePrefix" in request:
            raise _make_parameter_error("logStreamNames and logStreamNamePrefix cannot be used together.")
        streams = self._store.streams(group, request.get("logStreamNamePrefix", ""))
        return {name: stream for name, stream in streams.items() if names is None or name in names}

    def _get_group_name(self, request: Mapping[str, Any]) -> str:
        if ("logGroupName" in request) == ("logGroupIdentifier" in request):
            raise _make_parameter_error("Use either logGroupName or logGroupIdentifier.")
        name = _parse_group_name(request.get("logGroupName") or request["logGroupIdentifier"])
        if not self._store.has_group(name):
            raise ResourceNotFoundError("The specified log group does not exist.")
        return name

    def _arn(self, group: str) -> str:
        return f"arn:aws:logs:{self._region}:{ACCOUNT}:log-group:{group}"


def _parse_group_name(identifier: str) -> str:
    return identifier.partition(":log-group:")[2].removesuffix(":*") or identifier


GROUP_FILTERS: Mapping[str, Callable[[str, Any], bool]] = {
    "logGroupNamePrefix": lambda name, prefix: name.startswith(prefix),
    "logGroupNamePattern": lambda name, part: part in name,
    "logGroupIdentifiers": lambda name, identifiers: name in map(_parse_group_name, identifiers),
}
"""Filters of DescribeLogGroups. CloudWatch accepts one of them per request."""


def _read_position(request: Mapping[str, Any], stream: LogStream) -> tuple[str, int]:
    token = request.get("nextToken")
    if token is None:
        return ("f", 0) if request.get("startFromHead") else ("b", stream.whole_size())
    match = re.fullmatch(r"([fb])/([0-9]{1,18})", token)
    if match is None or not stream.is_start(int(match[2])):
        raise _make_token_error(token)
    return match[1], int(match[2])


def _make_parameter_error(message: str) -> ServiceError:
    return ServiceError("InvalidParameterException", message)


def _make_token_error(token: str) -> ServiceError:
    return _make_parameter_error(f"The specified nextToken is invalid: {token!r}.")


def _is_in_time_range(event: LogEvent, request: Mapping[str, Any]) -> bool:
    return bool(request.get("startTime", 0) <= event.time < request.get("endTime", float("inf")))


def _limit_size(events: Iterator[LogEvent], offset: int) -> Iterator[LogEvent]:
    """Yield events, at least one, until the response is full or MAX_SCANNED_BYTES of the file were read."""
    size = 0
    for event in events:
        size += len(event.message) + 26
        if size > len(event.message) + 26 and (size > MAX_BYTES or event.end - offset > MAX_SCANNED_BYTES):
            return
        yield event


def _format_event(event: LogEvent) -> dict[str, Any]:
    return {"timestamp": event.time, "message": event.message, "ingestionTime": event.time}


def _merge(
    streams: Mapping[str, LogStream], positions: Mapping[str, int], is_candidate: Callable[[bytes], bool] | None
) -> Iterator[tuple[str, LogEvent]]:
    def read(name: str, stream: LogStream) -> Iterator[LogEvent]:
        start = positions.get(name, 0)
        return stream.events(start) if is_candidate is None else stream.find(start, is_candidate)

    named = [zip(itertools.repeat(name), read(name, stream), strict=False) for name, stream in streams.items()]
    return heapq.merge(*named, key=lambda pair: pair[1].time)


_REWRITTEN = bytes([*range(9), *range(11, 32), 0x7F, 0xC2])
"""Bytes of a line whose message may differ from its text: control characters, and the first byte of some of them."""


def _parse_pattern(text: str) -> tuple[Callable[[str], bool], Callable[[bytes], bool] | None]:
    """Parse a filter pattern: `a "b c" -d` requires `a` and `b c` without `d`, and `?a ?b` requires `a` or `b`.

    Return a function that tells whether a message matches, and a fast function that tells whether the message of a
    record may match. The second one is None if each message may match.
    """
    if text.strip().startswith(("{", "[", "%")):
        raise _make_parameter_error(f'filterPattern {text!r} is not supported: use terms, such as ERROR or "disk full"')
    terms = [(sign, quoted or bare) for sign, quoted, bare in re.findall(r'([?-]?)(?:"([^"]*)"|(\S+))', text)]
    required, excluded, alternatives = ([term for sign, term in terms if sign == kind] for kind in ("", "-", "?"))

    def matches(message: str) -> bool:
        if not required and alternatives:
            return any(term in message for term in alternatives)
        return all(term in message for term in required) and not any(term in message for term in excluded)

    needed = [term.encode() for term in ([max(required, key=len)] if required else alternatives)]
    if not needed or any("\ufffd".encode() in term for term in needed):  # it replaces bytes that are not UTF-8
        return matches, None

    def is_candidate(record: bytes) -> bool:
        return any(term in record for term in needed) or len(record.translate(None, _REWRITTEN)) < len(record)

    return matches, is_candidate


def _format_token(positions: Mapping[str, int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(positions).encode()).decode()


def _read_token(token: str) -> dict[str, int]:
    try:
        return {str(name): int(offset) for name, offset in json.loads(base64.urlsafe_b64decode(token)).items()}
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise _make_token_error(token) from error
