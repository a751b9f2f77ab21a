"""Tests of the output of jobs as a terminal shows it, without control sequences that change the terminal."""

import time

import pytest

from microjobs_orchestrator import terminal

ATTACK_TEXTS = {
    "clipboard": "\x1b]52;c;ZWNobyBwd25lZA==\x07",
    "clipboard, ST": "\x1b]52;c;ZWNobyBwd25lZA==\x1b\\",
    "clipboard, C1": "\x9d52;c;ZWNo\x9c",
    "title": "\x1b]0;title\x07",
    "link": "\x1b]8;;http://x\x1b\\",
    "clear screen": "\x1b[2J\x1b[H",
    "C1 CSI": "\x9b2J",
    "device control": '\x1bP$q"p\x1b\\',
    "application command": "\x1b_G\x1b\\",
    "report": "\x1b[6n\x1b[c\x1b[21t",
    "reset": "\x1bc",
    "charset": "\x1b(0",
    "alternate screen": "\x1b[?1049h",
    "bell and shift": "\x07\x0e\x0f\x00\x7f",
    "unterminated": "\x1b]52;c;ZWNo",
    "hidden CSI": "\x1b[\x1b[2J",
}


@pytest.mark.parametrize("attack", ATTACK_TEXTS.values(), ids=ATTACK_TEXTS.keys())
@pytest.mark.parametrize("keep_colours", [True, False])
def test_stripped_text_has_no_control_sequences(attack: str, keep_colours: bool) -> None:
    text = terminal.strip_controls(f"before\t{attack}\nafter", keep_colours=keep_colours)
    assert text.startswith("before\t")
    assert not set(text) & set(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))


def test_stripped_text_keeps_colours_on_request() -> None:
    text = "\x1b[1;31mred\x1b[0m"
    assert terminal.strip_controls(text, keep_colours=True) == text
    assert terminal.strip_controls(text) == "red"


def test_bytes_that_are_not_utf8_are_escaped() -> None:
    assert terminal.strip_controls(b"caf\xe9 \xe2\x82\xac".decode(errors="surrogateescape")) == "caf\\xe9 €"
    assert terminal.escape_bytes("half \ud83d") == "half \\ud83d"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plain", "plain"),
        ("windows\r", "windows"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[31mred\x1b[0m\r", "\x1b[31mred\x1b[0m"),
        ("one\rtwo", "two"),
        ("longer\rtwo", "twoger"),
        ("longer\r\x1b[Ktwo", "two"),
        ("\r50%\r      \r", ""),
        ("a\x1b[2Jb\x1b]52;c;aGk=\x07", " b"),
        ("longer\x1b[3GNG", "loNGer"),
        ("upper\x1b[Bx", "upper\n     x"),
    ],
)
def test_line_is_shown_as_by_a_terminal(line: str, expected: str) -> None:
    assert terminal.render_line(line) == expected


@pytest.mark.parametrize(
    "unit",
    ["\x1b]", "\x1b[0", "\rabc", "\x1b[999C\r", "x\b", "\x1b[999Cx\x1b[A", "a\x1b[1K", "x\x1b[2K", "\x1b[A\x1b[J"],
)
def test_cost_is_linear(unit: str) -> None:
    def measure_seconds(count: int) -> float:
        start_time = time.thread_time()
        terminal.render(unit * count)
        terminal.strip_controls(unit * count)
        return time.thread_time() - start_time

    measure_seconds(1000)
    # the text is 16 times as long; a quadratic search would take 256 times as long
    assert measure_seconds(64_000) < 64 * max(measure_seconds(4000), 0.002)


@pytest.mark.parametrize("control", ["\x1b[P", "\x1b[99999X", "\x1b7x\x1b8"])
def test_control_costs_no_more_in_a_long_row(control: str) -> None:
    def measure_seconds(columns: int) -> float:
        start_time = time.thread_time()
        terminal.render("a" * columns + "\r" + control * 20_000)
        return time.thread_time() - start_time

    measure_seconds(100)
    assert measure_seconds(1_000_000) < 8 * max(measure_seconds(900), 0.1)
