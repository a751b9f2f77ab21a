"""Log lines as CloudWatch gives them."""

from collections.abc import Mapping
from typing import Any

from orchestrator.workflows.kinds import TRAINING, TUNING
from orchestrator.workflows.logs import LogTail
from tests.launcher.cloud import Cloud


def test_empty_answer_is_not_the_end(cloud: Cloud) -> None:
    """CloudWatch may give one while it searches; at the end the token stays the same."""
    pages: dict[str, tuple[list[str], str]] = {
        "0": ([], "1"), "1": (["a"], "2"), "2": ([], "3"), "3": (["b"], "4"), "4": ([], "4"),
    }  # fmt: skip

    def get(asked: Mapping[str, Any]) -> dict[str, Any]:
        lines, token = pages[asked.get("nextToken", "0")]
        return {"events": [{"timestamp": 1, "message": line} for line in lines], "nextForwardToken": token}

    cloud.GetLogEvents = get  # type: ignore[method-assign]
    assert [event.text for event in LogTail.of(cloud.place().logs, TRAINING, "x").rest()] == ["a", "b"]


def test_all_streams_of_a_tuning_job_are_read(cloud: Cloud) -> None:
    streams = [f"tune-{number:03}-abcd/algo-1-1763778749000" for number in range(60)]

    def describe(asked: Mapping[str, Any]) -> dict[str, Any]:
        begin = int(asked.get("nextToken", "0"))
        more = {"nextToken": str(begin + 50)} if begin + 50 < len(streams) else {}
        return {"logStreams": [{"logStreamName": name} for name in streams[begin : begin + 50]], **more}

    cloud.DescribeLogStreams = describe  # type: ignore[method-assign]
    assert len({event.stream for event in LogTail.of(cloud.place().logs, TUNING, "tune").rest()}) == 60
