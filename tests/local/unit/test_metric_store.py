"""The store of metrics: series, statistics, limits, restarts and kill -9."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.metrics import tables
from microjobs_orchestrator.local.metrics.statistics import ROUNDING_RATIO, Statistics
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.metrics.tables import Series
from tests.polling import wait_until

NAMESPACE = "AWS/SageMaker"
DIMENSIONS = {"VariantName": "main", "EndpointName": "e"}
LATENCY = Series(NAMESPACE, "ModelLatency", (("EndpointName", "e"), ("VariantName", "main")))
NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


@pytest.fixture
def store(path: Path) -> Iterator[MetricStore]:
    new_store = MetricStore(path)
    yield new_store
    new_store.close()


def test_recorded_values_are_read_at_once(store: MetricStore) -> None:
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 3.5}, NOW)
    assert [(point.time, point.statistics) for point in store.read(LATENCY)] == [(NOW, Statistics.from_value(3.5))]


def test_values_of_a_second_become_one_point(store: MetricStore) -> None:
    for value in range(1000):
        store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": value}, NOW + value / 1000)
    (point,) = store.read(LATENCY)
    statistics = point.statistics
    assert (statistics.count, statistics.total, statistics.minimum, statistics.maximum) == (1000, 499_500, 0, 999)
    assert statistics.compute_percentile(50) == pytest.approx(500, rel=ROUNDING_RATIO - 1)
    assert statistics.compute_percentile(99.9) == pytest.approx(999, rel=ROUNDING_RATIO - 1)


def test_few_different_values_have_exact_percentiles(store: MetricStore) -> None:
    for value in (1.5, 1.5, 7.25, 100.0):
        store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": value}, NOW)
    statistics = store.read(LATENCY)[0].statistics
    assert [statistics.compute_percentile(percentage) for percentage in (0, 50, 75, 75.1, 100)] == [
        1.5,
        1.5,
        7.25,
        100,
        100,
    ]


def test_exact_points_keep_their_times(store: MetricStore) -> None:
    for step in range(5):
        store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": step}, NOW + step / 10, is_exact=True)
    points = [(point.time, point.statistics.average) for point in store.read(LATENCY)]
    assert points == [(NOW + step / 10, step) for step in range(5)]


def test_values_that_are_not_finite_are_dropped(store: MetricStore) -> None:
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": float("nan"), "Other": float("inf")}, NOW)
    assert store.list_series() == []


def test_read_returns_the_points_of_the_period(store: MetricStore) -> None:
    for second in range(5):
        store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": second}, NOW + second)
    assert [point.time - NOW for point in store.read(LATENCY, NOW + 1, NOW + 3)] == [1, 2]


def test_series_are_listed_by_namespace_and_name(store: MetricStore) -> None:
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 1, "Invocations": 1}, NOW)
    store.record("own", {}, {"ModelLatency": 1}, NOW + 1, unit="Seconds")
    assert [(series.namespace, series.name, last) for series, last in store.list_series()] == [
        (NAMESPACE, "Invocations", NOW),
        (NAMESPACE, "ModelLatency", NOW),
        ("own", "ModelLatency", NOW + 1),
    ]
    assert [series for series, _ in store.list_series("own")] == [Series("own", "ModelLatency", (), "Seconds")]
    assert store.list_series(name="ModelLatency")[0][0] == LATENCY


def test_points_survive_a_restart(path: Path) -> None:
    store = MetricStore(path)
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 1}, NOW)
    store.close()
    second_store = MetricStore(path)
    assert len(second_store.read(LATENCY)) == 1
    second_store.close()


def test_remove_keeps_earlier_points_and_other_dimensions(store: MetricStore) -> None:
    for dimensions in (DIMENSIONS, {"EndpointName": "e"}):
        store.record(NAMESPACE, dimensions, {"ModelLatency": 1}, NOW)
        store.record(NAMESPACE, dimensions, {"ModelLatency": 1}, NOW + 10)
    store.remove(NAMESPACE, DIMENSIONS, begin=NOW + 5)
    assert [point.time for point in store.read(LATENCY)] == [NOW]
    assert len(store.read(Series(NAMESPACE, "ModelLatency", (("EndpointName", "e"),)))) == 2


def test_an_idle_store_has_no_thread(tmp_path: Path) -> None:
    earlier_threads = set(threading.enumerate())
    idle_store = MetricStore(tmp_path / "idle.db")
    assert idle_store.list_series() == []
    assert "metrics" not in [thread.name for thread in set(threading.enumerate()) - earlier_threads]
    idle_store.close()


def test_old_seconds_are_merged_into_minutes(store: MetricStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_MERGED_ROWS", 50)
    minute = (time.time() - tables.MERGE_AGE_SECONDS) // 60 * 60 - 120
    for second in range(120):
        store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": second}, minute + second)
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 7}, time.time())
    store.flush()
    store._tables.clean()
    merged_points, recent_points = store.read(LATENCY, 0, minute + 120), store.read(LATENCY, minute + 120)
    assert {point.time for point in merged_points} == {minute, minute + 60}
    assert sum(point.statistics.count for point in merged_points) == 120
    assert Statistics.merge(point.statistics for point in merged_points).compute_percentile(50) == pytest.approx(
        59, rel=0.02
    )
    assert len(recent_points) == 1


def test_exact_points_are_not_merged(store: MetricStore) -> None:
    begin = time.time() - 2 * tables.MERGE_AGE_SECONDS
    for second in range(3):
        store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": second}, begin + second, is_exact=True)
    store.flush()
    store._tables.clean()
    assert len(store.read(LATENCY)) == 3


def test_points_older_than_455_days_are_removed(store: MetricStore) -> None:
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 1}, time.time() - 456 * 86_400)
    store.flush()
    store._tables.clean()
    assert store.list_series() == []


def test_the_oldest_points_are_removed_beyond_the_limit(store: MetricStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_POINTS", 100)
    for second in range(110):
        store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 1}, NOW + second)
    points = store.read(LATENCY)
    assert 90 <= len(points) <= 100
    assert points[-1].time == NOW + 109


def test_samples_are_kept_while_the_device_is_full(
    store: MetricStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 1}, NOW)
    store.flush()
    with monkeypatch.context() as patch:
        patch.setattr(store._tables, "add", fail)
        store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 2}, NOW + 1)
        assert len(store.read(LATENCY)) == 1
        assert not store.flush()
    assert [point.statistics.total for point in store.read(LATENCY)] == [1, 2]
    assert [record.message for record in caplog.records] == [
        "metrics cannot be stored, and are kept in memory: database or disk is full"
    ]


def test_a_value_that_cannot_be_stored_does_not_stop_the_others(store: MetricStore) -> None:
    text: Any = "a bug of a caller"
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": text}, NOW)
    with pytest.raises(TypeError):
        store.flush()
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 1}, NOW)
    assert len(store.read(LATENCY)) == 1


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"x" * 5000])
def test_damaged_file_is_moved_away(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    store = MetricStore(path)
    store.record(NAMESPACE, DIMENSIONS, {"ModelLatency": 1}, NOW)
    assert len(store.read(LATENCY)) == 1
    store.close()
    assert path.with_name("metrics.db.damaged").read_bytes() == content


KILLED_PROGRAM = """
import sys, time
from pathlib import Path
from microjobs_orchestrator.local.metrics.store import MetricStore
store = MetricStore(Path(sys.argv[1]))
print("ready", flush=True)
for count in range(10**9):
    store.record("space", {}, {"count": count}, is_exact=True)
    if count % 100 == 0:
        time.sleep(0.01)
"""


def test_kill_loses_only_the_values_after_the_last_write(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_PROGRAM, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            store = MetricStore(path)
            counts_before_kill = wait_until(lambda: _read_counts(store))
        finally:
            child.kill()
    counts = _read_counts(store)
    store.close()
    assert counts == list(range(len(counts)))
    assert len(counts) >= len(counts_before_kill)


def _read_counts(store: MetricStore) -> list[int]:
    return sorted(int(point.statistics.total) for point in store.read(Series("space", "count")))
