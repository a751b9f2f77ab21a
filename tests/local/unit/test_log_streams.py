"""The file of a log stream after restarts of the server and the host: each line is complete and stored once."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from microjobs_orchestrator.local import logs
from microjobs_orchestrator.local.lifecycle import hosts
from microjobs_orchestrator.local.lifecycle.attempt import Attempt
from microjobs_orchestrator.local.lifecycle.events import EventQueue
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.runtimes.base import Exit, Line
from tests.local.hosts import HostWithoutFolders
from tests.local.log_lines import append_line

NOW = 1_700_000_000.0


class EndedHost(HostWithoutFolders):
    """A host that has printed lines and ended."""

    name = "algo-1"

    def __init__(self, *lines: Line, pause: float = 0.0) -> None:
        self._lines = lines
        self._pause = pause

    def lines(self) -> Iterator[Line]:
        for line in self._lines:
            yield line
            time.sleep(self._pause)

    def wait(self) -> Exit:
        return Exit(0)

    def stop(self, grace: float) -> None:
        """Do nothing: the host has ended."""

    def measure(self) -> None:
        """Return None: the host's use of CPU, memory and GPUs is unknown."""

    def copy(self, path: str, target: Path) -> None:
        """Return None: the host has no files."""

    def connect(self, timeout: float) -> socket.socket:  # noqa: ARG002
        raise ConnectionRefusedError


def follow(stream: LogStream, *lines: Line, pause: float = 0.0) -> None:
    """Store lines of an ended host, until the stream has all lines or the server no longer waits for them."""
    host = EndedHost(*lines, pause=pause)
    attempt = Attempt("plan", "image", make_plan=cast("Any", None), open_stream=lambda _: stream)
    hosts.HostGroup(attempt, [host], EventQueue()).run()


def make_lines(count: int, timestamp: float = NOW) -> list[Line]:
    return [Line(timestamp, b"line %d" % number) for number in range(count)]


def read_messages(stream: LogStream) -> list[str]:
    return [event.message for event in stream.events()]


@pytest.fixture
def stream(tmp_path: Path) -> LogStream:
    path = tmp_path / "stream"
    path.touch()
    return LogStream(path)


@pytest.mark.parametrize("written_count", [0, 1, 150, 200])
def test_following_continues_between_lines_with_the_same_time(stream: LogStream, written_count: int) -> None:
    follow(stream, *make_lines(200)[:written_count])
    follow(stream, *make_lines(200))
    assert read_messages(stream) == [f"line {number}" for number in range(200)]


def test_following_continues_after_clock_is_set_back(stream: LogStream) -> None:
    lines = [*make_lines(5), *make_lines(5, NOW - 3600)]
    follow(stream, *lines[:6])
    follow(stream, *lines)
    assert read_messages(stream) == [f"line {number}" for number in (*range(5), *range(5))]


def test_incomplete_record_of_a_killed_server_is_replaced(stream: LogStream) -> None:
    follow(stream, *make_lines(2))
    with stream.path.open("ab") as file:
        file.write(b"1700000000000 lin")
    follow(stream, *make_lines(4))
    assert read_messages(stream) == ["line 0", "line 1", "line 2", "line 3"]


def test_incomplete_first_record_is_replaced(stream: LogStream) -> None:
    stream.path.write_bytes(b"17000000000" + b"x" * 100_000)
    follow(stream, *make_lines(1))
    assert read_messages(stream) == ["line 0"]


def test_lines_of_the_server_do_not_count_as_lines_of_the_host(stream: LogStream) -> None:
    follow(stream, *make_lines(2))
    stream.note("a sentence\nof two lines")
    follow(stream, *make_lines(3))
    assert read_messages(stream) == ["line 0", "line 1", "[microjobs] a sentence of two lines", "line 2"]


def test_next_host_starts_with_its_first_line(stream: LogStream) -> None:
    # The first line has the text of a mark, but a host has printed it, so it does not mark the start of a host.
    follow(stream, Line(NOW, f"[microjobs] {logs.HOST_START}".encode()), Line(NOW, b"first"))
    stream.mark_host_start()
    stream.note("and more")
    follow(stream, Line(NOW, b"second"))
    follow(stream, Line(NOW, b"second"), Line(NOW, b"third"))
    assert [text for text in read_messages(stream) if "[" not in text] == ["first", "second", "third"]


def test_start_of_the_first_host_is_not_marked(stream: LogStream) -> None:
    stream.mark_host_start()
    assert stream.size() == 0


def test_following_waits_for_late_lines(stream: LogStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "LINE_TIMEOUT", 1.5)
    follow(stream, *make_lines(8), pause=0.3)
    assert len(read_messages(stream)) == 8


def test_endless_log_does_not_block_the_job(stream: LogStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "LINE_TIMEOUT", 0.1)
    start_time = time.monotonic()
    follow(stream, *make_lines(2), pause=3)
    assert time.monotonic() - start_time < 2


def test_writing_waits_for_free_space(stream: LogStream, monkeypatch: pytest.MonkeyPatch) -> None:
    has_written_part, write = threading.Event(), os.write

    def write_a_little(file: int, content: bytes) -> int:
        if not has_written_part.is_set():
            has_written_part.set()
            return write(file, content[:3])
        if len(content) < 20:
            return write(file, content)
        monkeypatch.setattr(os, "write", write)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs, "RETRY_DELAY", 0.01)
    monkeypatch.setattr(os, "write", write_a_little)
    follow(stream, *make_lines(2, NOW), Line(NOW, b"x" * 50))
    assert read_messages(stream) == ["line 0", "line 1", "x" * 50]


def test_second_writer_waits_while_a_line_waits_for_space(stream: LogStream, monkeypatch: pytest.MonkeyPatch) -> None:
    is_waiting, write = threading.Event(), os.write

    def fail_once_without_space(file: int, content: bytes) -> int:
        if threading.current_thread() is threading.main_thread() or is_waiting.is_set():
            return write(file, content)
        if len(content) > 40:
            return write(file, content[:20])
        is_waiting.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs, "RETRY_DELAY", 0.2)
    monkeypatch.setattr(os, "write", fail_once_without_space)
    host = threading.Thread(target=append_line, args=(stream, NOW, b"x" * 30))
    host.start()
    assert is_waiting.wait(10)
    stream.note("between")
    host.join()
    assert read_messages(stream) == ["x" * 30, "[microjobs] between"]


def test_line_without_time_has_time_of_previous_line(stream: LogStream) -> None:
    """Earlier servers wrote such lines on a full disk."""
    stream.path.write_bytes(b"17 half of 017 [microjobs] note\nthe line\n18 next\n")
    assert [(event.time, event.message) for event in stream.events()][1:] == [(17, "the line"), (18, "next")]
