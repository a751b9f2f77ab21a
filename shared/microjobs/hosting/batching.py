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

TYPES_WITHOUT_ROWS = (str, bytes, dict)
"""Types of predictions whose length is not a number of rows."""

MODE_VARIABLE = "MICROJOBS_SERVE_BATCHING"
MODES = ("auto", "on", "off")
"""`auto` batches the invocations of bundles if this makes them faster; `on` also batches those of user code."""
DELAY_VARIABLE = "MICROJOBS_SERVE_MAX_BATCH_DELAY_MS"
DEFAULT_DELAY_MS = 5.0

MAX_BATCH_ROWS = 256
"""A batch with this number of rows is full. `find_batch_rows` may find a lower number for a model. The last invocation
of a batch may bring the batch above the number."""
GROWTH_FACTOR = 4
"""Factor between the sizes of the batches that `find_batch_rows` measures."""
MIN_SPEEDUP = 1.1
"""A larger batch is useful if it makes each row faster by this factor."""
MIN_MEASURED_SECONDS = 0.005
"""Each batch size is measured for this number of seconds or longer, because the time of a single run varies."""
MAX_RUNS = 20
"""Maximum number of runs with one batch size, even if they take less than MIN_MEASURED_SECONDS."""
MAX_MEASURED_SECONDS = 0.5
"""If a batch takes this time, larger batches are not measured, because the measurement delays the start."""


@dataclass(frozen=True)
class BatchSettings:
    """Whether and how a worker combines invocations.

    Args:
        mode: one of `MODES`.
        max_delay_seconds: time that an invocation may wait for other invocations before the model runs.
    """

    mode: str = MODES[0]
    max_delay_seconds: float = DEFAULT_DELAY_MS / 1000


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
            self._row_count += _count_rows(request.rows) or 1

    def run(self) -> list[HttpResponse | Exception]:
        """Run the model, and return one response or error per invocation, in their order."""
        valid_requests = [request for request in self._requests if not isinstance(request, Exception)]
        predictions = iter(predict_together(self._model.predict, [request.rows for request in valid_requests]))
        return [
            request if isinstance(request, Exception) else _encode(request, next(predictions))
            for request in self._requests
        ]


def _count_rows(values: Any) -> int | None:
    """Return the number of rows of an array, a tensor or a list; None for a value of another type."""
    try:
        return None if isinstance(values, TYPES_WITHOUT_ROWS) else len(values)
    except TypeError:
        return None


def predict_together(predict: Callable[[Any], Any], inputs: Sequence[Any]) -> list[Any]:
    """Return the predictions or the error of each input.

    If the inputs cannot be joined, or the run of the joined inputs fails, the model runs once for each input.
    Therefore, an input that the model rejects does not affect the other inputs.
    """
    if len(inputs) > 1 and _can_join(inputs):
        ends = list(itertools.accumulate(map(len, inputs)))
        predictions = _attempt(lambda: predict(np.concatenate(inputs)))
        if not isinstance(predictions, Exception) and _count_rows(predictions) == ends[-1]:
            return [predictions[end - len(rows) : end] for rows, end in zip(inputs, ends, strict=True)]
        problem = (
            predictions
            if isinstance(predictions, Exception)
            else f"the model did not return one prediction per row for {ends[-1]} rows"
        )
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

    Up to this number, each increase of the batch's size makes a row faster. Only the last increase may leave the time
    of a row equal: clients whose invocations share one batch do not wait for a second batch. Times that differ by less
    than the factor `MIN_SPEEDUP` count as equal; otherwise, the noise of the measurement would decide.

    Return 1 if no batch is faster, if a row's prediction depends on the other rows of its batch, or if the model does
    not accept the measured rows.
    """
    # A sine instead of random numbers: the import of numpy.random would delay the start.
    rows = np.sin(np.arange(MAX_BATCH_ROWS * features, dtype=np.float32)).reshape(MAX_BATCH_ROWS, features)
    try:
        if not _rows_are_independent(predict, rows[:GROWTH_FACTOR]):
            return 1
        size, seconds = 1, _measure(predict, rows[:1])
        while size < MAX_BATCH_ROWS and seconds < MAX_MEASURED_SECONDS:
            larger_seconds = _measure(predict, rows[: size * GROWTH_FACTOR])
            if larger_seconds * MIN_SPEEDUP > seconds * GROWTH_FACTOR:
                is_equal = larger_seconds <= seconds * GROWTH_FACTOR * MIN_SPEEDUP
                return size * GROWTH_FACTOR if size > 1 and is_equal else size
            size, seconds = size * GROWTH_FACTOR, larger_seconds
    except Exception:  # the model does not accept these values, and ONNX Runtime's errors have no common base class
        return 1
    return size


def _rows_are_independent(predict: Callable[[Any], Any], rows: Any) -> bool:
    single_row_predictions = np.concatenate([predict(rows[index : index + 1]) for index in range(len(rows))])
    return bool(np.allclose(predict(rows), single_row_predictions, rtol=1e-4, atol=1e-5))


def _measure(predict: Callable[[Any], Any], rows: Any) -> float:
    """Return the processor time of the fastest of several runs, in seconds. Other programs do not affect it."""
    times = [time.thread_time()]
    while len(times) < 3 or (len(times) < MAX_RUNS and times[-1] - times[0] < MIN_MEASURED_SECONDS):
        predict(rows)
        times.append(time.thread_time())
    return min(end - start for start, end in itertools.pairwise(times))
