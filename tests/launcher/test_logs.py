"""Tests of reading and printing logs."""

import io
import logging
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.commands import logs
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local.commands import SafeFormatter
from microjobs_orchestrator.local.home import HOME_VARIABLE, Home
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.runs.kinds import TRAINING, TUNING
from microjobs_orchestrator.runs.logs import ClientTail, LogEvent
from microjobs_orchestrator.runs.progress import Progress, StepDisplay
from tests.launcher.cloud import Cloud
from tests.local.log_lines import append_line


def test_empty_page_is_not_the_end(cloud: Cloud) -> None:
    """CloudWatch may return an empty page before the end of a stream. At the end, the token stays the same."""
    pages: dict[str, tuple[list[str], str]] = {
        "0": ([], "1"), "1": (["a"], "2"), "2": ([], "3"), "3": (["b"], "4"), "4": ([], "4"),
    }  # fmt: skip

    def get_events(members: Mapping[str, Any]) -> dict[str, Any]:
        lines, token = pages[members.get("nextToken", "0")]
        return {"events": [{"timestamp": 1, "message": line} for line in lines], "nextForwardToken": token}

    cloud.GetLogEvents = get_events  # type: ignore[method-assign]
    assert [event.text for event in ClientTail(TRAINING, "x", cloud.make_backend().logs).read_remaining()] == ["a", "b"]


def test_all_streams_of_a_tuning_job_are_read(cloud: Cloud) -> None:
    streams = [f"tune-{number:03}-abcd/algo-1-1763778749000" for number in range(60)]

    def describe_streams(members: Mapping[str, Any]) -> dict[str, Any]:
        begin = int(members.get("nextToken", "0"))
        next_token = {"nextToken": str(begin + 50)} if begin + 50 < len(streams) else {}
        return {"logStreams": [{"logStreamName": name} for name in streams[begin : begin + 50]], **next_token}

    cloud.DescribeLogStreams = describe_streams  # type: ignore[method-assign]
    assert len({event.stream for event in ClientTail(TUNING, "tune", cloud.make_backend().logs).read_remaining()}) == 60


CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"
"""A control sequence that writes a command into the clipboard."""
HOSTILE_LINE = f"loss {CLIPBOARD}\x1b[2J\x1b[H\x9b2J\x1bc\x1b[31m1\x1b[0m\x07"


@pytest.mark.parametrize(("is_terminal", "expected"), [(True, " \x1b[31m1\x1b[0m"), (False, " 1")])
def test_log_has_no_control_sequences(
    is_terminal: bool,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = Home(tmp_path / "home")
    monkeypatch.setenv(HOME_VARIABLE, str(home.root))
    home.create()
    with closing(State(home.state)) as state:
        state.add("training-job", "job", "arn:job", "Completed", {}, {"TrainingJobStatus": "Completed"})
    stream = LogStore(home.logs).create("/aws/sagemaker/TrainingJobs", "job/algo-1-1763778749000")
    for line in (
        b"\x1b[31m1\x1b[0m",
        HOSTILE_LINE.encode(),
        b"up\x1b[Balgo-2  forged",
        b"\xff\x1b[8mhidden",
        b"50%\r100%",
    ):
        append_line(stream, 1.0, line)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    assert main(["logs", "job"]) == 0
    output = capsys.readouterr().out
    expected_controls = {"\n"} | ({"\x1b"} if is_terminal else set())
    assert set(output) & set(map(chr, [*range(32), *range(127, 160)])) == expected_controls
    lines = output.splitlines()
    assert lines[0] == f"algo-1 {expected}"
    assert all(line.startswith("algo-1  ") for line in lines)
    assert lines[-1] == "algo-1  100%"


def test_messages_of_aws_have_no_control_sequences(cloud: Cloud) -> None:
    def get_events(members: Mapping[str, Any]) -> dict[str, Any]:
        events = [{"timestamp": 1, "message": message} for message in (HOSTILE_LINE, "\r 50%\r100%")]
        return {"events": [] if members.get("nextToken") else events, "nextForwardToken": "1"}

    cloud.GetLogEvents = get_events  # type: ignore[method-assign]
    texts = [event.text for event in ClientTail(TRAINING, "x", cloud.make_backend().logs).read_remaining()]
    assert not any(set(text) & {"\x07", "\x9b", "\x1b"} for text in texts)
    assert texts[1] == "100%"


def test_failure_reasons_and_live_logs_have_no_control_sequences(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_error(_: object) -> int:
        raise CommandError(f"the job failed: {HOSTILE_LINE}")

    monkeypatch.setattr(logs, "call", raise_error)
    assert main(["logs", "job"]) == 1
    assert "\x1b" not in capsys.readouterr().err
    screen = io.StringIO()
    progress = Progress(Console(file=screen, force_terminal=True), verbose=True)
    progress.show_log(StepDisplay("step"), [LogEvent.from_message("algo-1-1763778749000", 1, HOSTILE_LINE)])
    progress.print_note(HOSTILE_LINE)
    assert "\x1b]" not in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


def test_server_log_has_no_control_sequences() -> None:
    record = logging.makeLogRecord({"msg": f"left out: the link {CLIPBOARD}x\x1b[2J leads out"})
    assert SafeFormatter("%(message)s").format(record) == "left out: the link x leads out"
