"""The operations of CloudWatch Logs, with the log files of jobs."""

from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local import logs as local_logs
from microjobs_orchestrator.local.errors import ResourceNotFoundError, ServiceError
from microjobs_orchestrator.local.logs import LogStore, LogStream
from microjobs_orchestrator.local.parity.table import refuse_unsupported_members
from microjobs_orchestrator.local.services import logs as service
from microjobs_orchestrator.local.services.logs import Logs
from tests.local.log_lines import append_line

GROUP = "/aws/sagemaker/TrainingJobs"


@pytest.fixture
def stream(tmp_path: Path) -> LogStream:
    return LogStore(tmp_path).create(GROUP, "job/algo-1-5")


@pytest.fixture
def logs(tmp_path: Path, stream: LogStream) -> Logs:
    for second in range(5):
        append_line(stream, second, b"line %d" % second)
    return Logs(LogStore(tmp_path))


def get_events(logs: Logs, **request: Any) -> tuple[list[str], str, str]:
    """Return the messages of a page, and its forward and backward tokens."""
    answer = logs.get_log_events({"logGroupName": GROUP, "logStreamName": "job/algo-1-5", **request})
    messages = [event["message"] for event in answer["events"]]
    return messages, answer["nextForwardToken"], answer["nextBackwardToken"]


def test_lines_are_read_from_the_head_in_pages(logs: Logs) -> None:
    first_messages, token, _ = get_events(logs, startFromHead=True, limit=3)
    last_messages, last_token, _ = get_events(logs, nextToken=token, limit=3)
    assert (first_messages, last_messages) == (["line 0", "line 1", "line 2"], ["line 3", "line 4"])
    assert get_events(logs, nextToken=last_token) == ([], last_token, last_token.replace("f/", "b/"))


def test_last_token_returns_newer_lines(logs: Logs, stream: LogStream) -> None:
    _, token, _ = get_events(logs, startFromHead=True)
    append_line(stream, 9, b"late")
    assert get_events(logs, nextToken=token)[0] == ["late"]


def test_last_lines_are_returned_unless_the_head_is_requested(logs: Logs) -> None:
    last_messages, _, backward_token = get_events(logs, limit=2)
    earlier_messages, _, _ = get_events(logs, nextToken=backward_token, limit=2)
    assert (last_messages, earlier_messages) == (["line 3", "line 4"], ["line 1", "line 2"])


def test_start_and_end_time_filter_events(logs: Logs) -> None:
    assert get_events(logs, startFromHead=True, startTime=1000, endTime=3000)[0] == ["line 1", "line 2"]


def test_end_time_limits_last_lines(logs: Logs) -> None:
    assert get_events(logs, endTime=2000, limit=1)[0] == ["line 1"]


@pytest.mark.parametrize("line_count", [1, 3000])
def test_reading_backwards_returns_each_line_once(stream: LogStream, logs: Logs, line_count: int) -> None:
    for number in range(line_count):
        append_line(stream, 10, b"%d " % number + b"x" * 100)
    messages: list[str] = []
    page, _, token = get_events(logs, limit=700)
    while page:
        messages[:0] = page
        page, _, token = get_events(logs, limit=700, nextToken=token)
    assert messages == [event.message for event in stream.events()]


def test_incomplete_record_is_not_returned(logs: Logs, stream: LogStream) -> None:
    with stream.path.open("ab") as file:
        file.write(b"6000 half a li")
    assert get_events(logs, startFromHead=True)[0][-1] == "line 4"


def test_line_without_its_beginning_has_the_time_of_the_line_before(stream: LogStream) -> None:
    stream.path.write_bytes(b"end of a line\n")
    append_line(stream, 2, b"whole")
    with stream.path.open("ab") as file:
        file.write(b"end of another line\n")
    events = [(event.time, event.text) for event in stream.events()]
    assert events == [(0, b"end of a line"), (2000, b"whole"), (2000, b"end of another line")]


def test_log_keeps_all_bytes_of_a_line(stream: LogStream) -> None:
    append_line(stream, 1, b"\xff progress\r50%\r")
    (event,) = stream.events()
    assert event.text == b"\xff progress\r50%\r"
    assert event.message == "50%rogress"


@pytest.mark.parametrize("length", [1, 5_000, 100_000])
def test_last_time_is_found_after_lines_of_any_length(stream: LogStream, length: int) -> None:
    append_line(stream, 1, b"short")
    append_line(stream, 2.5, b"x" * length)
    assert stream.last_time() == 2500


def test_empty_stream_has_no_times(stream: LogStream) -> None:
    assert (stream.first_time(), stream.last_time(), list(stream.events())) == (None, None, [])


def test_streams_are_described_by_prefix(logs: Logs, tmp_path: Path) -> None:
    LogStore(tmp_path).create(GROUP, "job-2/algo-1-5")
    answer = logs.describe_log_streams({"logGroupName": GROUP, "logStreamNamePrefix": "job/"})
    (description,) = answer["logStreams"]
    assert description["logStreamName"] == "job/algo-1-5"
    assert (description["firstEventTimestamp"], description["lastEventTimestamp"]) == (0, 4000)
    assert "nextToken" not in answer


@pytest.mark.parametrize("group", ["/aws/sagemaker/ProcessingJobs", "../..", "/aws/../.."])
def test_missing_group_raises_as_on_aws(logs: Logs, group: str) -> None:
    with pytest.raises(ResourceNotFoundError):
        logs.describe_log_streams({"logGroupName": group})


def test_streams_merge_by_time_in_pages(logs: Logs, tmp_path: Path) -> None:
    other = LogStore(tmp_path).create(GROUP, "job/algo-2-5")
    append_line(other, 1.5, b"between")
    request: dict[str, Any] = {"logGroupName": GROUP, "logStreamNamePrefix": "job/", "limit": 3}
    first_page = logs.filter_log_events(request)
    second_page = logs.filter_log_events({**request, "nextToken": first_page["nextToken"]})
    messages = [event["message"] for event in first_page["events"] + second_page["events"]]
    assert messages == ["line 0", "line 1", "between", "line 2", "line 3", "line 4"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("3", ["line 3"]), ('"line 2"', ["line 2"]), ("?1 ?2", ["line 1", "line 2"]), ("line -0 -1 -2 -3", ["line 4"])],
)
def test_terms_filter_events(logs: Logs, pattern: str, expected: list[str]) -> None:
    answer = logs.filter_log_events({"logGroupName": GROUP, "filterPattern": pattern})
    assert [event["message"] for event in answer["events"]] == expected


def test_rewritten_and_coloured_lines_are_found(tmp_path: Path, stream: LogStream) -> None:
    """A terminal shows terms in some of these lines although the bytes do not contain the terms."""
    lines = [
        b"lo\bloss=1",
        b"loss",
        b"lxxx\rloss=2",
        b"\x1b[31mlo\x1b[0mss",
        b"l\xc2\x9b31moss=3",
        b"\xffloss",
        b"other",
    ]
    for second, text in enumerate(lines):
        append_line(stream, second, text)
    logs = Logs(LogStore(tmp_path))
    messages = [event["message"] for event in logs.filter_log_events({"logGroupName": GROUP})["events"]]
    for term in ("loss", "los", "loss=", "?loss= ?other", "\ufffd"):
        matches, _ = service._parse_pattern(term)
        events = logs.filter_log_events({"logGroupName": GROUP, "filterPattern": term})["events"]
        assert [event["message"] for event in events] == [message for message in messages if matches(message)], term


def test_unsupported_filter_pattern_is_refused(logs: Logs) -> None:
    with pytest.raises(ServiceError, match="is not supported: use terms"):
        logs.filter_log_events({"logGroupName": GROUP, "filterPattern": "{ $.a = 1 }"})


@pytest.mark.parametrize(
    ("request_members", "expected"),
    [
        ({"logGroupNamePattern": "Training"}, [GROUP]),
        ({"logGroupNamePattern": "training"}, []),
        ({"logGroupNamePattern": "nothing-like-it"}, []),
        ({"logGroupNamePrefix": "/aws"}, [GROUP]),
        ({"logGroupIdentifiers": [GROUP]}, [GROUP]),
        ({"logGroupIdentifiers": [f"arn:aws:logs:us-east-1:000000000000:log-group:{GROUP}"]}, [GROUP]),
        ({"logGroupIdentifiers": ["other"]}, []),
    ],
)
def test_request_filters_groups(logs: Logs, request_members: dict[str, Any], expected: list[str]) -> None:
    groups = logs.describe_log_groups(request_members)["logGroups"]
    assert [group["logGroupName"] for group in groups] == expected


@pytest.mark.parametrize(
    ("operation", "request_members", "reason"),
    [
        ("DescribeLogGroups", {"logGroupNamePattern": "a", "logGroupNamePrefix": "b"}, "cannot be used together"),
        ("DescribeLogStreams", {}, "Use either logGroupName or logGroupIdentifier"),
        ("DescribeLogStreams", {"logGroupName": GROUP, "logGroupIdentifier": GROUP}, "Use either"),
        (
            "FilterLogEvents",
            {"logGroupName": GROUP, "logStreamNames": ["a"], "logStreamNamePrefix": "a"},
            "cannot be used together",
        ),
    ],
)
def test_contradicting_members_are_refused(
    logs: Logs, operation: str, request_members: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ServiceError, match=reason):
        logs.list_handlers()[operation](request_members)


@pytest.mark.parametrize(
    ("operation", "request_members"),
    [
        ("DescribeLogGroups", {"accountIdentifiers": ["111122223333"]}),
        ("DescribeLogGroups", {"includeLinkedAccounts": True}),
        ("DescribeLogGroups", {"logGroupClass": "INFREQUENT_ACCESS"}),
        ("FilterLogEvents", {"logGroupName": GROUP, "startFromHead": False}),
    ],
)
def test_unsupported_members_are_refused(operation: str, request_members: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match=r"^Not supported here: ") as caught:
        refuse_unsupported_members("logs", operation, request_members)
    assert caught.value.code == "InvalidParameterException"


def test_filter_request_limits_scanned_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_SCANNED_BYTES", 1000)
    monkeypatch.setattr(local_logs, "_STRIDE_BYTES", 100)
    store = LogStore(tmp_path)
    stream = store.create(GROUP, "job/algo-1-1")
    for number in range(100):
        append_line(stream, number, b"x" * 80 + b" needle" * (number == 99))
    request: dict[str, Any] = {"logGroupName": GROUP, "filterPattern": "needle"}
    pages = 1
    while "nextToken" in (answer := Logs(store).filter_log_events(request)):
        assert answer["events"] == []
        request["nextToken"] = answer["nextToken"]
        pages += 1
    assert pages > 5
    assert len(answer["events"]) == 1


def test_get_request_limits_scanned_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_SCANNED_BYTES", 10_000)
    store = LogStore(tmp_path)
    stream = store.create(GROUP, "job/algo-1-1")
    for _ in range(10):
        append_line(stream, 1, b"\rstate" * 500)
    request = {"logGroupName": GROUP, "logStreamName": "job/algo-1-1", "startFromHead": True}
    answer = Logs(store).get_log_events(request)
    assert [event["message"] for event in answer["events"]] == ["state"] * 3


def test_event_larger_than_a_response_is_returned_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_RESPONSE_BYTES", 100)
    store = LogStore(tmp_path)
    stream = store.create(GROUP, "job/algo-1-1")
    for text in (b"a" * 100, b"b", b"c" * 100):
        append_line(stream, 1, text)
    request: dict[str, Any] = {"logGroupName": GROUP, "logStreamName": "job/algo-1-1", "startFromHead": True}
    pages = []
    while (answer := Logs(store).get_log_events(request))["events"]:
        pages.append([event["message"][:1] for event in answer["events"]])
        request["nextToken"] = answer["nextForwardToken"]
    assert pages == [["a"], ["b"], ["c"]]


def test_group_is_found_by_arn(logs: Logs) -> None:
    arn = f"arn:aws:logs:us-east-1:000000000000:log-group:{GROUP}:*"
    assert logs.describe_log_streams({"logGroupIdentifier": arn})["logStreams"]
