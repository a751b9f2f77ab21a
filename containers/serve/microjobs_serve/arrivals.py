"""Bodies on their way to one worker. None takes a thread; all have a deadline, and share the room there is."""

import threading
import time
from asyncio import CancelledError
from collections.abc import Callable

from .answers import Problem
from .rsgi import Exchange, Future

SMALL = 256 * 1024
"""Bytes up to which a body is taken in one piece; a larger one, or one of unknown length, is counted as it comes."""

BODY_SECONDS = 60.0
"""What a body gets to arrive: as much as SageMaker gives a whole invocation…"""
BYTES_PER_SECOND = 1024 * 1024
"""…and a second more for each so many bytes of it that are here."""

ROOM = 256 * 1024 * 1024
"""Bytes that large bodies on their way may take together, if it is not too little for two of them."""

Taken = Callable[[bytes | Problem], None]
"""Is told the body, or why there is none."""


class Arrivals:
    """The bodies on their way.

    Args:
        limit: bytes that a body may have.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: dict[Future, _Arrival] = {}
        self._room = max(ROOM, 2 * limit)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Called in the worker: threads do not survive its fork."""
        threading.Thread(target=self._watch, name="arrivals", daemon=True).start()

    def take(self, exchange: Exchange, length: str, then: Taken) -> None:
        """Call `then` once; `length` is the header Content-Length, or empty."""
        arrival = _Arrival(self, exchange, then)
        if length and int(length) <= SMALL:
            arrival.wait(exchange(), arrival.whole)
        else:
            arrival.next(exchange.__aiter__())

    def discard(self, exchange: Exchange) -> None:
        """Read on after an early answer: a client that is still sending would lose it with the connection."""
        arrival = _Arrival(self, exchange, None)
        arrival.next(exchange.__aiter__())

    def reserve(self, size: int) -> bool:
        """Count bytes that came, or by a negative size that went; whether there was room for them."""
        with self._lock:  # bodies end in several threads
            self._room -= size
            return self._room >= 0

    def expire(self, now: float) -> None:
        """Give up the bodies that had to be here before `now` (`time.perf_counter`)."""
        for future, arrival in list(self.waiting.items()):
            if now > arrival.started + BODY_SECONDS + arrival.size / BYTES_PER_SECOND:
                future.cancel()

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            self.expire(time.perf_counter())


class _Arrival:
    """One body; discarded if nobody waits for it."""

    __slots__ = ("_arrivals", "_exchange", "_pieces", "_then", "size", "started")

    def __init__(self, arrivals: Arrivals, exchange: Exchange, then: Taken | None) -> None:
        self.started = time.perf_counter()
        self.size = 0
        self._arrivals = arrivals
        self._exchange = exchange
        self._then = then
        self._pieces: list[bytes] = []

    def wait(self, future: Future, then: Callable[[Future], object]) -> None:
        # The future knows this arrival. If the arrival knew the future too, neither would ever be freed.
        self._arrivals.waiting[future] = self
        future.add_done_callback(then)

    def whole(self, future: Future) -> None:
        self._tell(self._result(future))

    def next(self, exchange: Exchange) -> None:
        self.wait(exchange.__anext__(), self.piece)

    def piece(self, future: Future) -> None:
        piece = self._result(future)
        if isinstance(piece, Problem):
            self._tell(piece)
        elif piece:
            self._add(piece)
            self.next(self._exchange)
        else:
            self._end()

    def _add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self._then is None:
            return
        self._pieces.append(piece)
        room = self._arrivals.reserve(len(piece))
        if self.size > self._arrivals.limit:
            self._tell(too_large("larger", self._arrivals.limit))
        elif not room:
            self._tell(CROWDED)

    def _end(self) -> None:
        """An empty piece is the end, and then there is no next one; else the connection broke, or is no HTTP."""
        try:
            self.wait(self._exchange.__anext__(), self._result)
        except StopAsyncIteration:
            self._tell(b"".join(self._pieces))
        else:
            self._tell(BROKEN)

    def _tell(self, body: bytes | Problem) -> None:
        then, self._then = self._then, None
        self._arrivals.reserve(-sum(map(len, self._pieces)))
        self._pieces = []
        if then is not None:
            then(body)

    def _result(self, future: Future) -> bytes | Problem:
        del self._arrivals.waiting[future]
        try:
            return future.result()
        except CancelledError:
            return LATE
        except RuntimeError:  # Granian's word for a connection that broke, and for chunks that are none
            return BROKEN


def too_large(size: str, limit: int) -> Problem:
    return Problem(413, f"the body is {size}, the limit is {limit} bytes: send fewer rows at a time")


LATE = Problem(408, f"the body did not arrive within {BODY_SECONDS:g} s: send it faster")
BROKEN = Problem(400, "the body ended before its end: send it whole")
CROWDED = Problem(503, "too many large bodies are arriving: send fewer at a time", retry_after="1")
