"""Tests of the conversion of the engine's log stream into lines."""

import random
from collections.abc import Iterator

import pytest

from microjobs_orchestrator.local.runtimes.docker.log_frames import HEADER, MAX_LINE_BYTES, Lines

STAMP = b"2026-11-22T05:12:15.772276932Z "
OUT, ERR = 1, 2


def frame(stream: int, text: bytes) -> bytes:
    return HEADER.pack(stream, len(STAMP + text)) + STAMP + text


def read_texts(*chunks: bytes) -> list[bytes]:
    lines = Lines()
    return [line.text for line in (*lines.read(chunks), *lines.unfinished_lines())]


def test_line_is_not_split_by_lines_of_the_other_stream() -> None:
    frames = [frame(OUT, b"a" * 16384), frame(ERR, b"error\n"), frame(OUT, b"b\n")]
    assert read_texts(*frames) == [b"error", b"a" * 16384 + b"b"]


def test_time_has_microseconds() -> None:
    (line,) = Lines().read([frame(OUT, b"x\n")])
    assert line.time == pytest.approx(1795324335.772276932, abs=1e-6)


def test_lines_keep_all_bytes() -> None:
    all_bytes = bytes(range(256)).replace(b"\n", b"")
    assert read_texts(frame(OUT, all_bytes + b"\n"), frame(OUT, b"\n"), frame(ERR, b"\r\n")) == [all_bytes, b"", b"\r"]


def test_chunks_may_end_within_a_frame() -> None:
    content = b"".join(frame(OUT, b"line %d\n" % number) for number in range(100))
    assert read_texts(*split_randomly(content)) == [b"line %d" % number for number in range(100)]


def split_randomly(content: bytes) -> Iterator[bytes]:
    generator = random.Random(5)  # noqa: S311  not for secrets
    while content:
        size = generator.randint(1, 200)
        yield content[:size]
        content = content[size:]


def test_very_long_line_is_split() -> None:
    found = read_texts(*(frame(OUT, b"x" * 16384) for _ in range(129)), frame(OUT, b"end\n"))
    assert [len(text) for text in found] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 16384 + 3]


def test_very_long_line_is_split_after_a_carriage_return_before_its_last_byte() -> None:
    """The last byte may begin a line end, `\\r\\n`, whose second byte follows in the next frame."""
    first, rest = b"a" * (MAX_LINE_BYTES - 5) + b"\r", b"bcd\r"
    lines = list(Lines().read([frame(OUT, first + rest), frame(OUT, b"\n")]))
    assert [(line.text, line.is_whole) for line in lines] == [(first, False), (rest, True)]


def test_empty_frame_is_not_a_line() -> None:
    assert read_texts(frame(OUT, b"")) == []


def test_last_line_needs_no_line_break() -> None:
    assert read_texts(frame(OUT, b"out"), frame(ERR, b"err")) == [b"out", b"err"]
