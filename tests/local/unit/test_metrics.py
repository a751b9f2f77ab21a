"""Tests of metrics: values in a job's log, progress bars, and expressions whose search takes too long."""

import threading
import time
from collections.abc import Sequence

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.hosts import select_final_parts
from microjobs_orchestrator.local.resources.training import metrics as metrics_module
from microjobs_orchestrator.local.resources.training.metrics import Metrics, compile_definition
from microjobs_orchestrator.local.runtimes.base import Line
from microjobs_orchestrator.local.runtimes.docker.log_frames import HEADER, MAX_LINE_BYTES, LineAssembler
from microjobs_orchestrator.local.runtimes.process import process_shim

LOSS = {"Name": "loss", "Regex": r"loss=([^\s\]]*)"}
SLOW_DEFINITION = {"Name": "bad", "Regex": r"(a+)+$b"}
"""A definition with an expression that the library `regex` cannot optimise: a search takes exponential time."""
SLOW_TEXT = "a" * 5000


def read_values(lines: Sequence[str], regex: str = LOSS["Regex"]) -> list[float]:
    metrics = Metrics([{"Name": "m", "Regex": regex}])
    for line in lines:
        metrics.read(0.0, line)
    return [value for _, value in metrics.list_points("m")]


def test_metric_is_first_group_and_last_value() -> None:
    metrics = Metrics([{"Name": "loss", "Regex": r" loss: ([0-9\.]+)"}, {"Name": "none", "Regex": "(x)"}])
    for time_, line in enumerate(("5/5 - loss: 0.5 - val_loss: 0.7", "no number", " loss: ...")):
        metrics.read(float(time_), line)
    assert metrics.list_final_values() == [{"MetricName": "loss", "Value": 0.5, "Timestamp": 0.0}]


def test_each_value_is_recorded_with_its_time() -> None:
    points: list[object] = []
    metrics = Metrics([LOSS], record=lambda *point: points.append(point))
    for time_, line in enumerate(("loss=3", "nothing", "loss=2")):
        metrics.read(float(time_), line)
    assert points == [("loss", (0.0, 3.0)), ("loss", (2.0, 2.0))]


def test_line_without_a_value_in_the_first_group_is_ignored() -> None:
    assert read_values(["valid: 3", "train: 5"], r"train: (\d+)|valid: (\d+)") == [5.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            (text, None)
            for text in ("nan", "NaN", "inf", "-Infinity", "1e999", "1_000", "0x10", "", "\u0661", "1" * 999)
        ),
        *(("-1.5", -1.5), ("1e-5", 1e-5), (".5", 0.5), ("+3.", 3.0), ("1E3", 1000.0)),
    ],
)
def test_only_finite_decimal_numbers_are_values(text: str, expected: float | None) -> None:
    assert read_values([f"loss={text}"]) == ([] if expected is None else [expected])


TQDM_LINE = (
    "\r  0%|          | 0/3 [00:00<?, ?it/s, loss=9.0]\r 67%|###   | 2/3 [00:01<00:00, loss=4.0]\r100%| 3/3, loss=1.0]"
)
KERAS_LINE = "".join(
    f"\x1b[1m{step}/3\x1b[0m \x1b[32m{'━' * step}\x1b[0m\x1b[37m\x1b[0m \x1b[1m0s\x1b[0m 9ms/step - loss={9 / step}"
    + "\b" * 60
    + "\r"
    for step in (1, 2, 3)
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (TQDM_LINE, 1.0),
        (TQDM_LINE + "\r", 1.0),  # the line has a line end of Windows
        (KERAS_LINE, 3.0),
        ("loss=9.0\b\b\b1", 1.0),
        ("loss=10.5\rloss=1.0", 1.0),  # a terminal shows loss=1.05
        ("loss=100\rloss=99\r", 99.0),
        ("loss=10.5" + "\b" * 9 + "\x1b[32mloss=9.5", 9.5),
        ("| loss=1.0\r/\r-", 1.0),  # the line is partly rewritten
        ("loss=9.0\x1b[2K\rloss=1.0", 1.0),
        ("loss=9.0\x1b[3D1", 1.0),
        ("\x1b[32mloss=\x1b[1m1.0\x1b[0m", 1.0),
        ("loss=1.0\x1b[A\router bar", 1.0),  # tqdm prints two bars
        ("\x1b]0;loss=9.0\x07loss=1.0", 1.0),
        ("\x1b7loss=9.0\x1b8loss=1.0", 1.0),
        ("a \x1b[sloss=9.0\x1b[uloss=1.0", 1.0),
        ("loss=1.05\x1b[D\x1b[X", 1.0),
        ("loss=99.5\r\x1b[5C\x1b[P", 9.5),
    ],
)
def test_value_is_read_from_the_last_state_of_a_rewritten_line(line: str, expected: float) -> None:
    assert read_values([line]) == [expected]


def make_progress_bar() -> bytes:
    """Return the states of a progress bar, longer than one `Line`, with a newline only at the end."""
    states = (b"\rstep %06d loss=%d.0 %s" % (number, 20_000 - number, b"#" * 200) for number in range(20_000))
    return b"".join(states) + b"\n"


def make_docker_lines(content: bytes) -> list[Line]:
    stamp = b"2026-11-22T05:12:15.772276932Z "
    parts = (content[offset : offset + 16384] for offset in range(0, len(content), 16384))
    frames = [HEADER.pack(1, len(stamp + part)) + stamp + part for part in parts]
    return list(LineAssembler().read(frames))


class FakeFile:
    def __init__(self) -> None:
        self.content = b""

    def write(self, content: bytes) -> None:
        self.content += content

    def flush(self) -> None:
        """Do nothing: no content is buffered."""


def make_process_lines(content: bytes) -> list[Line]:
    file = FakeFile()
    log = process_shim.Log(file)  # type: ignore[arg-type]
    for offset in range(0, len(content), 1 << 16):
        log.add(content[offset : offset + (1 << 16)])
    records = [record.split(b" ", 1) for record in file.content.split(b"\n")[:-1]]
    return [Line(0.0, text, is_whole=not stamp.endswith(b"+")) for stamp, text in records]


@pytest.mark.parametrize("make_lines", [make_docker_lines, make_process_lines])
def test_long_progress_bar_is_one_value_and_loses_no_bytes(make_lines: object) -> None:
    assert callable(make_lines)
    lines: list[Line] = make_lines(make_progress_bar())
    assert len(lines) > 3
    assert max(len(line.text) for line in lines) <= MAX_LINE_BYTES + (1 << 16)
    assert b"".join(line.text for line in lines) + b"\n" == make_progress_bar()
    assert read_values([line.text.decode() for line in select_final_parts(lines)]) == [1.0]


def test_final_part_is_the_last_part_with_visible_text() -> None:
    parts = [Line(1.0, b"\rloss=1\r", is_whole=False), Line(2.0, b""), Line(3.0, b"loss=2")]
    assert [line.text for line in select_final_parts(parts)] == [b"\rloss=1\r", b"loss=2"]


def test_slow_expression_lets_other_threads_run() -> None:
    metrics = Metrics([SLOW_DEFINITION])
    thread = threading.Thread(target=metrics.read, args=(0.0, SLOW_TEXT))
    thread.start()
    ticks = 0
    while thread.is_alive():
        time.sleep(0.001)
        ticks += 1
    assert ticks > 20  # there would be few ticks if the search held the interpreter's lock


def test_slow_expression_is_logged_once_and_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "SEARCH_TIMEOUT_SECONDS", 0.02)
    monkeypatch.setattr(metrics_module, "MAX_SEARCH_SECONDS", 0.1)
    notes: list[str] = []
    metrics = Metrics([LOSS, SLOW_DEFINITION], note=notes.append)
    for number in range(50):
        metrics.read(0.0, f"loss={number} {SLOW_TEXT}")
    assert len(metrics.list_points("loss")) == 50
    assert [note.partition(":")[0] for note in notes] == ["metric 'bad'", "metric 'bad' is skipped from now on"]
    assert metrics.skipped_names == ["bad"]


def test_message_states_that_a_search_needed_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class PatternWithoutMemory:
        def search(self, *_: object, **__: object) -> None:
            raise MemoryError

    monkeypatch.setattr(metrics_module, "compile_definition", lambda _: PatternWithoutMemory())
    notes: list[str] = []
    Metrics([LOSS], notes.append).read(0.0, "loss=1")
    assert notes == [
        "metric 'loss': its Regex took too much memory on a line of 6 characters; this metric ignores such lines"
    ]


def test_definition_skipped_by_an_earlier_server_is_not_searched() -> None:
    metrics = Metrics([LOSS, SLOW_DEFINITION], skipped_names=["bad"])
    start_time = time.thread_time()
    metrics.read(0.0, f"loss=1 {SLOW_TEXT}")
    assert time.thread_time() - start_time < metrics_module.SEARCH_TIMEOUT_SECONDS / 2
    assert metrics.list_final_values()[0]["MetricName"] == "loss"


def test_cost_of_all_definitions_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "SEARCH_TIMEOUT_SECONDS", 0.02)
    monkeypatch.setattr(metrics_module, "MAX_SEARCH_SECONDS", 0.1)
    metrics = Metrics([{**SLOW_DEFINITION, "Name": f"bad-{number}"} for number in range(40)])
    for _ in range(100):
        metrics.read(0.0, SLOW_TEXT)
    assert len(metrics.skipped_names) > 35


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (r"(?x)(a{5000 }){ 5000}", "flag x"),
        (r"(?sx:(a{5000 }){ 5000})", "flag x"),
        (r"(?V1ix-m:(a{5000 }){ 5000})", "flag x"),
        (r"(?#[)(a{1500}){1500}(?#])", "comment"),
        (r"\\(?#[)(a{1500}){1500}(?#])", "comment"),
        (r"((?1)?a)", "calls a group"),
        (r"(a(?R)?)", "calls a group"),
        (r"(?<n>a(?&n)?)", "calls a group"),
        (r"(?P<n>a(?P>n)?)", "calls a group"),
        (r"(a)((?-1)b)", "calls a group"),
    ],
)
def test_expression_of_unknown_cost_raises(expression: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        compile_definition({"Name": "m", "Regex": expression})


@pytest.mark.parametrize(
    "expression", [r"\(?max: (\d+)", r"(?i)x=(\d+)", r"\(?0(\d+)", r"(?P<x>\d+)", r"(?s:x)(?!x)(\d+)", r"[(?]x(\d+)"]
)
def test_expression_of_known_cost_is_accepted(expression: str) -> None:
    assert compile_definition({"Name": "m", "Regex": expression}).groups == 1


@pytest.mark.parametrize("expression", ["((a{1000}){1000}){1000}", "(?:a{99999999})(b)", "(" * 5 + "a" + "{20,})" * 5])
def test_expression_with_too_many_repetitions_raises(expression: str) -> None:
    with pytest.raises(ValidationError, match="repetitions"):
        compile_definition({"Name": "m", "Regex": expression})


@pytest.mark.parametrize(
    "expression", [r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}: loss=([0-9.]{1,20})", r"(?<v>x{3,})", r"[({9}](a)"]
)
def test_usual_expressions_are_accepted(expression: str) -> None:
    assert compile_definition({"Name": "m", "Regex": expression}).groups >= 1
