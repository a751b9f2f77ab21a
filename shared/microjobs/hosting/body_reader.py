"""Reader of request bodies that needs no thread per body.

Each body has a deadline, and large bodies share a memory budget.
"""

import threading
import time
from collections.abc import Callable

from .listener import CANCELLED, PendingRead, ServerExchange
from .responses import HttpError

SMALL_BODY_BYTES = 256 * 1024
"""A body up to this size is read in one piece. A larger body, or a body of unknown length, is read in chunks."""

BODY_TIMEOUT = 60.0
"""Time limit in seconds for receiving a body. SageMaker has the same limit for a whole invocation."""
BYTES_PER_SECOND = 1024 * 1024
"""Each time that this number of bytes has arrived, the time limit of the body grows by one second."""
TIMEOUT_CHECK_INTERVAL = 1.0
"""Seconds between two checks of the deadlines."""

MAX_BUFFERED_BYTES = 256 * 1024 * 1024
"""Memory budget for large bodies while they arrive. The budget is larger if two bodies of maximum size need more."""

OnBody = Callable[[bytes | HttpError], None]
"""Callback that receives the complete body, or the error that ended the read."""


class BodyReader:
    """Reads the bodies of one worker's requests.

    Args:
        max_body_bytes: maximum size of a body.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self.pending_reads: dict[PendingRead, _Body] = {}
        self._free_bytes = max(MAX_BUFFERED_BYTES, 2 * max_body_bytes)
        self._lock = threading.Lock()

    def start_enforcing_deadlines(self) -> None:
        """Start the thread that enforces deadlines. Call this method after the fork, which does not copy threads."""
        threading.Thread(target=self._enforce_deadlines, name="body-timeouts", daemon=True).start()

    def read(self, exchange: ServerExchange, content_length: str, on_body: OnBody) -> None:
        """Read a body and call `on_body` once.

        Args:
            content_length: value of the Content-Length header; empty if the header is missing.
        """
        is_small = bool(content_length) and int(content_length) <= SMALL_BODY_BYTES
        if is_small and (content := exchange.take_body()) is not None:
            on_body(content)
            return
        body = _Body(self, exchange, on_body)
        if is_small:
            body.track(exchange.read_body(), body.deliver_whole)
        else:
            body.read_chunk()

    def discard(self, exchange: ServerExchange) -> None:
        """Read and drop the rest of a body. Otherwise, a client that is still sending would miss an early response."""
        _Body(self, exchange, on_body=None).read_chunk()

    def reserve(self, size: int) -> bool:
        """Subtract `size` bytes from the memory budget, and return whether the budget suffices.

        A negative size gives bytes back.
        """
        with self._lock:  # several threads may finish bodies at the same time
            self._free_bytes -= size
            return self._free_bytes >= 0

    def cancel_overdue(self, now: float) -> None:
        """Cancel the reads of bodies whose deadline is before `now` (`time.perf_counter`)."""
        for read, body in list(self.pending_reads.items()):
            if now > body.start_time + BODY_TIMEOUT + body.size / BYTES_PER_SECOND:
                read.cancel()

    def _enforce_deadlines(self) -> None:
        while True:
            time.sleep(TIMEOUT_CHECK_INTERVAL)
            self.cancel_overdue(time.perf_counter())


class _Body:
    """The state of one body during its read. If `on_body` is None, the body is discarded."""

    __slots__ = ("_chunks", "_exchange", "_on_body", "_reader", "size", "start_time")

    def __init__(self, reader: BodyReader, exchange: ServerExchange, on_body: OnBody | None) -> None:
        self.start_time = time.perf_counter()
        self.size = 0
        self._reader = reader
        self._exchange = exchange
        self._on_body = on_body
        self._chunks: list[bytes] = []

    def track(self, read: PendingRead, on_done: Callable[[PendingRead], object]) -> None:
        """Apply the deadline to a read, and call `on_done` when the read ends."""
        # The callback of the read refers to this body. If the body also referred to the read, this reference cycle
        # would keep the bytes of the body.
        self._reader.pending_reads[read] = self
        read.add_done_callback(on_done)

    def deliver_whole(self, read: PendingRead) -> None:
        """Deliver a body that was read in one piece."""
        self._deliver(self._take_result(read))

    def read_chunk(self) -> None:
        self.track(self._exchange.read_chunk(), self._handle_chunk)

    def _handle_chunk(self, read: PendingRead) -> None:
        chunk = self._take_result(read)
        if isinstance(chunk, HttpError):
            self._deliver(chunk)
        elif chunk:
            self._add_chunk(chunk)
            self.read_chunk()
        else:
            self._deliver_chunks()

    def _add_chunk(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._on_body is None:
            return
        self._chunks.append(chunk)
        has_memory = self._reader.reserve(len(chunk))
        if self.size > (max_body_bytes := self._reader.max_body_bytes):
            self._deliver(make_body_too_large_error(f"more than {max_body_bytes} bytes", max_body_bytes))
        elif not has_memory:
            self._deliver(MEMORY_FULL_ERROR)

    def _deliver_chunks(self) -> None:
        """Deliver the body if it is complete: a further read then raises StopAsyncIteration.

        The body is incomplete if the connection broke or the chunks are malformed.
        """
        try:
            self.track(self._exchange.read_chunk(), self._take_result)
        except StopAsyncIteration:
            self._deliver(b"".join(self._chunks))
        else:
            self._deliver(INCOMPLETE_BODY_ERROR)

    def _deliver(self, body: bytes | HttpError) -> None:
        on_body, self._on_body = self._on_body, None
        if self._chunks:
            self._reader.reserve(-sum(map(len, self._chunks)))
            self._chunks = []
        if on_body is not None:
            on_body(body)

    def _take_result(self, read: PendingRead) -> bytes | HttpError:
        del self._reader.pending_reads[read]
        try:
            return read.result()
        except CANCELLED:
            return TIMEOUT_ERROR
        except RuntimeError:
            return INCOMPLETE_BODY_ERROR


def make_body_too_large_error(size: str, limit: int) -> HttpError:
    return HttpError(413, f"the body is {size}, the limit is {limit} bytes: send fewer rows at a time")


TIMEOUT_ERROR = HttpError(
    408, f"the body did not arrive in {BODY_TIMEOUT:g} s, plus 1 s per MB received: send it faster"
)
INCOMPLETE_BODY_ERROR = HttpError(400, "the body is incomplete: send all of it")
MEMORY_FULL_ERROR = HttpError(503, "too many large bodies are arriving: send fewer at a time", retry_after="1")
