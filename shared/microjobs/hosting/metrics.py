"""Metrics of all workers, and their Prometheus text.

The counters are in an anonymous memory map, which the main process creates before it forks the workers. Each worker
has its own row and adds to it without a lock between processes; the totals are the sums over all rows. One addition
takes 0.1 microseconds and needs no file.

`prometheus_client` only formats the text. Its multi-process mode would need a folder of files, and an increment of one
counter would take as long as parsing a small request.
"""

import itertools
import mmap
import multiprocessing
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

ROW_COUNT = 1024
"""One row for the main process and one per worker, restarted workers included. Unused rows use no memory."""

ROUTES = ("/ping", "/invocations", "other")
STATUSES = (200, 400, 404, 405, 406, 408, 413, 415, 500, 503)
STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")
"""Labels for all other statuses, because a user's handler may return any status."""
LATENCY_BUCKETS_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets of the latency histogram."""

_STOPPING, _LOADED, _PREDICTIONS, _SECONDS, _BUCKETS = range(5)
"""Indices of counters in a row. `_BUCKETS` is the index of the first bucket of the latency histogram."""
_REQUESTS = _BUCKETS + len(LATENCY_BUCKETS_SECONDS) + 1
"""Index of the first counter of requests."""
_STATUS_LABELS: tuple[int | str, ...] = (*STATUSES, *STATUS_CLASSES)
_CELL_INDEX = {pair: _REQUESTS + index for index, pair in enumerate(itertools.product(ROUTES, _STATUS_LABELS))}
"""Index in a row of each counter of requests, by route and status."""
_INVOCATIONS_INDEX = {status: _CELL_INDEX["/invocations", status] for status in STATUSES}
"""The entries of `_CELL_INDEX` for `/invocations`, with simpler keys for a faster lookup in each invocation."""
_WIDTH = _REQUESTS + len(_CELL_INDEX)
"""Number of counters in a row."""


def _find_cell_index(route: str, status: int) -> int:
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
        self._memory = mmap.mmap(-1, ROW_COUNT * _WIDTH * 8)
        self._cells = memoryview(self._memory).cast("d")
        """All rows, one after the other. Row 0 belongs to the main process."""
        self._row_offset = 0
        """Index in `_cells` of the first counter of this process's row."""
        self._claimed_row_count = multiprocessing.Value("i", 0)
        self._lock = threading.Lock()

    def claim_worker_row(self) -> None:
        """Assign a row to this worker, before the worker records anything.

        When all rows are in use, further workers share rows, starting with row 1.
        """
        with self._claimed_row_count.get_lock():
            self._claimed_row_count.value += 1
            self._row_offset = (1 + (self._claimed_row_count.value - 1) % (ROW_COUNT - 1)) * _WIDTH

    def _sum_rows(self) -> NDArray[np.float64]:
        """Return the sums over all rows, shape (_WIDTH,)."""
        totals: NDArray[np.float64] = np.frombuffer(self._memory, np.float64).reshape(ROW_COUNT, _WIDTH).sum(axis=0)
        return totals

    def mark_loaded(self) -> None:
        """Record that this worker has loaded its model."""
        self._cells[self._row_offset + _LOADED] = 1.0

    def count_loaded_workers(self) -> int:
        return int(self._sum_rows()[_LOADED])

    def mark_stopping(self) -> None:
        """Record that the server is about to stop. Only the main process calls this."""
        self._cells[_STOPPING] = 1.0

    def is_stopping(self) -> bool:
        return self._cells[_STOPPING] > 0

    def count_invocations(self) -> int:
        """Return the number of invocations that all workers have answered."""
        return int(self._sum_rows()[_BUCKETS:_REQUESTS].sum())

    def record_request(self, route: str, status: int) -> None:
        cell = self._row_offset + _find_cell_index(route, status)
        with self._lock:
            self._cells[cell] += 1.0

    def record_invocation(self, status: int, seconds: float, prediction_count: int) -> None:
        cells, row_offset = self._cells, self._row_offset
        with self._lock:
            cells[row_offset + (_INVOCATIONS_INDEX.get(status) or _find_cell_index("/invocations", status))] += 1.0
            cells[row_offset + _PREDICTIONS] += prediction_count
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

        totals = self._sum_rows()
        model = GaugeMetricFamily("serve_model_info", "The model that is served", labels=list(self._model_labels))
        model.add_metric(list(self._model_labels.values()), 1)
        yield model
        yield CounterMetricFamily("serve_predictions", "Rows predicted", totals[_PREDICTIONS])
        requests = CounterMetricFamily("serve_requests", "Requests answered", labels=["route", "status"])
        for (route, status), cell in _CELL_INDEX.items():
            if totals[cell]:
                requests.add_metric([route, str(status)], totals[cell])
        yield requests
        yield _make_latency_histogram(totals)


def _make_latency_histogram(totals: NDArray[np.float64]) -> object:
    from prometheus_client.core import HistogramMetricFamily

    histogram = HistogramMetricFamily("serve_invocation_seconds", "Seconds that an invocation took in its worker")
    counts = np.cumsum(totals[_BUCKETS:_REQUESTS]).tolist()
    bounds = [*map(str, LATENCY_BUCKETS_SECONDS), "+Inf"]
    histogram.add_metric([], list(zip(bounds, counts, strict=True)), totals[_SECONDS])
    return histogram
