"""Dispatches requests: answers `/invocations`, `/ping` and a model's own routes, and passes other requests to Flask."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .batching import Batch, BatchSettings
from .body_reader import SMALL_BODY_BYTES, BodyReader
from .invocation_queue import InvocationQueue, PendingInvocation
from .listener import Headers, RequestHead, ServerExchange
from .responses import INTERNAL_ERROR, QUEUE_FULL, HttpError, HttpResponse
from .service import Invocation, Service

logger = logging.getLogger("microjobs")

CLOSE_HEADER = ("connection", "close")

FallbackHandler = Callable[[RequestHead], HttpResponse]
"""Function that answers a request from its head, without the body."""


class Dispatcher:
    """Answers the requests of one worker. It handles the requests of `FAST_ROUTES` and of `route_prefix`, and
    `fallback` handles all others.

    The listener calls it in one thread. Small requests to a fast model are answered in that thread. If the model
    supports batches, one run answers several small requests that have arrived. Other invocations wait in a queue for
    other threads, so that /ping and errors never wait for them.

    Args:
        queue_size: maximum number of queued and running invocations; further invocations get status 503.
        route_prefix: requests whose path begins with it are invocations too, whatever their method.
        batching: whether and how one run of the model answers several invocations.
        threads: number of threads that answer the invocations in the queue.
    """

    def __init__(
        self,
        service: Service,
        fallback: FallbackHandler,
        *,
        queue_size: int,
        route_prefix: str = "",
        batching: BatchSettings = BatchSettings(),  # noqa: B008  it is immutable
        threads: int = 1,
    ) -> None:
        self._service = service
        self._is_stopping = service.metrics.is_stopping
        self._fallback = fallback
        self._route_prefix = route_prefix
        self._body_reader = BodyReader(service.max_body_bytes)
        self._body_reader.start_enforcing_deadlines()
        self._batching = batching
        self._fast_invocations: list[PendingInvocation] = []
        """Small invocations of a fast model that have arrived and are not answered yet."""
        self._queue = InvocationQueue(service, self._respond, queue_size, batching, threads)
        self._fallback_executor = ThreadPoolExecutor(1, "fallback")

    def __call__(self, head: RequestHead, exchange: ServerExchange) -> None:
        """Answer one request, immediately or later."""
        try:
            answer_request = FAST_ROUTES.get((head.path, head.method)) or self._find_answer_method(head.path)
            answer_request(self, head, exchange)
        except Exception:
            logger.exception("a request failed")
            self._respond(exchange, INTERNAL_ERROR.response())

    def _find_answer_method(self, path: str) -> "Callable[[Dispatcher, RequestHead, ServerExchange], None]":
        if self._route_prefix and path.startswith(self._route_prefix):
            return Dispatcher.answer_invocation
        return Dispatcher.submit_to_fallback

    def answer_ping(self, _head: RequestHead, exchange: ServerExchange) -> None:
        self._respond(exchange, self._service.ping())

    def answer_invocation(self, head: RequestHead, exchange: ServerExchange) -> None:
        start_time, headers = time.perf_counter(), head.headers
        content_length = headers.get("content-length", "")
        try:
            self._service.check_head(content_length, headers.get("content-encoding", ""))
        except HttpError as error:
            self._respond_without_body(headers, exchange, self._service.reject(error, start_time))
        else:
            self._body_reader.read(
                exchange, content_length, partial(self._handle_body, head, headers, exchange, start_time)
            )

    def submit_to_fallback(self, head: RequestHead, exchange: ServerExchange) -> None:
        self._fallback_executor.submit(self._answer_by_fallback, head, exchange)

    def _handle_body(
        self, head: RequestHead, headers: Headers, exchange: ServerExchange, start_time: float, body: bytes | HttpError
    ) -> None:
        if isinstance(body, HttpError):
            self._respond(exchange, self._service.reject(body, start_time))
            return
        custom_attributes = headers.get("x-amzn-sagemaker-custom-attributes", "")
        invocation = Invocation(
            body, headers.get("content-type", ""), headers.get("accept", ""), custom_attributes, headers
        )
        if self._route_prefix:  # these attributes are read only if needed: Granian copies an attribute at each access
            invocation = invocation._replace(method=head.method, path=head.path, query=head.query_string)
        if self._service.is_fast and len(body) <= SMALL_BODY_BYTES:
            self._fast_invocations.append(PendingInvocation(invocation, head, exchange, start_time))
            if len(self._fast_invocations) == 1:
                exchange.call_soon(self._answer_fast_invocations)
        elif not self._queue.put(PendingInvocation(invocation, head, exchange, start_time)):
            self._respond(exchange, self._service.reject(QUEUE_FULL, start_time))

    def _answer_fast_invocations(self) -> None:
        """Answer the invocations that have arrived since the last call, with as few runs of the model as possible."""
        invocations, self._fast_invocations = self._fast_invocations, []
        model = self._service.batch_model if len(invocations) > 1 and self._batching.mode != "off" else None
        if model is None:
            for pending in invocations:
                self._respond(pending.exchange, self._service.invoke(pending.invocation, pending.start_time))
            return
        while invocations:
            batch = Batch(model)
            while len(batch) < len(invocations) and not batch.is_full:
                batch.add(partial(self._service.decode, invocations[len(batch)].invocation))
            for pending, outcome in zip(invocations, batch.run(), strict=False):
                self._respond(pending.exchange, self._service.complete(outcome, pending.start_time))
            invocations = invocations[len(batch) :]

    def _answer_by_fallback(self, head: RequestHead, exchange: ServerExchange) -> None:
        try:
            response = self._fallback(head)
        except Exception:
            logger.exception("%s %s failed", head.method, head.path)
            response = INTERNAL_ERROR.response()
        self._respond_without_body(head.headers, exchange, response)

    def _respond_without_body(self, headers: Headers, exchange: ServerExchange, response: HttpResponse) -> None:
        """Respond, and discard the body unless the client waits for permission to send it."""
        has_body = headers.get("transfer-encoding", "") or headers.get("content-length", "0") != "0"
        if has_body and not headers.get("expect", ""):
            # The server starts to read the body before it responds: the response ends the exchange if nothing reads the
            # body at that time.
            self._body_reader.discard(exchange)
        self._respond(exchange, response)

    def _respond(self, exchange: ServerExchange, response: HttpResponse) -> None:
        # While the server stops, clients must open new connections: a request on a connection that closes is lost.
        headers = [*response.headers, CLOSE_HEADER] if self._is_stopping() else response.headers
        exchange.respond(response.status, headers, response.body)


FAST_ROUTES: Mapping[tuple[str, str], Callable[[Dispatcher, RequestHead, ServerExchange], None]] = {
    ("/invocations", "POST"): Dispatcher.answer_invocation,
    ("/ping", "GET"): Dispatcher.answer_ping,
    ("/ping", "HEAD"): Dispatcher.answer_ping,
}
"""Methods that answer requests to paths that every model has, by path and HTTP method."""
