"""Store for metrics: a buffer in memory, which a thread writes to SQLite in batches.

Recording appends to the buffer and does not wait for the disk. The thread writes at most `FLUSH_SECONDS` later, so a
killed server loses less than a second of points. While no caller records values, the thread waits.
"""

import logging
import math
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from microjobs_orchestrator.local.metrics.statistics import MAX_MAGNITUDE, Statistics, is_valid_sample
from microjobs_orchestrator.local.metrics.tables import Dimensions, Point, Series, open_tables, sort_dimensions

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
"""Seconds between the first point in an empty buffer and the write to the disk."""
RETRY_SECONDS = 5.0
"""Seconds before the next attempt to write, after a failure such as a full device."""
CLEAN_SECONDS = 600.0
"""Seconds between two searches for points that are too old."""
MAX_BUFFERED_SAMPLES = 500_000
"""Maximum number of `Samples` in the buffer, one per call of `record`. If the disk is too slow, the oldest are lost."""


ValuesByName = Mapping[str, float | Statistics]
"""Values by the names of the metrics."""


class Samples(NamedTuple):
    """Values that were recorded at one time."""

    namespace: str
    dimensions: Mapping[str, str]
    values: ValuesByName
    time: float
    unit: str
    is_exact: bool
    step: int | None


class MetricStore:
    """The metrics of the server. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._tables = open_tables(path)
        self._buffer: deque[Samples] = deque(maxlen=MAX_BUFFERED_SAMPLES)
        self._has_samples, self._is_closing = threading.Event(), threading.Event()
        self._flush_lock, self._thread_lock = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._has_failed = False
        """Whether the last flush failed."""
        self.on_points: Callable[[Iterable[Mapping[str, str]]], None] = lambda _: None
        """This function is called with the dimensions of new points after the points were written to the disk."""

    def close(self) -> None:
        """Write the buffer, and close the file."""
        self._is_closing.set()
        self._has_samples.set()
        if self._thread:
            self._thread.join()
        self.flush()
        self._tables.close()

    def record(
        self,
        namespace: str,
        dimensions: Mapping[str, str],
        values: ValuesByName,
        timestamp: float | None = None,
        *,
        unit: str = "None",
        is_exact: bool = False,
        step: int | None = None,
    ) -> None:
        """Add one value to each metric in `values`. This takes about a microsecond, and never waits for the disk.

        Args:
            namespace: such as `AWS/SageMaker`.
            dimensions: values by the names of the dimensions.
            values: values by the names of the metrics. Values that `is_valid_sample` rejects are dropped. The caller
                must not change the mappings later.
            timestamp: seconds since 1970; by default, the current time.
            unit: CloudWatch's name of the unit.
            is_exact: keep each point with its own time. Otherwise, the points of a second become one point.
            step: the number of the iteration, for exact points.
        """
        time_ = time.time() if timestamp is None else timestamp
        self._buffer.append(Samples(namespace, dimensions, values, time_, unit, is_exact, step))
        if not self._has_samples.is_set():
            self._start_flush()

    def _start_flush(self) -> None:
        with self._thread_lock:
            self._has_samples.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
                self._thread.start()

    def list_series(
        self,
        namespace: str | None = None,
        name: str | None = None,
        dimensions: Mapping[str, str] | None = None,
        required_dimensions: Dimensions = (),
    ) -> list[tuple[Series, float]]:
        """Return the series with the time of their last point, sorted by namespace, name and dimensions.

        Args:
            dimensions: the series must have exactly these dimensions; None selects all.
            required_dimensions: the series must have these dimensions, and may have others.
        """
        self.flush()
        exact = None if dimensions is None else sort_dimensions(dimensions)
        return self._tables.list_series(namespace, name, exact, required_dimensions)

    def find_series(self, namespace: str, name: str, dimensions: Mapping[str, str]) -> list[Series]:
        """Return the series of a metric: one per unit in which it was recorded."""
        self.flush()
        return self._tables.find_series(namespace, name, sort_dimensions(dimensions))

    def read(self, series: Series, begin: float = 0.0, end: float = math.inf) -> list[Point]:
        """Return the points from `begin` until before `end`, sorted by time. If there are none, the list is empty.

        A second can have several points, because each flush adds points of its own.
        """
        self.flush()
        return self._tables.read(series, begin, end)

    def remove(self, namespace: str, dimensions: Mapping[str, str], begin: float) -> None:
        """Remove the points since `begin` of all metrics with exactly these dimensions."""
        self.flush()
        self._tables.remove(namespace, sort_dimensions(dimensions), begin)

    def flush(self) -> bool:
        """Write the buffer to the disk.

        Return False if the device is full or fails. Then the newest samples stay in the buffer, at most half of
        MAX_BUFFERED_SAMPLES.
        """
        with self._flush_lock:
            samples = [self._buffer.popleft() for _ in range(len(self._buffer))]
            try:
                if samples:
                    self._tables.add(_make_points(samples))
                    self.on_points({id(item.dimensions): item.dimensions for item in samples}.values())
            except (sqlite3.Error, OSError) as error:
                self._report_failure(error)
                self._buffer.extendleft(reversed(samples[-MAX_BUFFERED_SAMPLES // 2 :]))
                return False
            self._has_failed = False
            return True

    def _report_failure(self, error: Exception) -> None:
        if not self._has_failed:
            logger.warning("metrics cannot be stored, and are kept in memory: %s", error)
        self._has_failed = True

    def _run(self) -> None:
        next_clean = time.monotonic()
        while not self._is_closing.is_set():
            self._has_samples.wait()
            self._is_closing.wait(FLUSH_SECONDS)
            self._has_samples.clear()
            try:
                if not self.flush():
                    self._is_closing.wait(RETRY_SECONDS)
                    self._has_samples.set()
                if time.monotonic() >= next_clean:
                    self._tables.clean()
                    next_clean = time.monotonic() + CLEAN_SECONDS
            except Exception:  # an error must not end the thread
                logger.exception("points of metrics are lost")


def _make_points(samples: Iterable[Samples]) -> Iterator[tuple[Series, Point]]:
    """Yield the exact points. Merge the other values of a series that have the same second into one point.

    Mappings are compared by identity, which is much faster for callers that record the same objects again and again.
    """
    groups: dict[tuple[str, str, int, float], list[Samples]] = {}
    for item in samples:
        if item.is_exact:
            for name, statistics in _list_statistics(item.values):
                yield _make_series(item, name), Point(item.time, statistics, step=item.step)
        else:
            groups.setdefault((item.namespace, item.unit, id(item.dimensions), item.time // 1), []).append(item)
    for (_, _, _, second), group in groups.items():
        for name, statistics in _merge([item.values for item in group]):
            yield _make_series(group[0], name), Point(second, statistics, is_second=True)


def _make_series(samples: Samples, name: str) -> Series:
    return Series(samples.namespace, name, sort_dimensions(samples.dimensions), samples.unit)


def _list_statistics(values: ValuesByName) -> Iterator[tuple[str, Statistics]]:
    for name, value in values.items():
        if isinstance(value, Statistics):
            yield name, value
        elif is_valid_sample(value):
            yield name, Statistics.from_value(value)


def _merge(group: Sequence[ValuesByName]) -> Iterator[tuple[str, Statistics]]:
    """Yield names of metrics with statistics. Merge the numbers of a metric, but yield each `Statistics` alone."""
    counts = Counter(map(id, group))
    distributions: dict[str, dict[float, float]] = {}
    for key, values in dict(zip(map(id, group), group, strict=True)).items():
        for name, value in values.items():
            if isinstance(value, Statistics):
                yield from [(name, value)] * counts[key]
            elif abs(value) <= MAX_MAGNITUDE:  # as `is_valid_sample`, which would take longer
                distribution = distributions.setdefault(name, {})
                distribution[value] = distribution.get(value, 0) + counts[key]
    for name, distribution in distributions.items():
        yield name, Statistics.from_distribution(distribution)
