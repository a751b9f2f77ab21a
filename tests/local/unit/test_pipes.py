"""Inputs in Pipe mode, without a container."""

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Host, Pipe
from microjobs_orchestrator.local.runtimes.pipes import fill_pipes
from microjobs_orchestrator.local.runtimes.process.host import fill_pipe


class StoppableHost:
    """A host that runs until it is stopped."""

    name = "algo-1"

    def __init__(self, code: int = 0) -> None:
        self._code = code
        self._stopped = threading.Event()

    def wait(self) -> Exit:
        assert self._stopped.wait(10)
        return Exit(self._code)

    def stop(self, grace: float) -> None:
        assert grace == 0
        self._stopped.set()


def read_epoch(number: int) -> Iterator[bytes]:
    return iter([b"epoch %d" % number])


def test_each_pipe_gets_the_content_of_one_epoch() -> None:
    filled_pipes: list[tuple[str, list[bytes]]] = []
    last_pipe_filled = threading.Event()

    def record_content(path: str, chunks: Iterable[bytes]) -> bool:
        """Record the content. Return False, as at the end of the host, for the third pipe."""
        filled_pipes.append((path, list(chunks)))
        if len(filled_pipes) < 3:
            return True
        last_pipe_filled.set()
        return False

    pipe = Pipe("/data/train", read_epoch)
    fill_pipes(cast("Host", StoppableHost()), [pipe], record_content)
    assert last_pipe_filled.wait(10)
    assert filled_pipes == [(f"/data/train_{number}", [b"epoch %d" % number]) for number in range(3)]
    assert pipe.get_path(0) == "/data/train_0"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CannotRunError("no cat"), "/train: no cat"),
        (OSError("no bucket"), "/train: no bucket"),
        (RuntimeError("broken"), "/train: RuntimeError: broken"),
    ],
)
@pytest.mark.parametrize(("code", "expected_code"), [(0, 1), (137, 137)])
def test_host_is_ended_if_a_pipe_cannot_be_filled(error: Exception, reason: str, code: int, expected_code: int) -> None:
    def raise_error(*_: Any) -> bool:
        raise error

    host = fill_pipes(cast("Host", StoppableHost(code)), [Pipe("/train", read_epoch)], raise_error)
    result = host.wait()
    assert (result.code, result.pipe_failed) == (expected_code, True)
    assert result.reason == reason


def test_host_without_failure_keeps_its_exit() -> None:
    host = StoppableHost(3)
    host.stop(0)
    assert fill_pipes(cast("Host", host), [Pipe("/train", read_epoch)], lambda *_: False).wait() == Exit(3)


@pytest.mark.parametrize("exists", [True, False])
def test_pipe_is_created_if_it_is_missing_and_receives_all_chunks(tmp_path: Path, exists: bool) -> None:
    path, content = tmp_path / "train_0", bytes(range(256)) * 1000
    if exists:
        os.mkfifo(path)
    results: list[bool] = []
    chunks = [content[:99], content[99:]]
    writer = threading.Thread(target=lambda: results.append(fill_pipe(path, has_ended=lambda: False, chunks=chunks)))
    writer.start()
    while not path.exists():
        pass
    assert path.read_bytes() == content
    writer.join(10)
    assert results == [True]


def test_pipe_of_a_process_may_be_closed_early(tmp_path: Path) -> None:
    path = tmp_path / "train_0"
    os.mkfifo(path)

    def close_early() -> Iterator[bytes]:
        yield b"first"
        os.close(reader)
        yield bytes(1 << 20)

    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert fill_pipe(path, has_ended=lambda: False, chunks=close_early())


def test_end_of_a_process_ends_the_wait_for_a_reader(tmp_path: Path) -> None:
    end_checks = iter([False, False, True])
    assert not fill_pipe(tmp_path / "train_0", has_ended=lambda: next(end_checks), chunks=[b"content"])


def test_filling_reports_that_the_process_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "train_0"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert not fill_pipe(path, has_ended=lambda: True, chunks=[b"content"])
    os.close(reader)
