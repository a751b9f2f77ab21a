"""Counters of all workers, and their Prometheus text.

The multi-process mode of prometheus_client would need a folder of files, and each count would cost what parsing a
request does; here its part is the text only.
"""

import itertools
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping

import numpy as np

from .board import Board

ROUTES = ("/ping", "/invocations", "other")
STATUSES = (200, 400, 404, 405, 406, 408, 413, 415, 500, 503)
CLASSES = ("2xx", "3xx", "4xx", "5xx")
"""Where other statuses are counted: a user's code may choose any."""
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the latency histogram, in seconds."""

_STOPPING, _LOADED, _PREDICTIONS, _SECONDS, _BUCKETS = range(5)
_COUNTS = _BUCKETS + len(BOUNDS) + 1
_LABELS: tuple[int | str, ...] = (*STATUSES, *CLASSES)
_CELL = {pair: _COUNTS + index for index, pair in enumerate(itertools.product(ROUTES, _LABELS))}


_INVOCATIONS = {status: _CELL["/invocations", status] for status in STATUSES}
"""Looked up for each invocation, so a mapping of its own."""


def _cell(route: str, status: int) -> int:
    return _CELL.get((route, status)) or _CELL.get((route, f"{status // 100}xx")) or _CELL["other", 500]


class Metrics:
    """What this server did and is doing: made before the workers are forked, claimed in each."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._board = Board(_COUNTS + len(_CELL))
        self._cells = self._board.cells
        self._lock = threading.Lock()

    def claim(self) -> None:
        """Called in each worker before it counts."""
        self._board.claim()

    def loaded(self) -> None:
        """This worker's model is loaded."""
        self._cells[self._board.row + _LOADED] = 1.0

    def workers_loaded(self) -> int:
        return int(self._board.totals()[_LOADED])

    def stop(self) -> None:
        """Tell all workers that the server is about to stop; called in the main process."""
        self._cells[_STOPPING] = 1.0

    def stopping(self) -> bool:
        return self._cells[_STOPPING] > 0

    def invocations(self) -> int:
        """Invocations answered so far, by all workers."""
        return int(self._board.totals()[_BUCKETS:_COUNTS].sum())

    def count(self, route: str, status: int) -> None:
        cell = self._board.row + _cell(route, status)
        with self._lock:
            self._cells[cell] += 1.0

    def invocation(self, status: int, seconds: float, predictions: int) -> None:
        cells, row = self._cells, self._board.row
        with self._lock:
            cells[row + (_INVOCATIONS.get(status) or _cell("/invocations", status))] += 1.0
            cells[row + _PREDICTIONS] += predictions
            cells[row + _SECONDS] += seconds
            cells[row + _BUCKETS + bisect_left(BOUNDS, seconds)] += 1.0

    def render(self) -> bytes:
        """The totals of all workers in Prometheus's text format."""
        # Imported only here: most endpoints are never scraped, and all of them should be ready soon.
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)  # type: ignore[arg-type]  # a Collector in all but its base class
        return generate_latest(registry)

    def collect(self) -> Iterator[object]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        totals = self._board.totals()
        model = GaugeMetricFamily("serve_model_info", "The model that is served", labels=list(self._labels))
        model.add_metric(list(self._labels.values()), 1)
        yield model
        yield CounterMetricFamily("serve_predictions", "Rows predicted", totals[_PREDICTIONS])
        requests = CounterMetricFamily("serve_requests", "Requests answered", labels=["route", "status"])
        for (route, status), cell in _CELL.items():
            if totals[cell]:
                requests.add_metric([route, str(status)], totals[cell])
        yield requests
        seconds = HistogramMetricFamily("serve_invocation_seconds", "Seconds that an invocation took in its worker")
        below = np.cumsum(totals[_BUCKETS:_COUNTS]).tolist()
        seconds.add_metric([], list(zip([*map(str, BOUNDS), "+Inf"], below, strict=True)), totals[_SECONDS])
        yield seconds
