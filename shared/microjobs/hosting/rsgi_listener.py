"""The listener `rsgi`: Granian's public RSGI interface, on an event loop. It is slower than `asyncio_listener`, but
uses no private modules of Granian.

https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from .granian_server import make_server
from .listener import Application, ListenerSettings, PendingRead, RequestHead, StartWorker


def serve(start_worker: StartWorker, drain: Callable[[], None], settings: ListenerSettings) -> None:
    """See `listener.Serve`. Calls the application in an event loop."""
    make_server(drain, settings).serve(
        target_loader=lambda: functools.partial(handle, start_worker()), wrap_loader=False
    )


async def handle(application: Application, head: RequestHead, protocol: Any) -> None:
    """Call the application. Wait until the response is sent and no read of the body is pending: Granian closes the
    connection when this coroutine ends."""
    done_event = asyncio.Event()
    application(head, _Exchange(protocol, done_event))
    await done_event.wait()


class _Exchange:
    """Adapts RSGI's protocol object to `listener.ServerExchange`.

    Any thread may call the methods, because the coroutines of the protocol object run in the event loop.

    Args:
        done_event: event that is set when the response is sent and no read of the body is pending.
    """

    def __init__(self, protocol: Any, done_event: asyncio.Event) -> None:
        self._protocol = protocol
        self._done_event = done_event
        self._loop = asyncio.get_running_loop()
        self._chunks: AsyncIterator[bytes] | None = None
        self._pending_count = 1
        """Number of reads that have not ended, plus one until the response is sent."""
        self._lock = threading.Lock()

    def take_body(self) -> None:
        """Return None, because Granian does not report whether the body has arrived."""

    def read_body(self) -> PendingRead:
        return self._start(self._protocol())

    def read_chunk(self) -> PendingRead:
        if self._chunks is None:
            self._chunks = aiter(self._protocol)
        return self._start(self._chunks.__anext__())

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def run_in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._protocol.response_bytes(status, headers, body)
        self._end_operation()

    def _start(self, awaitable: Awaitable[bytes]) -> PendingRead:
        async def read() -> bytes:
            return await awaitable

        with self._lock:
            self._pending_count += 1
        return _Read(asyncio.run_coroutine_threadsafe(read(), self._loop), self._end_operation)

    def _end_operation(self) -> None:
        with self._lock:
            self._pending_count -= 1
            is_done = self._pending_count == 0
        if is_done:
            self.run_in_loop(self._done_event.set)


class _Read:
    """A read that ends after its callback, because the callback may start the next read."""

    def __init__(self, future: Future[bytes], end: Callable[[], None]) -> None:
        self._future: Future[bytes] | None = future
        self._end = end

    def cancel(self) -> bool:
        future = self._future  # the read may end in another thread
        return future is not None and future.cancel()

    def result(self) -> bytes:
        assert self._future is not None  # noqa: S101  only a callback asks for the result
        return self._future.result()

    def add_done_callback(self, callback: Callable[[PendingRead], object]) -> None:
        def call(_future: Future[bytes]) -> None:
            try:
                callback(self)
            finally:
                self._future = None  # otherwise, a reference cycle would keep the bytes of the body
                self._end()

        if self._future is not None:
            self._future.add_done_callback(call)
