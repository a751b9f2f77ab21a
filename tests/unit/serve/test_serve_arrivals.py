"""Bodies on their way, with a server that hands over what the test says."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from microjobs_serve import arrivals
from microjobs_serve.answers import Problem
from microjobs_serve.arrivals import Arrivals


class Piece:
    """A future, done when the test says so."""

    def __init__(self) -> None:
        self.content: bytes | BaseException = b""
        self.callback: Callable[[Any], object] | None = None

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self.callback = callback

    def done(self, content: bytes | BaseException) -> None:
        assert self.callback is not None
        self.content = content
        self.callback(self)

    def cancel(self) -> bool:
        self.done(asyncio.CancelledError())
        return True

    def result(self) -> bytes:
        if isinstance(self.content, BaseException):
            raise self.content
        return self.content


class Client:
    """An exchange: a body in pieces, or whole."""

    def __init__(self) -> None:
        self.asked: list[Piece] = []
        self.ended = False
        self.told: list[Any] = []

    def __call__(self) -> Piece:
        self.asked.append(Piece())
        return self.asked[-1]

    def __aiter__(self) -> "Client":
        return self

    def __anext__(self) -> Piece:
        if self.ended:
            raise StopAsyncIteration
        return self()

    def send(self, content: bytes | BaseException, *, last: bool = False) -> None:
        self.ended = last
        self.asked[-1].done(content)

    def finish(self) -> None:
        self.send(b"", last=True)


def taken(bodies: Arrivals, length: str = "") -> Any:
    client: Any = Client()
    bodies.take(client, length, client.told.append)
    return client


def test_pieces_are_put_together() -> None:
    client = taken(Arrivals(100))
    client.send(b"1,")
    client.send(b"2")
    client.finish()
    assert client.told == [b"1,2"]


def test_small_body_of_known_length_is_taken_whole() -> None:
    client = taken(Arrivals(100), "3")
    client.send(b"1,2")
    assert (client.told, len(client.asked)) == ([b"1,2"], 1)


@pytest.mark.parametrize("content", [b"", RuntimeError("transport is closed")])
def test_broken_body_is_400(content: bytes | BaseException) -> None:
    client = taken(Arrivals(100))
    client.send(b"1,2")
    client.send(content)
    assert [problem.status for problem in client.told] == [400]


def test_too_large_body_is_413_once_and_read_on() -> None:
    client = taken(Arrivals(3))
    client.send(b"1,2,")
    client.send(b"3")
    client.finish()
    assert [problem.status for problem in client.told] == [413]


def test_large_bodies_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "ROOM", 8)
    bodies = Arrivals(4)
    first, second, third = (taken(bodies) for _ in range(3))
    for client in (first, second, third):
        client.send(b"1,23")
    assert [problem.status for problem in third.told] == [503]
    first.finish()
    fourth = taken(bodies)
    fourth.send(b"1,23")
    fourth.finish()
    assert (first.told, fourth.told) == ([b"1,23"], [b"1,23"])


@pytest.mark.parametrize("length", ["3", ""])
def test_late_body_is_408(length: str) -> None:
    bodies = Arrivals(100)
    client, now = taken(bodies, length), time.perf_counter()
    bodies.expire(now + arrivals.BODY_SECONDS - 1)
    assert client.told == []
    bodies.expire(now + arrivals.BODY_SECONDS + 1)
    (problem,) = client.told
    assert isinstance(problem, Problem)
    assert (problem.status, bodies.waiting) == (408, {})


def test_large_body_gets_more_time_as_it_comes() -> None:
    bodies = Arrivals(10 * arrivals.BYTES_PER_SECOND)
    client, now = taken(bodies), time.perf_counter()
    client.send(bytes(5 * arrivals.BYTES_PER_SECOND))
    bodies.expire(now + arrivals.BODY_SECONDS + 4)
    assert client.told == []
