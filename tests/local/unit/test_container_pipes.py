"""A command that fills a named pipe in a container: its input, its exit codes, and the end of the container."""

import socket
import threading
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytest
from docker.models.containers import Container
from requests.exceptions import ReadTimeout

from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.runtimes.docker import container_pipes
from microjobs_orchestrator.local.runtimes.docker.log_frames import HEADER

RUNNING_STATE = (True, None)
MESSAGE = b"a message\r\n"
LARGE_CONTENT = bytes(1 << 20)


class Engine:
    """A fake engine, which is also its only container. A command in it writes a message, reads its input, and ends.

    Args:
        states: successive states of the command: whether it runs, and its exit code. The last state repeats.
        input_bytes: the number of bytes that the command reads before it ends.
        is_running: whether the container still runs after the end of the command.
    """

    def __init__(
        self, states: Iterable[tuple[bool, int | None]], *, input_bytes: int = 5, is_running: bool = True
    ) -> None:
        self.id = "container"
        self.client = self.api = self
        self.attrs: dict[str, Any] = {}
        self.received = b""
        self._states, self._input_bytes, self._is_running = list(states), input_bytes, is_running
        self._has_waited = False

    def exec_create(self, *_: object, **__: object) -> Mapping[str, str]:
        return {"Id": "command"}

    def exec_start(self, *_: object, **__: object) -> socket.socket:
        engine_end, client_end = socket.socketpair()
        threading.Thread(target=self._run, args=(engine_end,)).start()
        return client_end

    def _run(self, connection: socket.socket) -> None:
        with connection:
            connection.sendall(HEADER.pack(2, len(MESSAGE)) + MESSAGE)
            while len(self.received) < self._input_bytes and (
                chunk := connection.recv(self._input_bytes - len(self.received))
            ):
                self.received += chunk

    def exec_inspect(self, _: str) -> Mapping[str, object]:
        is_running, code = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"Running": is_running, "ExitCode": code}

    def wait(self, timeout: float) -> None:
        assert timeout > 0
        self._has_waited = True
        if self._is_running:
            raise ReadTimeout

    def reload(self) -> None:
        self.attrs = {"State": {"Running": self._is_running or not self._has_waited}}

    def fill_pipe(self, *chunks: bytes) -> bool:
        return container_pipes.fill_pipe(cast("Container", self), ["/pipe"], "/pipe", chunks)


def test_content_is_sent_whole() -> None:
    engine = Engine([(False, 0)], input_bytes=len(LARGE_CONTENT) + 5)
    assert engine.fill_pipe(LARGE_CONTENT, b"small")
    assert engine.received == LARGE_CONTENT + b"small"


@pytest.mark.parametrize("code", container_pipes.READER_CLOSED_CODES)
def test_sending_ends_when_the_reader_closes_the_pipe(code: int) -> None:
    assert Engine([(False, code)]).fill_pipe(LARGE_CONTENT, LARGE_CONTENT)


def test_exit_code_is_awaited_after_the_end_of_output() -> None:
    with pytest.raises(CannotRunError, match="ended with exit code 3"):
        Engine([RUNNING_STATE, RUNNING_STATE, (False, 3)]).fill_pipe(b"small")


@pytest.mark.parametrize("code", [137, 126, None])
def test_end_of_a_container_is_no_failure(code: int | None) -> None:
    assert not Engine([RUNNING_STATE, (False, code)], is_running=False).fill_pipe(b"small")


def test_killed_command_in_a_running_container_is_reported() -> None:
    with pytest.raises(CannotRunError, match="ended with exit code 137"):
        Engine([(False, 137)]).fill_pipe(b"small")


def test_missing_command_is_reported() -> None:
    with pytest.raises(CannotRunError, match=r"the command ended with exit code 127: a message$"):
        Engine([(False, 127)]).fill_pipe(b"small")
