"""CloudWatch Logs."""

from microjobs_orchestrator.local.parity.common import ONE_ACCOUNT, honoured
from microjobs_orchestrator.local.parity.rows import Honoured, NoMeaning, Rows

UNMASK = NoMeaning("no log is masked")
GROUP = honoured("logGroupName", "logGroupIdentifier")
PAGE = honoured("nextToken", "limit")

LOGS: dict[str, Rows] = {
    "DescribeLogGroups": {
        **honoured("logGroupNamePrefix", "logGroupNamePattern", "logGroupIdentifiers"),
        **PAGE,
        "accountIdentifiers": ONE_ACCOUNT,
        "includeLinkedAccounts": ONE_ACCOUNT,
        "logGroupClass": Honoured(
            "every group is of this class", only=("STANDARD",), why="no group is of another class"
        ),
    },
    "DescribeLogStreams": {**GROUP, **honoured("logStreamNamePrefix", "orderBy", "descending"), **PAGE},
    "GetLogEvents": {
        **GROUP,
        **honoured("logStreamName", "startTime", "endTime", "startFromHead"),
        **PAGE,
        "unmask": UNMASK,
    },
    "FilterLogEvents": {
        **GROUP,
        **honoured("logStreamNames", "logStreamNamePrefix", "startTime", "endTime"),
        "filterPattern": Honoured('terms: `a "b c" -d`, `?a ?b`; patterns for JSON or fields are refused'),
        **PAGE,
        "startFromHead": Honoured(
            "oldest events first", only=(True,), why="read the end of a stream with GetLogEvents"
        ),
        "interleaved": NoMeaning("events of all streams are always sorted by time, as on AWS since 2019"),
        "unmask": UNMASK,
    },
}
