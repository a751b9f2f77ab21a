"""The invocations that wait in one worker for a thread that runs the model."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Semaphore
from typing import NamedTuple

from .batching import Batch, BatchSettings
from .listener import RequestHead, ServerExchange
from .responses import HttpResponse
from .service import BatchModel, Invocation, Service
from .streams import StreamSender

logger = logging.getLogger("microjobs")

MAX_DELAY_SHARE = 0.1
"""Maximum time that an invocation waits for other invocations, as a share of the duration of the previous batch."""


class PendingInvocation(NamedTuple):
    """An invocation that began at `start_time` (`time.perf_counter`), and its exchange."""

    invocation: Invocation
    head: RequestHead
    exchange: ServerExchange
    start_time: float


class InvocationQueue:
    """Answers invocations. Each thread answers one at a time, or several with one run of a model that supports this.

    Invocations that arrive while the model runs form the next batch. A batch waits for more invocations only if the
    previous batch shows that more clients are sending, so that a single client never waits.

    Args:
        respond: function that sends a response.
        size: maximum number of invocations that wait or run.
        threads: number of threads. Models that support batches are run by one thread.
    """

    def __init__(
        self,
        service: Service,
        respond: Callable[[ServerExchange, HttpResponse], None],
        size: int,
        settings: BatchSettings,
        threads: int = 1,
    ) -> None:
        self._service = service
        self._respond = respond
        self._settings = settings
        self._slots = BoundedSemaphore(size)
        self._new_invocations: list[PendingInvocation] = []
        """Invocations that are passed to the threads when all requests that are ready have been read."""
        self._invocations: SimpleQueue[PendingInvocation] = SimpleQueue()
        self._executor = ThreadPoolExecutor(threads, "predict")
        self._free_threads = Semaphore(threads)
        self._delay_seconds = 0.0
        self._expected_count = 1
        """Number of invocations in the previous batch, plus the number of invocations that waited when it ended."""

    def put(self, pending: PendingInvocation) -> bool:
        """Add an invocation; return False if the queue is full. Call this method in the thread of the listener."""
        if not self._slots.acquire(blocking=False):
            return False
        self._new_invocations.append(pending)
        if len(self._new_invocations) == 1:
            pending.exchange.call_soon(self._pass_on)
        return True

    def _pass_on(self) -> None:
        """Pass all new invocations to the threads in one call, because each switch between two threads costs time."""
        invocations, self._new_invocations = self._new_invocations, []
        for pending in invocations:
            self._invocations.put(pending)
            self._use_free_thread()

    def _use_free_thread(self) -> None:
        """Let another thread answer invocations, if an invocation waits and a thread is free."""
        if not self._invocations.empty() and self._free_threads.acquire(blocking=False):
            self._executor.submit(self._answer_all)

    def _answer_all(self) -> None:
        """Answer invocations in this thread until no invocation waits."""
        try:
            while (pending := self._take(timeout=0.0)) is not None:
                self._answer(pending)
        finally:
            self._free_threads.release()
            self._use_free_thread()  # an invocation may have arrived after the last `_take`

    def _answer(self, pending: PendingInvocation) -> None:
        """Answer an invocation, alone or in a batch."""
        model = None if self._settings.mode == "off" else self._service.batch_model
        if model is None:
            self._finish(pending, partial(self._service.invoke, pending.invocation, pending.start_time))
        else:
            self._answer_batch(model, pending)

    def _answer_batch(self, model: BatchModel, first: PendingInvocation) -> None:
        invocations, batch = self._gather(model, first)
        start_time = time.perf_counter()
        outcomes = batch.run()
        self._delay_seconds = min(
            self._settings.max_delay_seconds, MAX_DELAY_SHARE * (time.perf_counter() - start_time)
        )
        # The waiting invocations are counted before the responses are sent: a client that has its response sends again.
        self._expected_count = len(invocations) + self._invocations.qsize()
        first.exchange.run_in_loop(self._finish_batch, invocations, outcomes)

    def _finish_batch(self, invocations: list[PendingInvocation], outcomes: list[HttpResponse | Exception]) -> None:
        for pending, outcome in zip(invocations, outcomes, strict=True):
            self._finish(pending, partial(self._service.complete, outcome, pending.start_time))

    def _gather(self, model: BatchModel, first: PendingInvocation) -> tuple[list[PendingInvocation], Batch]:
        """Return the invocations of a batch, the first one included."""
        deadline, invocations, batch = time.perf_counter() + self._delay_seconds, [first], Batch(model)
        batch.add(partial(self._service.decode, first.invocation))
        while not batch.is_full:
            timeout = deadline - time.perf_counter() if len(invocations) < self._expected_count else 0.0
            if (pending := self._take(timeout=max(0.0, timeout))) is None:
                break
            invocations.append(pending)
            batch.add(partial(self._service.decode, pending.invocation))
        return invocations, batch

    def _take(self, timeout: float) -> PendingInvocation | None:
        try:
            return self._invocations.get(timeout=timeout)
        except Empty:
            return None

    def _finish(self, pending: PendingInvocation, make_response: Callable[[], HttpResponse]) -> None:
        try:
            response = make_response()
            if response.stream is not None:
                sender = StreamSender(pending.head, pending.exchange, self._service, self._respond, pending.start_time)
                sender.start(response.stream, self._slots.release)
                return
            self._respond(pending.exchange, response)
        except Exception:  # the other invocations of the batch still get their responses
            logger.exception("a response could not be sent")
        self._slots.release()
