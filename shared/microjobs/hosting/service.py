"""The service of one worker: readiness, limits, and invocations of its model."""

import logging
import time
from typing import NamedTuple, Protocol

from .body_reader import body_too_large
from .listener import Headers
from .metrics import Metrics
from .responses import INTERNAL_ERROR, HttpError, HttpResponse

logger = logging.getLogger("microjobs")

MB = 1024 * 1024

READY = HttpResponse(200, [], b"")
INVOCATIONS = "/invocations"
LOADING = HttpError(503, "the model is still loading: wait until /ping answers 200", retry_after="1")


class Invocation(NamedTuple):
    """A request's body and the headers that describe it; a header that is absent is an empty string.

    Args:
        method: the method of the request; it is POST, unless the model has routes of its own.
        path: `/invocations`, or a route of the model.
    """

    body: bytes
    content_type: str
    accept: str
    attributes: str
    headers: Headers | None = None
    method: str = "POST"
    path: str = INVOCATIONS


class Model(Protocol):
    """A model that has been loaded."""

    is_fast: bool
    """True if the model answers a small request in less time than a handoff to another thread takes."""
    has_routes: bool
    """True if the model reads the method and the path of an invocation; other models get only `POST /invocations`."""

    def invoke(self, invocation: Invocation) -> HttpResponse:
        """Answer one invocation.

        Raises:
            HttpError: the invocation is invalid, or the prediction failed.
        """


class Service:
    """One worker's service.

    Args:
        limit: maximum size of a request body in bytes.
        workers: number of workers that must have loaded the model before /ping answers 200.
    """

    def __init__(self, metrics: Metrics, *, limit: int, workers: int) -> None:
        self.metrics = metrics
        self.workers = workers
        self.limit = limit
        self._model: Model | None = None
        self._is_ready = False

    def set_model(self, model: Model) -> None:
        """Start to answer invocations with this model."""
        self._model = model
        self.metrics.mark_loaded()

    @property
    def is_fast(self) -> bool:
        return self._model is not None and self._model.is_fast

    def ping(self) -> HttpResponse:
        """Return 200 without a body if all workers have loaded the model and the server is not stopping; else 503."""
        if not self._is_ready:
            self._is_ready = self._model is not None and self.metrics.loaded_worker_count() >= self.workers
        if self._is_ready and not self.metrics.is_stopping():
            response = READY
        else:
            state = "stopping" if self._is_ready else "still loading the model"
            response = HttpError(503, f"the server is {state}: try again", retry_after="1").response()
        self.metrics.record_request("/ping", response.status)
        return response

    def check_head(self, content_length: str, content_encoding: str) -> None:
        """Check an invocation before its body is read. A header that is absent is an empty string.

        Raises:
            HttpError: the model is not loaded, the body is too large, or its encoding is not supported.
        """
        if self._model is None:
            raise LOADING
        if content_length and int(content_length) > self.limit:
            raise body_too_large(f"{content_length} bytes", self.limit)
        if content_encoding and content_encoding.strip().lower() != "identity":
            raise HttpError(
                415, f"Content-Encoding {content_encoding!r} is not supported: send the body without a Content-Encoding"
            )

    def invoke(self, invocation: Invocation, started: float) -> HttpResponse:
        """Answer an invocation that began at `started` (`time.perf_counter`). Errors become responses too."""
        try:
            response = self._find_model(invocation).invoke(invocation)
        except HttpError as error:
            response = error.response()
        except Exception:
            logger.exception("an invocation failed")
            response = INTERNAL_ERROR.response()
        self.metrics.record_invocation(response.status, time.perf_counter() - started, response.rows)
        return response

    def _find_model(self, invocation: Invocation) -> Model:
        """Return the model for an invocation.

        Raises:
            HttpError: the model is not loaded, it has no routes of its own, or the body is empty.
        """
        if self._model is None:
            raise LOADING
        if invocation.path != INVOCATIONS and not self._model.has_routes:
            target = f"{invocation.method} {invocation.path}"
            raise HttpError(404, f"{target} is not found: this model answers only POST {INVOCATIONS}")
        if not invocation.body and invocation.method == "POST":
            raise HttpError(400, "the body is empty: send rows of features")
        return self._model

    def reject(self, error: HttpError, started: float) -> HttpResponse:
        """Return the response to an invocation that never reaches the model."""
        self.metrics.record_invocation(error.status, time.perf_counter() - started, 0)
        return error.response()
