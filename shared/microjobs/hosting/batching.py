"""Dynamic batching: one run of the model answers several invocations."""

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from microjobs.errors import UserError

from .responses import HttpResponse
from .service import BatchModel, DecodedRequest

logger = logging.getLogger("microjobs")

Result = TypeVar("Result")

NOT_ROWS = (str, bytes, dict)
"""Types of predictions whose length is not a number of rows."""

MODE_VARIABLE = "MICROJOBS_SERVE_BATCHING"
MODES = ("auto", "on", "off")
"""`auto` batches the invocations of bundles whose rows take less time together, and `on` also those of user code."""
DELAY_VARIABLE = "MICROJOBS_SERVE_MAX_BATCH_DELAY_MS"
DEFAULT_DELAY_MS = 5.0

MAX_BATCH_ROWS = 256
"""A batch with this number of rows is full. The last invocation that it includes may exceed the number."""
GROWTH = 4
"""Factor between the sizes of the batches that `find_batch_rows` measures."""
MIN_SPEEDUP = 1.1
"""A larger batch pays off if it makes each row faster by this factor."""
MIN_MEASURED_SECONDS, MAX_RUNS = 0.005, 20
"""Runs of a size are repeated for this time, and at most for this number, because single times vary."""
MAX_MEASURED_SECONDS = 0.5
"""Larger batches than one that takes this time are not measured, because the measurement delays the start."""


@dataclass(frozen=True)
class BatchSettings:
    """Whether and how a worker combines invocations.

    Args:
        mode: one of `MODES`.
        max_delay: seconds that an invocation may wait for others before the model runs.
    """

    mode: str = MODES[0]
    max_delay: float = DEFAULT_DELAY_MS / 1000


def read_settings(environ: Mapping[str, str]) -> BatchSettings:
    """Read the settings from environment variables.

    Raises:
        UserError: a value is not supported.
    """
    mode, delay = environ.get(MODE_VARIABLE) or MODES[0], environ.get(DELAY_VARIABLE) or str(DEFAULT_DELAY_MS)
    if mode not in MODES:
        raise UserError(f"{MODE_VARIABLE} is {mode!r}: set it to {', '.join(MODES[:-1])} or {MODES[-1]}")
    if not delay.replace(".", "", 1).isdecimal():
        raise UserError(f"{DELAY_VARIABLE} is {delay!r}: set it to a number of milliseconds, such as 5")
    return BatchSettings(mode, float(delay) / 1000)


class Batch:
    """Invocations that one run of a model answers."""

    def __init__(self, model: BatchModel) -> None:
        self._model = model
        self._requests: list[DecodedRequest | Exception] = []
        self._row_count = 0

    def __len__(self) -> int:
        """Return the number of invocations."""
        return len(self._requests)

    @property
    def is_full(self) -> bool:
        return self._row_count >= self._model.max_batch_rows

    def add(self, decode: Callable[[], DecodedRequest]) -> None:
        """Add an invocation. If it cannot be decoded, the error is its result."""
        request = _attempt(decode)
        self._requests.append(request)
        if not isinstance(request, Exception):
            self._row_count += row_count(request.rows) or 1

    def run(self) -> list[HttpResponse | Exception]:
        """Run the model, and return one response or error per invocation, in their order."""
        valid = [request for request in self._requests if not isinstance(request, Exception)]
        predictions = iter(predict_together(self._model.predict, [request.rows for request in valid]))
        return [
            request if isinstance(request, Exception) else _encode(request, next(predictions))
            for request in self._requests
        ]


def row_count(values: Any) -> int | None:
    """Return the number of rows of an array, a tensor or a list; None for a value of another type."""
    try:
        return None if isinstance(values, NOT_ROWS) else len(values)
    except TypeError:
        return None


def predict_together(predict: Callable[[Any], Any], inputs: Sequence[Any]) -> list[Any]:
    """Return the predictions of each input, or its error.

    If the inputs cannot be joined, or the run of all fails, each input gets a run of its own. Therefore, an input that
    the model rejects does not affect the others.
    """
    if len(inputs) > 1 and _can_join(inputs):
        ends = list(itertools.accumulate(map(len, inputs)))
        predictions = _attempt(lambda: predict(np.concatenate(inputs)))
        if not isinstance(predictions, Exception) and row_count(predictions) == ends[-1]:
            return [predictions[end - len(rows) : end] for rows, end in zip(inputs, ends, strict=True)]
        problem = predictions if isinstance(predictions, Exception) else f"{ends[-1]} rows have other predictions"
        logger.warning("%d requests are predicted one by one, because a batch failed: %s", len(inputs), problem)
    return [_attempt(partial(predict, rows)) for rows in inputs]


def _can_join(inputs: Sequence[Any]) -> bool:
    # An array of one dimension may be a single row.
    arrays = [rows for rows in inputs if isinstance(rows, np.ndarray) and rows.ndim > 1]
    return len(arrays) == len(inputs) and len({(rows.dtype, rows.shape[1:]) for rows in arrays}) == 1


def _encode(request: DecodedRequest, predictions: Any) -> HttpResponse | Exception:
    return predictions if isinstance(predictions, Exception) else _attempt(partial(request.encode, predictions))


def _attempt(function: Callable[[], Result]) -> Result | Exception:
    try:
        return function()
    except Exception as error:
        return error


def find_batch_rows(predict: Callable[[Any], Any], features: int) -> int:
    """Measure a model, and return the number of rows of a full batch.

    Up to this number, a larger batch makes each row faster; the last step only does not make it slower, because clients
    whose invocations share one batch do not wait for another one. Return 1 if no batch is faster, or if a row's
    prediction depends on the other rows of its batch.
    """
    # A sine instead of random numbers: the import of numpy.random would delay the start.
    rows = np.sin(np.arange(MAX_BATCH_ROWS * features, dtype=np.float32)).reshape(MAX_BATCH_ROWS, features)
    try:
        if not _rows_are_independent(predict, rows[:GROWTH]):
            return 1
        size, seconds = 1, _measure(predict, rows[:1])
        while size < MAX_BATCH_ROWS and seconds < MAX_MEASURED_SECONDS:
            larger = _measure(predict, rows[: size * GROWTH])
            if larger * MIN_SPEEDUP > seconds * GROWTH:
                return size * GROWTH if size > 1 and larger <= seconds * GROWTH else size
            size, seconds = size * GROWTH, larger
    except Exception:  # the model does not accept these values, and ONNX Runtime's errors have no common base class
        return 1
    return size


def _rows_are_independent(predict: Callable[[Any], Any], rows: Any) -> bool:
    alone = np.concatenate([predict(rows[index : index + 1]) for index in range(len(rows))])
    return bool(np.allclose(predict(rows), alone, rtol=1e-4, atol=1e-5))


def _measure(predict: Callable[[Any], Any], rows: Any) -> float:
    """Return the processor time of the fastest one of some runs, in seconds. Other programs do not change it."""
    times = [time.thread_time()]
    while len(times) < 3 or (len(times) < MAX_RUNS and times[-1] - times[0] < MIN_MEASURED_SECONDS):
        predict(rows)
        times.append(time.thread_time())
    return min(end - start for start, end in itertools.pairwise(times))
