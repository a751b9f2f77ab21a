"""The clock is set while jobs run: none ends for that."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.local.jobs import group
from orchestrator.local.jobs.group import Control
from orchestrator.local.logs import Stream
from orchestrator.local.runtimes.base import Exit, Line

DAY = 86_400.0


class Working:
    """A host that works for a while."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self._ended = threading.Event()
        self._seconds = seconds
        self.was_stopped = False

    def lines(self) -> Iterator[Line]:
        return iter(())

    def wait(self) -> Exit:
        self._ended.wait(self._seconds)
        return Exit(0)

    def stop(self, grace: float) -> None:  # noqa: ARG002
        self.was_stopped = True
        self._ended.set()

    def copy(self, path: str, to: Path) -> None:
        """It leaves no files."""

    def connect(self, timeout: float) -> socket.socket:  # noqa: ARG002
        raise ConnectionRefusedError


class Setting(Working):
    """A host that sets the clock and ends: then the time that is left is looked at again."""

    def __init__(self, patch: pytest.MonkeyPatch, by: float) -> None:
        super().__init__("algo-2", 0.0)
        self._patch = patch
        self._by = by

    def wait(self) -> Exit:
        real = time.time
        self._patch.setattr(time, "time", lambda: real() + self._by)
        return Exit(0)


def run(tmp_path: Path, *hosts: Working, longest: float) -> None:
    path = tmp_path / "stream"
    path.touch()
    streams = {each.name: Stream(path) for each in hosts}
    group.run(hosts, streams, Control(), deadline=time.time() + longest, on_line=lambda _: None)


def test_clock_set_forward_does_not_end_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Working("algo-1", 0.6)
    run(tmp_path, host, Setting(monkeypatch, DAY), longest=60)
    assert not host.was_stopped


def test_clock_set_back_does_not_lengthen_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Working("algo-1", 20)
    began = time.monotonic()
    run(tmp_path, host, Setting(monkeypatch, -DAY), longest=0.6)
    assert host.was_stopped
    assert time.monotonic() - began < 10
