"""The service behind the routes: readiness, one invocation from its request to its answer, limits."""

import logging
import time

from .answers import FAILED, Answer, Problem
from .arrivals import too_large
from .metrics import Metrics
from .models import Model, Request

logger = logging.getLogger("microjobs")

MB = 1024 * 1024

LOADING = Problem(503, "the model is still loading: wait until /ping answers 200", retry_after="1")


class Service:
    """One worker's service.

    Args:
        limit: bytes a request body may have.
        workers: how many must have loaded the model before /ping says so.
    """

    def __init__(self, metrics: Metrics, *, limit: int, workers: int) -> None:
        self.metrics = metrics
        self.workers = workers
        self.limit = limit
        self._model: Model | None = None
        self._ready = False

    def loaded(self, model: Model) -> None:
        self._model = model
        self.metrics.loaded()

    @property
    def quick(self) -> bool:
        """Whether a small request takes no longer than handing it to another thread would."""
        return self._model is not None and self._model.quick

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

    def admit(self, length: str, encoding: str) -> None:
        """What can be said of an invocation before its body is there.

        Args:
            length: the header Content-Length, or empty.
            encoding: the header Content-Encoding, or empty.

        Raises:
            Problem: it is refused.
        """
        if self._model is None:
            raise LOADING
        if length and int(length) > self.limit:
            raise too_large(f"{length} bytes", self.limit)
        if encoding and encoding.strip().lower() != "identity":
            raise Problem(415, f"Content-Encoding {encoding!r} cannot be read: send the body as it is")

    def invoke(self, request: Request, started: float) -> Answer:
        """Answer one invocation that began at `started` (`time.perf_counter`), whatever happens."""
        try:
            answer = self._invoke(request)
        except Problem as problem:
            answer = problem.answer()
        except Exception:
            logger.exception("an invocation failed")
            answer = FAILED.answer()
        self.metrics.invocation(answer.status, time.perf_counter() - started, answer.rows)
        return answer

    def refuse(self, problem: Problem, started: float) -> Answer:
        """The answer to an invocation that never got to the model."""
        self.metrics.invocation(problem.status, time.perf_counter() - started, 0)
        return problem.answer()

    def _invoke(self, request: Request) -> Answer:
        if self._model is None:
            raise LOADING
        if not request.body:
            raise Problem(400, "the body is empty: send rows of features")
        return self._model.invoke(request)


READY = Answer(200, [], b"")
