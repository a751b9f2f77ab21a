"""Metrics of all workers, and their Prometheus text.

`prometheus_client` only formats the text. Its multi-process mode would need a folder of files, and an increment of one
counter would take as long as parsing a small request.
"""

import itertools
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from .shared_counters import SharedCounters

ROUTES = ("/ping", "/invocations", "other")
STATUSES = (200, 400, 404, 405, 406, 408, 413, 415, 500, 503)
STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")
"""Labels for all other statuses, because a user's handler may return any status."""
LATENCY_BUCKETS_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets of the latency histogram."""

_STOPPING, _LOADED, _PREDICTIONS, _SECONDS, _BUCKETS = range(5)
_REQUESTS = _BUCKETS + len(LATENCY_BUCKETS_SECONDS) + 1
_STATUS_LABELS: tuple[int | str, ...] = (*STATUSES, *STATUS_CLASSES)
_CELL_INDEX = {pair: _REQUESTS + index for index, pair in enumerate(itertools.product(ROUTES, _STATUS_LABELS))}
_INVOCATIONS_INDEX = {status: _CELL_INDEX["/invocations", status] for status in STATUSES}
"""The entries of `_CELL_INDEX` for `/invocations`, with simpler keys for a faster lookup in each invocation."""


def _cell_index(route: str, status: int) -> int:
    return (
        _CELL_INDEX.get((route, status)) or _CELL_INDEX.get((route, f"{status // 100}xx")) or _CELL_INDEX["other", 500]
    )


class Metrics:
    """Counters of all workers of this server. Create them before the workers are forked.

    Args:
        labels: labels of the metric `serve_model_info`.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._model_labels = labels
        self._counters = SharedCounters(_REQUESTS + len(_CELL_INDEX))
        self._cells = self._counters.cells
        self._lock = threading.Lock()

    def claim_row(self) -> None:
        """Assign a row of the counters to this worker. Call this before the worker records anything."""
        self._counters.claim_row()

    def mark_loaded(self) -> None:
        """Record that this worker has loaded its model."""
        self._cells[self._counters.row_offset + _LOADED] = 1.0

    def loaded_worker_count(self) -> int:
        return int(self._counters.totals()[_LOADED])

    def mark_stopping(self) -> None:
        """Record that the server is about to stop. Only the main process calls this."""
        self._cells[_STOPPING] = 1.0

    def is_stopping(self) -> bool:
        return self._cells[_STOPPING] > 0

    def invocation_count(self) -> int:
        """Return the number of invocations that all workers have answered."""
        return int(self._counters.totals()[_BUCKETS:_REQUESTS].sum())

    def record_request(self, route: str, status: int) -> None:
        cell = self._counters.row_offset + _cell_index(route, status)
        with self._lock:
            self._cells[cell] += 1.0

    def record_invocation(self, status: int, seconds: float, predictions: int) -> None:
        cells, row_offset = self._cells, self._counters.row_offset
        with self._lock:
            cells[row_offset + (_INVOCATIONS_INDEX.get(status) or _cell_index("/invocations", status))] += 1.0
            cells[row_offset + _PREDICTIONS] += predictions
            cells[row_offset + _SECONDS] += seconds
            cells[row_offset + _BUCKETS + bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1.0

    def render(self) -> bytes:
        """Return the totals of all workers in Prometheus's text format."""
        # The import at first use keeps the start fast: most endpoints are never scraped.
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)  # type: ignore[arg-type]  # has Collector's methods, not its base class
        return generate_latest(registry)

    def collect(self) -> Iterator[object]:
        """Yield the totals of all workers. `prometheus_client` calls this method."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        totals = self._counters.totals()
        model = GaugeMetricFamily("serve_model_info", "The model that is served", labels=list(self._model_labels))
        model.add_metric(list(self._model_labels.values()), 1)
        yield model
        yield CounterMetricFamily("serve_predictions", "Rows predicted", totals[_PREDICTIONS])
        requests = CounterMetricFamily("serve_requests", "Requests answered", labels=["route", "status"])
        for (route, status), cell in _CELL_INDEX.items():
            if totals[cell]:
                requests.add_metric([route, str(status)], totals[cell])
        yield requests
        yield _latency_histogram(totals)


def _latency_histogram(totals: NDArray[np.float64]) -> object:
    from prometheus_client.core import HistogramMetricFamily

    histogram = HistogramMetricFamily("serve_invocation_seconds", "Seconds that an invocation took in its worker")
    counts = np.cumsum(totals[_BUCKETS:_REQUESTS]).tolist()
    bounds = [*map(str, LATENCY_BUCKETS_SECONDS), "+Inf"]
    histogram.add_metric([], list(zip(bounds, counts, strict=True)), totals[_SECONDS])
    return histogram
