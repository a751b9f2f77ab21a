"""The service of one worker: readiness, limits, and invocations of its model."""

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .body_reader import make_body_too_large_error
from .listener import Headers
from .metrics import Metrics
from .responses import INTERNAL_ERROR, HttpError, HttpResponse

logger = logging.getLogger("microjobs")

MB = 1024 * 1024

READY_RESPONSE = HttpResponse(200, [], b"")
INVOCATIONS = "/invocations"
LOADING_ERROR = HttpError(503, "the model is still loading: wait until /ping answers 200", retry_after="1")


class Invocation(NamedTuple):
    """A request's body and the values of headers that describe it. The value of a missing header is an empty string.

    Args:
        method: the method of the request; it is POST, unless the model has routes of its own.
        path: `/invocations`, or a route of the model.
        query: the part of the URL after the question mark; only routes of the model have one.
    """

    body: bytes
    content_type: str
    accept: str
    custom_attributes: str
    headers: Headers | None = None
    method: str = "POST"
    path: str = INVOCATIONS
    query: str = ""


class Model(Protocol):
    """A model that has been loaded."""

    is_fast: bool
    """True if the model is so fast that the listener's thread answers small requests itself."""
    has_routes: bool
    """True if the model reads the method and the path of an invocation; other models get only `POST /invocations`."""

    @property
    def batch_model(self) -> "BatchModel | None":
        """This model, if one run can answer several invocations faster than several runs; otherwise None."""

    def invoke(self, invocation: Invocation) -> HttpResponse:
        """Answer one invocation.

        Raises:
            HttpError: the invocation is invalid, or the prediction failed.
        """


class DecodedRequest(NamedTuple):
    """The rows of one invocation, and the function that makes the response from their predictions."""

    rows: Any
    encode: Callable[[Any], HttpResponse]


class BatchModel(Protocol):
    """A model that can answer several invocations in one run."""

    max_batch_rows: int
    """A batch with at least this number of rows gets no more invocations."""

    def decode(self, invocation: Invocation) -> DecodedRequest:
        """Decode the body of an invocation.

        Raises:
            HttpError: the invocation is invalid.
        """

    def predict(self, rows: Any) -> Any:
        """Return one prediction per row."""


class Service:
    """One worker's service.

    Args:
        max_body_bytes: maximum size of a request body.
        worker_count: number of workers that must have loaded the model before /ping answers 200.
    """

    def __init__(self, metrics: Metrics, *, max_body_bytes: int, worker_count: int) -> None:
        self.metrics = metrics
        self.worker_count = worker_count
        self.max_body_bytes = max_body_bytes
        self._model: Model | None = None
        self._is_ready = False

    def set_model(self, model: Model) -> None:
        """Start to answer invocations with this model."""
        self._model = model
        self.metrics.mark_loaded()

    @property
    def is_fast(self) -> bool:
        return self._model is not None and self._model.is_fast

    @property
    def batch_model(self) -> BatchModel | None:
        return None if self._model is None else self._model.batch_model

    def ping(self) -> HttpResponse:
        """Return 200 without a body if all workers have loaded the model and the server is not stopping; else 503."""
        if not self._is_ready:
            self._is_ready = self._model is not None and self.metrics.count_loaded_workers() >= self.worker_count
        if self._is_ready and not self.metrics.is_stopping():
            response = READY_RESPONSE
        else:
            state = "stopping" if self._is_ready else "still loading the model"
            response = HttpError(503, f"the server is {state}: try again", retry_after="1").response()
        self.metrics.record_request("/ping", response.status)
        return response

    def check_head(self, content_length: str, content_encoding: str) -> None:
        """Check an invocation before its body is read. The value of a missing header is an empty string.

        Raises:
            HttpError: the model is not loaded, the body is too large, or its encoding is not supported.
        """
        if self._model is None:
            raise LOADING_ERROR
        if content_length and int(content_length) > self.max_body_bytes:
            raise make_body_too_large_error(f"{content_length} bytes", self.max_body_bytes)
        if content_encoding and content_encoding.strip().lower() != "identity":
            raise HttpError(
                415, f"Content-Encoding {content_encoding!r} is not supported: send the body without a Content-Encoding"
            )

    def invoke(self, invocation: Invocation, start_time: float) -> HttpResponse:
        """Answer an invocation that began at `start_time` (`time.perf_counter`). Errors become responses too."""
        try:
            outcome: HttpResponse | Exception = self._find_model(invocation).invoke(invocation)
        except Exception as error:
            outcome = error
        return self.complete(outcome, start_time)

    def decode(self, invocation: Invocation) -> DecodedRequest:
        """Decode an invocation of a model that answers several invocations in one run.

        Raises:
            HttpError: the invocation is invalid.
        """
        model = self._find_model(invocation).batch_model
        assert model is not None  # noqa: S101  only invocations of such a model are decoded
        return model.decode(invocation)

    def complete(self, outcome: HttpResponse | Exception, start_time: float) -> HttpResponse:
        """Record an invocation that began at `start_time`, and return its response. Errors become responses too.

        A stream is not recorded, because it is not complete yet.
        """
        if isinstance(outcome, HttpError):
            response = outcome.response()
        elif isinstance(outcome, Exception):
            logger.error("an invocation failed", exc_info=outcome)
            response = INTERNAL_ERROR.response()
        else:
            response = outcome
        if response.stream is not None:
            return response
        self.metrics.record_invocation(response.status, time.perf_counter() - start_time, response.row_count)
        return response

    def _find_model(self, invocation: Invocation) -> Model:
        """Return the model for an invocation.

        Raises:
            HttpError: the model is not loaded or does not answer this path, or the body is empty.
        """
        if self._model is None:
            raise LOADING_ERROR
        if invocation.path != INVOCATIONS and not self._model.has_routes:
            target = f"{invocation.method} {invocation.path}"
            raise HttpError(404, f"{target} is not found: this model answers only POST {INVOCATIONS}")
        if not invocation.body and invocation.method == "POST":
            raise HttpError(400, "the body is empty: send rows of features")
        return self._model

    def reject(self, error: HttpError, start_time: float) -> HttpResponse:
        """Return the response to an invocation that never reaches the model."""
        self.metrics.record_invocation(error.status, time.perf_counter() - start_time, prediction_count=0)
        return error.response()
