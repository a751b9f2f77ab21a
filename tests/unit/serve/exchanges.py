"""Fakes of an exchange, whose request body the test supplies, and of a request head."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class FakeRead:
    """A read of a body, which ends when the test calls `finish`."""

    def __init__(self) -> None:
        self._content: bytes | BaseException = b""
        self._callback: Callable[[Any], object] | None = None

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._callback = callback

    def finish(self, content: bytes | BaseException) -> None:
        assert self._callback is not None
        self._content = content
        self._callback(self)

    def cancel(self) -> bool:
        self.finish(asyncio.CancelledError())
        return True

    def result(self) -> bytes:
        if isinstance(self._content, BaseException):
            raise self._content
        return self._content


class FakeExchange:
    """An exchange that records its reads and responses."""

    def __init__(self) -> None:
        self.reads: list[FakeRead] = []
        self.is_body_complete = False
        self.responses: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def take_body(self) -> bytes | None:
        """Return None, as if the body had not arrived completely with the head."""
        return None

    def read_body(self) -> FakeRead:
        self.reads.append(FakeRead())
        return self.reads[-1]

    def read_chunk(self) -> FakeRead:
        if self.is_body_complete:
            raise StopAsyncIteration
        return self.read_body()

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def run_in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        function(*arguments)

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.responses.append((status, headers, body))

    def finish_read(self, content: bytes | BaseException, *, is_last: bool = False) -> None:
        """Finish the current read with content or an error. `is_last`: whether the body has no more content."""
        self.is_body_complete = is_last
        self.reads[-1].finish(content)

    def finish_body(self) -> None:
        """Finish the current read without content, because the body is complete."""
        self.finish_read(b"", is_last=True)


@dataclass
class FakeHead:
    """The head of a request."""

    method: str = "GET"
    path: str = "/ping"
    query_string: str = ""
    headers: Any = field(default_factory=dict)
    client: str = ""
    http_version: str = "1.1"
