"""CloudWatch Logs: the operations with which clients read the output of jobs and endpoints.

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
MAX_RESPONSE_BYTES = 1 << 20
"""Limits of one response, as on AWS. The size of an event is the length of its message plus 26 bytes. The limit of the
size applies only to pages of GetLogEvents that are read forwards."""
MAX_SCANNED_BYTES = 64 << 20
"""Maximum number of bytes of log files that one request reads, unless GetLogEvents reads backwards. If more bytes
remain, the response has a token with which the next request continues."""
PAGE_SIZE = 50

Handler = Callable[[dict[str, Any]], Mapping[str, Any]]

_cut_page = partial(
    cut_page, member_names=("nextToken", "limit"), default_limit=PAGE_SIZE, code="InvalidParameterException"
)


class Logs:
    """CloudWatch Logs' operations. The log events are in the log files of the hosts."""

    def __init__(self, store: LogStore, region: str = REGION) -> None:
        self._store = store
        self._region = region

    def list_handlers(self) -> dict[str, Handler]:
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
        names = [
            name
            for name in self._store.groups()
            if all(GROUP_FILTERS[member](name, value) for member, value in filters.items())
        ]
        page, token = _cut_page(names, request)
        return {"logGroups": [{"logGroupName": name, "arn": self._make_arn(name)} for name in page], **token}

    def describe_log_streams(self, request: dict[str, Any]) -> Mapping[str, Any]:
        group = self._get_group_name(request)
        streams = self._store.streams(group, request.get("logStreamNamePrefix", ""))
        descriptions = [self._describe(group, name, stream) for name, stream in streams.items()]
        if request.get("orderBy") == "LastEventTime":
            descriptions.sort(key=lambda stream: stream.get("lastEventTimestamp", 0))
        if request.get("descending"):
            descriptions.reverse()
        # The last page has no token, because the SageMaker SDK requests pages until it gets no token.
        page, token = _cut_page(descriptions, request)
        return {"logStreams": page, **token}

    def _describe(self, group: str, name: str, stream: LogStream) -> dict[str, Any]:
        first_time, last_time = stream.first_time(), stream.last_time()
        times = {} if first_time is None else {"firstEventTimestamp": first_time, "lastEventTimestamp": last_time}
        created = round(stream.path.stat().st_ctime * 1000) if first_time is None else first_time
        arn = f"{self._make_arn(group)}:log-stream:{name}"
        return {"logStreamName": name, "creationTime": created, "arn": arn, **times}

    def get_log_events(self, request: dict[str, Any]) -> Mapping[str, Any]:
        if (stream := self._store.stream(self._get_group_name(request), request["logStreamName"])) is None:
            raise ResourceNotFoundError("The specified log stream does not exist.")
        limit = min(request.get("limit", MAX_EVENTS), MAX_EVENTS)
        direction, offset = _read_position(request, stream)
        if direction == "f":
            events_in_range = (event for event in stream.events(offset) if _is_in_time_range(event, request))
            events = list(_limit_size(itertools.islice(events_in_range, limit), offset))
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
        events, scanned_bytes = list[dict[str, Any]](), 0
        for name, event in _merge_events(streams, positions, is_candidate):
            if len(events) == limit or scanned_bytes > MAX_SCANNED_BYTES:
                return {"events": events, "searchedLogStreams": [], "nextToken": _format_token(positions)}
            scanned_bytes += event.end - positions.get(name, 0)
            positions[name] = event.end
            if _is_in_time_range(event, request) and matches(event.message):
                events.append({"logStreamName": name, "eventId": f"{name}/{event.start}", **_format_event(event)})
        return {"events": events, "searchedLogStreams": []}

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

    def _make_arn(self, group: str) -> str:
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
        return ("f", 0) if request.get("startFromHead") else ("b", stream.get_complete_size())
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
    """Yield events until the response is full or MAX_SCANNED_BYTES of the file were read. Always yield the first event,
    however long it is."""
    size = 0
    for event in events:
        size += len(event.message) + 26
        if size > len(event.message) + 26 and (size > MAX_RESPONSE_BYTES or event.end - offset > MAX_SCANNED_BYTES):
            return
        yield event


def _format_event(event: LogEvent) -> dict[str, Any]:
    return {"timestamp": event.time, "message": event.message, "ingestionTime": event.time}


def _merge_events(
    streams: Mapping[str, LogStream], positions: Mapping[str, int], is_candidate: Callable[[bytes], bool] | None
) -> Iterator[tuple[str, LogEvent]]:
    """Yield each event after the positions, with the name of its stream, sorted by time. Skip events that are not
    candidates."""

    def read(name: str, stream: LogStream) -> Iterator[LogEvent]:
        start = positions.get(name, 0)
        return stream.events(start) if is_candidate is None else stream.find(start, is_candidate)

    named_events = [zip(itertools.repeat(name), read(name, stream), strict=False) for name, stream in streams.items()]
    return heapq.merge(*named_events, key=lambda pair: pair[1].time)


_ALTERED_BYTES = bytes([*range(9), *range(11, 32), 0x7F, 0xC2])
"""Bytes that can make the message of an event differ from the line in the log file: control characters, or the first
byte of a control character."""


def _parse_pattern(text: str) -> tuple[Callable[[str], bool], Callable[[bytes], bool] | None]:
    """Parse a filter pattern: `a "b c" -d` requires `a` and `b c` without `d`, and `?a ?b` requires `a` or `b`.

    Return two functions. The first function returns whether a message matches. The second function is faster: it
    returns whether the message of a record in the log file may match. The second function is None if the bytes of a
    record cannot exclude a match.
    """
    if text.strip().startswith(("{", "[", "%")):
        raise _make_parameter_error(f'filterPattern {text!r} is not supported: use terms, such as ERROR or "disk full"')
    terms = [(sign, quoted or bare) for sign, quoted, bare in re.findall(r'([?-]?)(?:"([^"]*)"|(\S+))', text)]
    required_terms, excluded_terms, alternatives = (
        [term for sign, term in terms if sign == wanted_sign] for wanted_sign in ("", "-", "?")
    )

    def matches(message: str) -> bool:
        if not required_terms and alternatives:
            return any(term in message for term in alternatives)
        has_required_terms = all(term in message for term in required_terms)
        return has_required_terms and not any(term in message for term in excluded_terms)

    candidate_terms = [term.encode() for term in ([max(required_terms, key=len)] if required_terms else alternatives)]
    # a message contains U+FFFD in place of bytes that are not UTF-8
    if not candidate_terms or any("\ufffd".encode() in term for term in candidate_terms):
        return matches, None

    def is_candidate(record: bytes) -> bool:
        return any(term in record for term in candidate_terms) or len(record.translate(None, _ALTERED_BYTES)) < len(
            record
        )

    return matches, is_candidate


def _format_token(positions: Mapping[str, int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(positions).encode()).decode()


def _read_token(token: str) -> dict[str, int]:
    try:
        return {str(name): int(offset) for name, offset in json.loads(base64.urlsafe_b64decode(token)).items()}
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise _make_token_error(token) from error
