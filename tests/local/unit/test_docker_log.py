"""Tests of the conversion of the engine's log stream into lines."""

import random
from collections.abc import Iterator

import pytest

from microjobs_orchestrator.local.runtimes.docker.log_frames import HEADER, MAX_LINE_BYTES, LineAssembler

TIMESTAMP = b"2026-11-22T05:12:15.772276932Z "
STDOUT, STDERR = 1, 2


def make_frame(stream: int, text: bytes) -> bytes:
    return HEADER.pack(stream, len(TIMESTAMP + text)) + TIMESTAMP + text


def read_texts(*chunks: bytes) -> list[bytes]:
    log = LineAssembler()
    return [line.text for line in (*log.read(chunks), *log.list_unfinished_lines())]


def test_line_is_not_split_by_lines_of_the_other_stream() -> None:
    frames = [make_frame(STDOUT, b"a" * 16384), make_frame(STDERR, b"error\n"), make_frame(STDOUT, b"b\n")]
    assert read_texts(*frames) == [b"error", b"a" * 16384 + b"b"]


def test_time_has_microseconds() -> None:
    (line,) = LineAssembler().read([make_frame(STDOUT, b"x\n")])
    assert line.time == pytest.approx(1795324335.772276932, abs=1e-6)


def test_lines_keep_all_bytes() -> None:
    all_bytes = bytes(range(256)).replace(b"\n", b"")
    assert read_texts(
        make_frame(STDOUT, all_bytes + b"\n"), make_frame(STDOUT, b"\n"), make_frame(STDERR, b"\r\n")
    ) == [
        all_bytes,
        b"",
        b"\r",
    ]


def test_chunks_may_end_within_a_frame() -> None:
    content = b"".join(make_frame(STDOUT, b"line %d\n" % number) for number in range(100))
    assert read_texts(*split_randomly(content)) == [b"line %d" % number for number in range(100)]


def split_randomly(content: bytes) -> Iterator[bytes]:
    generator = random.Random(5)  # noqa: S311  not for secrets
    while content:
        size = generator.randint(1, 200)
        yield content[:size]
        content = content[size:]


def test_very_long_line_is_split() -> None:
    texts = read_texts(*(make_frame(STDOUT, b"x" * 16384) for _ in range(129)), make_frame(STDOUT, b"end\n"))
    assert [len(text) for text in texts] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 16384 + 3]


def test_very_long_line_is_split_after_a_carriage_return_before_its_last_byte() -> None:
    """The last byte may begin a line end, `\\r\\n`, whose second byte follows in the next frame."""
    first_part, last_part = b"a" * (MAX_LINE_BYTES - 5) + b"\r", b"bcd\r"
    lines = list(LineAssembler().read([make_frame(STDOUT, first_part + last_part), make_frame(STDOUT, b"\n")]))
    assert [(line.text, line.is_whole) for line in lines] == [(first_part, False), (last_part, True)]


def test_empty_frame_is_not_a_line() -> None:
    assert read_texts(make_frame(STDOUT, b"")) == []


def test_last_line_needs_no_line_break() -> None:
    assert read_texts(make_frame(STDOUT, b"out"), make_frame(STDERR, b"err")) == [b"out", b"err"]
