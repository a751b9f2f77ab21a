"""The default listener: Granian's RSGI worker without an event loop. Uses private modules of Granian.

RSGI provides the head of a request, and its body as a future that is done when Granian's own threads have read it. A
slow client therefore occupies none of Python's threads. An event loop would take as much time as the rest of a small
request, and nothing needs it, because this job awaits only bodies. So callbacks run at once, in the one thread in which
Granian calls Python. Slow work must run in other threads.
"""

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from granian._granian import CallbackScheduler, RSGIWorker
from granian._signals import set_sync_signals
from granian.server.common import WORKERS_METHODS
from granian.server.mp import WorkerProcess

from .granian_server import make_server
from .listener import Application, ListenerSettings, PendingRead, StartWorker


def serve(start_worker: StartWorker, drain: Callable[[], None], settings: ListenerSettings) -> None:
    """See `listener.Serve`. Calls the application without an event loop."""
    make_server(drain, settings).serve(_run_worker, start_worker, wrap_loader=False)


class _Exchange:
    """Adapts Granian's object for one exchange to the interface `listener.Exchange`."""

    __slots__ = ("_chunks", "_protocol")

    _chunks: AsyncIterator[bytes]

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def read_body(self) -> PendingRead:
        read: PendingRead = self._protocol()
        return read

    def read_chunk(self) -> PendingRead:
        if not hasattr(self, "_chunks"):  # set only if needed: small requests need no chunks
            self._chunks = aiter(self._protocol)
        return cast("PendingRead", anext(self._chunks))

    def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._protocol.response_bytes(status, headers, body)


class _InlineLoop:
    """Replaces an event loop: runs scheduled callbacks at once."""

    def call_soon(self, callback: Callable[..., object], *arguments: object, **_context: object) -> None:
        callback(*arguments)

    call_soon_threadsafe = call_soon


class _Scheduler(CallbackScheduler):
    """Scheduler whose `_schedule_fn` Granian calls with each request."""

    def __init__(self, _loop: _InlineLoop, application: Application, *_: object) -> None:
        super().__init__()
        self._schedule_fn = lambda watcher: application(watcher.scope, _Exchange(watcher.proto))


@WorkerProcess.wrap_target  # type: ignore[untyped-decorator]
def _run_worker(
    number: int,
    application: Application,
    sock: Any,
    ipc: Any,
    _loop: Any,
    mode: Any,
    threads: int,
    *settings: Any,
) -> None:
    """Run a worker process, as Granian's own function does for WSGI."""
    runtime, http, (_log_format, ssl, _scope, metrics) = settings[:4], settings[5:10], settings[10:]
    stop, stopped = set_sync_signals(), threading.Event()  # type: ignore[no-untyped-call]
    stop.add_cb(stopped.set)
    make_worker: Any = RSGIWorker  # its type stub lacks some parameters
    worker = make_worker(number, sock, ipc, threads, *runtime, *http, *ssl, metrics)
    serve = getattr(worker, WORKERS_METHODS[mode][(sock[0] or sock[1]).is_uds()])
    serve(_Scheduler(_InlineLoop(), application, None, None, None), _InlineLoop(), stop)
    stopped.wait()
