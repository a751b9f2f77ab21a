"""The invocations that wait in one worker for a thread that runs the model."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore
from typing import NamedTuple

from .batching import Batch, BatchSettings
from .listener import Exchange, RequestHead
from .responses import HttpResponse
from .service import BatchModel, Invocation, Service
from .streams import StreamSender

logger = logging.getLogger("microjobs")

MAX_DELAY_SHARE = 0.1
"""An invocation waits for others at most for this share of the time of the last batch."""


class Job(NamedTuple):
    """An invocation that began at `started` (`time.perf_counter`), and its exchange."""

    invocation: Invocation
    head: RequestHead
    exchange: Exchange
    started: float


class InvocationQueue:
    """Answers invocations: each thread answers one at a time, or several in one run of a model that supports this.

    Invocations that arrive while the model runs form the next batch. A batch waits for more of them only if the last
    one shows that more clients are sending, so that a single client never waits.

    Args:
        respond: sends a response.
        size: invocations that may wait or run.
        threads: number of threads; models that several threads run at the same time are not batched.
    """

    def __init__(
        self,
        service: Service,
        respond: Callable[[Exchange, HttpResponse], None],
        size: int,
        settings: BatchSettings,
        threads: int = 1,
    ) -> None:
        self._service = service
        self._respond = respond
        self._settings = settings
        self._slots = BoundedSemaphore(size)
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._executor = ThreadPoolExecutor(threads, "predict")
        self._delay = 0.0
        self._expected_count = 1
        """The number of invocations of the last batch, and of those that waited when it ended."""

    def put(self, job: Job) -> bool:
        """Add an invocation; return False if the queue is full."""
        if not self._slots.acquire(blocking=False):
            return False
        self._jobs.put(job)
        self._executor.submit(self._answer_next)
        return True

    def _answer_next(self) -> None:
        """Answer the next invocation, unless the batch of an earlier one included it."""
        job = self._next_job(0.0)
        if job is None:
            return
        model = None if self._settings.mode == "off" else self._service.batch_model
        if model is None:
            self._finish(job, partial(self._service.invoke, job.invocation, job.started))
        else:
            self._answer_batch(model, job)

    def _answer_batch(self, model: BatchModel, first: Job) -> None:
        jobs, batch = self._gather(model, first)
        began = time.perf_counter()
        outcomes = batch.run()
        self._delay = min(self._settings.max_delay, MAX_DELAY_SHARE * (time.perf_counter() - began))
        self._expected_count = len(jobs) + self._jobs.qsize()  # before clients can send their next invocations
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._finish(job, partial(self._service.complete, outcome, job.started))

    def _gather(self, model: BatchModel, first: Job) -> tuple[list[Job], Batch]:
        """Return the invocations of a batch, the first one included."""
        deadline, jobs, batch = time.perf_counter() + self._delay, [first], Batch(model)
        batch.add(partial(self._service.decode, first.invocation))
        while not batch.is_full:
            timeout = deadline - time.perf_counter() if len(jobs) < self._expected_count else 0.0
            if (job := self._next_job(max(0.0, timeout))) is None:
                break
            jobs.append(job)
            batch.add(partial(self._service.decode, job.invocation))
        return jobs, batch

    def _next_job(self, timeout: float) -> Job | None:
        try:
            return self._jobs.get(timeout=timeout)
        except Empty:
            return None

    def _finish(self, job: Job, make_response: Callable[[], HttpResponse]) -> None:
        try:
            response = make_response()
            if response.stream is not None:
                sender = StreamSender(job.head, job.exchange, self._service, self._respond, job.started)
                sender.start(response.stream, self._slots.release)
                return
            self._respond(job.exchange, response)
        except Exception:  # the other invocations of the batch still get their responses
            logger.exception("a response could not be sent")
        self._slots.release()
