"""A pipe that the engine's API fills: what the engine tells too early, and too late."""

import socket
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any, cast

import pytest
from docker.models.containers import Container

from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.runtimes.docker import container_pipes

STARTING, RUNNING = (False, None), (True, None)


class Engine:
    """A container and a program that reads all it is sent, as the engine tells of them time after time.

    Args:
        program: whether it runs and its exit code; the last answer stays.
        container: whether it runs.
    """

    def __init__(self, program: Iterable[tuple[bool, int | None]], container: Iterable[bool]) -> None:
        self.id = "container"
        self.client = self.api = self
        self.attrs: dict[str, Any] = {}
        self._program, self._container = list(program), list(container)
        self._ours, theirs = socket.socketpair()
        self._theirs = theirs

    def exec_create(self, *_: object, **__: object) -> Mapping[str, str]:
        return {"Id": "program"}

    def exec_start(self, *_: object, **__: object) -> socket.socket:
        return self._theirs

    def exec_inspect(self, _: str) -> Mapping[str, object]:
        is_running, code = _next(self._program)
        return {"Running": is_running, "ExitCode": code}

    def reload(self) -> None:
        self.attrs = {"State": {"Running": _next(self._container)}}

    def pour(self) -> bool:
        return container_pipes.pour(cast("Container", self), ["/pipe"], "/pipe", [b"small"])

    def close(self) -> None:
        self._ours.close()


def _next(answers: list[Any]) -> Any:
    return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_pipes, "LOOK_SECONDS", 0.01)


def test_program_that_does_not_run_yet_is_waited_for() -> None:
    """The engine takes the connection to it before it starts it."""
    with closing(Engine([STARTING, STARTING, RUNNING, (False, 0)], [True])) as engine:
        assert engine.pour()


def test_program_that_ended_with_its_container_is_no_failure() -> None:
    """The engine tells of the program's end first."""
    with closing(Engine([RUNNING, (False, 137)], [True, True, True, False])) as engine:
        assert not engine.pour()


def test_program_that_is_missing_is_told() -> None:
    with (
        closing(Engine([(False, 127)], [True])) as engine,
        pytest.raises(CannotRunError, match="filling it ended with exit code 127"),
    ):
        engine.pour()
