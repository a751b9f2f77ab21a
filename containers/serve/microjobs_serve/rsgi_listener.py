"""The other listener: Granian's public RSGI interface, on an event loop. Slower, but it uses no private modules.

https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from .granian_server import make_server
from .listener import Application, ListenerSettings, Read, RequestHead, StartWorker


class RsgiListener:
    """Calls the application in an event loop."""

    def serve(self, start_worker: StartWorker, drain: Callable[[], None], settings: ListenerSettings) -> None:
        make_server(drain, settings).serve(
            target_loader=lambda: functools.partial(_handle, start_worker()), wrap_loader=False
        )


async def _handle(application: Application, head: RequestHead, protocol: Any) -> None:
    """Call the application. Granian closes the connection if this ends before the response and the body do."""
    done = asyncio.Event()
    application(head, _Exchange(protocol, done))
    await done.wait()


class _Exchange:
    """RSGI's protocol object for one exchange. Its coroutines run in the event loop, so any thread may call it.

    Args:
        done: set when nothing refers to this object any more: then the response is sent, and the body is read.
    """

    def __init__(self, protocol: Any, done: asyncio.Event) -> None:
        self._protocol = protocol
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._chunks: AsyncIterator[bytes] | None = None

    def __del__(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._done.set)

    def read_body(self) -> Read:
        return self._start(self._protocol())

    def read_chunk(self) -> Read:
        if self._chunks is None:
            self._chunks = aiter(self._protocol)
        return self._start(self._chunks.__anext__())

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._protocol.response_bytes(status, headers, body)

    def _start(self, awaitable: Awaitable[bytes]) -> Read:
        async def read() -> bytes:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(read(), self._loop)
