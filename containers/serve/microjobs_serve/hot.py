"""What stands in front of Flask: takes every request in, and answers the two routes that carry the load."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import BoundedSemaphore

from .answers import BUSY, FAILED, Answer, Problem
from .arrivals import SMALL, Arrivals
from .models import Request
from .rsgi import Exchange, Headers, Scope
from .service import Service

logger = logging.getLogger("microjobs")

CLOSE = ("connection", "close")

Rest = Callable[[Scope], Answer]


class Front:
    """One worker's front: GET /ping and POST /invocations here, everything else by `rest`.

    Granian calls it on one thread. Small requests to a quick model are answered there; the others wait for a thread
    that answers one at a time, so that /ping and refusals never wait for a prediction.

    Args:
        in_flight: requests that may wait for that thread; one more is answered 503.
    """

    def __init__(self, service: Service, rest: Rest, *, in_flight: int) -> None:
        self._service = service
        self._rest = rest
        self._arrivals = Arrivals(service.limit)
        self._arrivals.start()
        self._tickets = BoundedSemaphore(in_flight)
        self._predicting = ThreadPoolExecutor(1, "predict")
        self._resting = ThreadPoolExecutor(1, "rest")

    def __call__(self, scope: Scope, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        try:
            path, method = scope.path, scope.method
            if path == "/invocations" and method == "POST":
                self._invoke(scope.headers, exchange)
            elif path == "/ping" and method == "GET":
                self._send(exchange, self._service.ping())
            else:
                self._resting.submit(self._answer_rest, scope, exchange)
        except Exception:
            logger.exception("a request failed")
            self._send(exchange, FAILED.answer())

    def _invoke(self, headers: Headers, exchange: Exchange) -> None:
        started = time.perf_counter()
        length = headers.get("content-length", "")
        try:
            self._service.admit(length, headers.get("content-encoding", ""))
        except Problem as problem:
            self._send(exchange, self._service.refuse(problem, started))
            self._discard(headers, exchange)
        else:
            self._arrivals.take(exchange, length, partial(self._arrived, headers, exchange, started))

    def _arrived(self, headers: Headers, exchange: Exchange, started: float, body: bytes | Problem) -> None:
        if isinstance(body, Problem):
            self._send(exchange, self._service.refuse(body, started))
            return
        request = Request(
            body,
            headers.get("content-type", ""),
            headers.get("accept", ""),
            headers.get("x-amzn-sagemaker-custom-attributes", ""),
            headers,
        )
        if self._service.quick and len(body) <= SMALL:
            self._send(exchange, self._service.invoke(request, started))
        elif self._tickets.acquire(blocking=False):
            self._predicting.submit(self._predict, request, exchange, started)
        else:
            self._send(exchange, self._service.refuse(BUSY, started))

    def _predict(self, request: Request, exchange: Exchange, started: float) -> None:
        try:
            self._send(exchange, self._service.invoke(request, started))
        finally:
            self._tickets.release()

    def _answer_rest(self, scope: Scope, exchange: Exchange) -> None:
        try:
            answer = self._rest(scope)
        except Exception:
            logger.exception("%s %s failed", scope.method, scope.path)
            answer = FAILED.answer()
        self._send(exchange, answer)
        self._discard(scope.headers, exchange)

    def _discard(self, headers: Headers, exchange: Exchange) -> None:
        """Take the body of a request that is answered already, unless the client waits to be told to send it."""
        coming = headers.get("transfer-encoding", "") or headers.get("content-length", "0") != "0"
        if coming and not headers.get("expect", ""):
            self._arrivals.discard(exchange)

    def _send(self, exchange: Exchange, answer: Answer) -> None:
        # A server that stops asks its clients to come back on a new connection, so that none sends into a closing one.
        headers = [*answer.headers, CLOSE] if self._service.metrics.stopping() else answer.headers
        exchange.response_bytes(answer.status, headers, answer.body)
