"""Reads request bodies without occupying threads. Each body has a deadline; large bodies share a memory budget."""

import threading
import time
from collections.abc import Callable

from .listener import CANCELLED, Exchange, Read
from .responses import HttpError

SMALL_BODY_BYTES = 256 * 1024
"""A body up to this size is read in one piece. A larger one, or one of unknown length, is counted as it arrives."""

BODY_TIMEOUT = 60.0
"""Seconds in which a body must arrive, as long as SageMaker allows for a whole invocation."""
BYTES_PER_SECOND = 1024 * 1024
"""The deadline of a body grows by one second per so many bytes received."""
TIMEOUT_CHECK_INTERVAL = 1.0

MAX_BUFFERED_BYTES = 256 * 1024 * 1024
"""Memory budget for large bodies that are arriving; never less than two bodies of maximum size."""

OnBody = Callable[[bytes | HttpError], None]
"""Receives the body, or the error that ended it."""


class BodyReader:
    """Reads the bodies of one worker's requests.

    Args:
        limit: maximum size of a body in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pending: dict[Read, _Body] = {}
        self._free_bytes = max(MAX_BUFFERED_BYTES, 2 * limit)
        self._lock = threading.Lock()

    def start_timeouts(self) -> None:
        """Start the thread that enforces deadlines, in the worker: a fork does not copy threads."""
        threading.Thread(target=self._enforce_deadlines, name="body-timeouts", daemon=True).start()

    def read(self, exchange: Exchange, content_length: str, on_body: OnBody) -> None:
        """Read a body and call `on_body` once; `content_length` is the header, or empty."""
        body = _Body(self, exchange, on_body)
        if content_length and int(content_length) <= SMALL_BODY_BYTES:
            body.wait(exchange.read_body(), body.finish)
        else:
            body.read_chunk()

    def discard(self, exchange: Exchange) -> None:
        """Read and drop the rest of a body: a client that is still sending would otherwise miss an early response."""
        _Body(self, exchange, None).read_chunk()

    def reserve(self, size: int) -> bool:
        """Take bytes from the memory budget, or return them if `size` is negative; return whether it suffices."""
        with self._lock:  # bodies end in several threads
            self._free_bytes -= size
            return self._free_bytes >= 0

    def cancel_overdue(self, now: float) -> None:
        """Cancel the reads of bodies whose deadline is before `now` (`time.perf_counter`)."""
        for read, body in list(self.pending.items()):
            if now > body.started + BODY_TIMEOUT + body.size / BYTES_PER_SECOND:
                read.cancel()

    def _enforce_deadlines(self) -> None:
        while True:
            time.sleep(TIMEOUT_CHECK_INTERVAL)
            self.cancel_overdue(time.perf_counter())


class _Body:
    """One body; without `on_body` it is discarded."""

    __slots__ = ("_chunks", "_exchange", "_on_body", "_reader", "size", "started")

    def __init__(self, reader: BodyReader, exchange: Exchange, on_body: OnBody | None) -> None:
        self.started = time.perf_counter()
        self.size = 0
        self._reader = reader
        self._exchange = exchange
        self._on_body = on_body
        self._chunks: list[bytes] = []

    def wait(self, read: Read, on_done: Callable[[Read], object]) -> None:
        # The read refers to this body. A reference from the body to the read would be a cycle that is never freed.
        self._reader.pending[read] = self
        read.add_done_callback(on_done)

    def finish(self, read: Read) -> None:
        """Pass on a body that was read in one piece."""
        self._pass_on(self._take_result(read))

    def read_chunk(self) -> None:
        self.wait(self._exchange.read_chunk(), self._handle_chunk)

    def _handle_chunk(self, read: Read) -> None:
        chunk = self._take_result(read)
        if isinstance(chunk, HttpError):
            self._pass_on(chunk)
        elif chunk:
            self._add(chunk)
            self.read_chunk()
        else:
            self._end()

    def _add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._on_body is None:
            return
        self._chunks.append(chunk)
        fits = self._reader.reserve(len(chunk))
        if self.size > self._reader.limit:
            self._pass_on(body_too_large("larger", self._reader.limit))
        elif not fits:
            self._pass_on(MEMORY_FULL)

    def _end(self) -> None:
        """Handle the last chunk: if the body is not complete, the connection broke, or the chunks are malformed."""
        try:
            self.wait(self._exchange.read_chunk(), self._take_result)
        except StopAsyncIteration:
            self._pass_on(b"".join(self._chunks))
        else:
            self._pass_on(INCOMPLETE)

    def _pass_on(self, body: bytes | HttpError) -> None:
        on_body, self._on_body = self._on_body, None
        if self._chunks:
            self._reader.reserve(-sum(map(len, self._chunks)))
            self._chunks = []
        if on_body is not None:
            on_body(body)

    def _take_result(self, read: Read) -> bytes | HttpError:
        del self._reader.pending[read]
        try:
            return read.result()
        except CANCELLED:
            return TIMED_OUT
        except RuntimeError:
            return INCOMPLETE


def body_too_large(size: str, limit: int) -> HttpError:
    return HttpError(413, f"the body is {size}, the limit is {limit} bytes: send fewer rows at a time")


TIMED_OUT = HttpError(408, f"the body did not arrive within {BODY_TIMEOUT:g} s: send it faster")
INCOMPLETE = HttpError(400, "the body is incomplete: send all of it")
MEMORY_FULL = HttpError(503, "too many large bodies are arriving: send fewer at a time", retry_after="1")
