"""Granian's RSGI worker without an event loop.

RSGI gives the head of a request, and its body as a future that is done when the client has sent it: Granian's own
threads read, and a slow client takes none of Python's. asyncio in between would cost as much as the rest of a small
request, for nothing: no answer here awaits anything but its body. So callbacks are called at once, on the one thread
on which Granian calls Python, and what takes long is for its callers to give to other threads.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from granian._granian import CallbackScheduler, RSGIWorker
from granian._signals import set_sync_signals
from granian.server.common import WORKERS_METHODS
from granian.server.mp import WorkerProcess


class Headers(Protocol):
    """Header fields by their names in lower case."""

    def get(self, name: str, default: str = "") -> str: ...

    def items(self) -> Iterable[tuple[str, str]]: ...


class Scope(Protocol):
    """The head of a request; `path` is decoded."""

    method: str
    path: str
    query_string: str
    headers: Headers


class Future(Protocol):
    """A piece of a body; its callback is called once, with the future."""

    def add_done_callback(self, callback: Callable[["Future"], object]) -> None: ...

    def cancel(self) -> bool: ...

    def result(self) -> bytes: ...


class Exchange(Protocol):
    """The other half of a request: its body, whole or in pieces, and its answer, which any thread may send."""

    def __call__(self) -> Future: ...

    def __aiter__(self) -> "Exchange": ...

    def __anext__(self) -> Future: ...

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


Application = Callable[[Scope, Exchange], None]
"""Called for each request; must not raise."""


class _Immediate:
    """In place of an event loop: what is to be called soon is called now."""

    def call_soon(self, callback: Callable[..., object], *arguments: object, **_context: object) -> None:
        callback(*arguments)

    call_soon_threadsafe = call_soon


class _Scheduler(CallbackScheduler):
    def __init__(self, _loop: _Immediate, application: Application, *_: object) -> None:
        super().__init__()
        self._schedule_fn = lambda watcher: application(watcher.scope, watcher.proto)


@WorkerProcess.wrap_target  # type: ignore[untyped-decorator]
def spawn_worker(
    number: int,
    application: Application,
    sock: Any,
    ipc: Any,
    _loop: Any,
    mode: Any,
    threads: int,
    *settings: Any,
) -> None:
    """A worker process, as Granian's own for WSGI is one; to be given to `MPServer.serve`."""
    runtime, http, (_log_format, ssl, _scope, metrics) = settings[:4], settings[5:10], settings[10:]
    stop, stopped = set_sync_signals(), threading.Event()  # type: ignore[no-untyped-call]
    stop.add_cb(stopped.set)
    make_worker: Any = RSGIWorker  # its stub is behind its code
    worker = make_worker(number, sock, ipc, threads, *runtime, *http, *ssl, metrics)
    serve = getattr(worker, WORKERS_METHODS[mode][(sock[0] or sock[1]).is_uds()])
    serve(_Scheduler(_Immediate(), application, None, None, None), _Immediate(), stop)
    stopped.wait()
