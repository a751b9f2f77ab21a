"""The service behind the routes: readiness, one invocation from its WSGI environment to its answer, limits."""

import logging
import time
from typing import Any

from answers import Answer, Problem
from metrics import Metrics
from models import Model, Request

logger = logging.getLogger("microjobs")

Environ = dict[str, Any]

MB = 1024 * 1024
CHUNK = MB
DISCARD_LIMIT = 64 * MB
"""Bytes of a refused body that are still read, so that the client gets the answer and not a broken connection."""


class Service:
    """One worker's service.

    Args:
        limit: bytes a request body may have.
        in_flight: invocations at a time, running or waiting; one more is answered 503.
        workers: how many must have loaded the model before /ping says so.
    """

    def __init__(self, metrics: Metrics, *, limit: int, in_flight: int, workers: int) -> None:
        self.metrics = metrics
        self.workers = workers
        self.limit = limit
        self._tickets = [None] * in_flight  # pop and append are atomic, and a tenth of a semaphore's cost
        self._model: Model | None = None
        self._ready = False

    def loaded(self, model: Model) -> None:
        self._model = model
        self.metrics.loaded()

    def ping(self) -> Answer:
        """200 with an empty body once each worker has its model and until the server stops, else 503."""
        if not self._ready:
            self._ready = self._model is not None and self.metrics.workers_loaded() >= self.workers
        if self._ready and not self.metrics.stopping():
            answer = READY
        else:
            state = "stopping" if self._ready else "still loading the model"
            answer = Problem(503, f"the server is {state}: ask again", retry_after="1").answer()
        self.metrics.count("/ping", answer.status)
        return answer

    def invoke(self, environ: Environ) -> Answer:
        """Answer one invocation, whatever happens."""
        started = time.perf_counter()
        try:
            answer = self._invoke(environ)
        except Problem as problem:
            if problem.status != 503:  # said at once: whoever is refused for lack of room must not take some
                _discard(environ)
            answer = problem.answer()
        except Exception:
            logger.exception("an invocation failed")
            answer = Problem(500, "the server failed on this request: the reason is in its log").answer()
        self.metrics.invocation(answer.status, time.perf_counter() - started, answer.rows)
        return answer

    def _invoke(self, environ: Environ) -> Answer:
        if self._model is None:
            raise Problem(503, "the model is still loading: wait until /ping answers 200", retry_after="1")
        try:
            ticket = self._tickets.pop()
        except IndexError:
            raise Problem(503, "too many requests are waiting: send fewer at a time", retry_after="1") from None
        try:
            get = environ.get
            request = Request(
                self._body(environ),
                get("CONTENT_TYPE", ""),
                get("HTTP_ACCEPT", ""),
                get("HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES", ""),
            )
            return self._model.invoke(request)
        finally:
            self._tickets.append(ticket)

    def _body(self, environ: Environ) -> bytes:
        """The request's body, read no further than the limit; a chunked one does not say its length."""
        length = environ.get("CONTENT_LENGTH")
        if length is not None and int(length) > self.limit:
            raise self._too_large(f"{length} bytes")
        if encoding := environ.get("HTTP_CONTENT_ENCODING"):
            raise Problem(415, f"Content-Encoding {encoding!r} cannot be read: send the body as it is")
        stream = environ["wsgi.input"]
        body: bytes = stream.read(self.limit + 1) if length is None else stream.read()
        if len(body) > self.limit:
            raise self._too_large("larger")
        if not body:
            raise Problem(400, "the body is empty: send rows of features")
        if length is not None and len(body) < int(length):
            raise Problem(400, f"the body ended after {len(body)} of {length} bytes")
        return body

    def _too_large(self, size: str) -> Problem:
        return Problem(413, f"the body is {size}, the limit is {self.limit} bytes: send fewer rows at a time")


READY = Answer(200, [], b"")


def _discard(environ: Environ) -> None:
    stream = environ["wsgi.input"]
    for _ in range(DISCARD_LIMIT // CHUNK):
        if not stream.read(CHUNK):
            return
