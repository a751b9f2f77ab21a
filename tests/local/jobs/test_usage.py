"""Metrics of the CPU time, memory, disk space and GPUs that hosts use."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from microjobs_orchestrator.local.lifecycle import usage as usage_module
from microjobs_orchestrator.local.lifecycle.usage import Meter
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.metrics.tables import Series
from microjobs_orchestrator.local.runtimes.base import GpuUsage, Host, HostUsage
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeHost, ImageBehaviour
from tests.polling import wait_until

GIB = 1 << 30


class MeasuredHost:
    """A host that uses a given number of CPU seconds between two measurements."""

    name = "algo-1"

    def __init__(self, cpu_seconds: float, *gpus: GpuUsage) -> None:
        self._cpu_seconds, self._gpus = cpu_seconds, gpus
        self.measurement_times: list[float] = []

    def measure(self) -> HostUsage | None:
        self.measurement_times.append(time.monotonic())
        cpu_seconds = self._cpu_seconds * len(self.measurement_times)
        return HostUsage(cpu_seconds, memory_bytes=GIB, memory_limit_bytes=4 * GIB, gpus=self._gpus)


def measure(store: MetricStore, folder: Path, host: object, is_done: Callable[[], bool]) -> None:
    """Measure a host until `is_done` returns True."""
    meter = Meter(store, "space", lambda name: {"Host": f"job/{name}"}, folder)
    with meter.measure(cast("Sequence[Host]", [host])):
        wait_until(is_done)


def read_percentages(store: MetricStore, name: str) -> list[float]:
    series = Series("space", name, (("Host", "job/algo-1"),), "Percent")
    return [value for point in store.read(series) for value in point.statistics.distribution]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetricStore:
    monkeypatch.setattr(usage_module, "FIRST_MEASUREMENT_SECONDS", 0.05)
    monkeypatch.setattr(usage_module, "INTERVAL_SECONDS", 0.05)
    return MetricStore(tmp_path / "metrics.db")


def test_use_of_a_host_is_recorded_in_percent(store: MetricStore, tmp_path: Path) -> None:
    host = MeasuredHost(
        0.1, GpuUsage(utilization=30, memory_utilization=10), GpuUsage(utilization=50, memory_utilization=20)
    )
    measure(store, tmp_path, host, lambda: len(host.measurement_times) >= 3)
    assert set(read_percentages(store, "MemoryUtilization")) == {25.0}
    # The metrics of GPUs are sums over the GPUs of the host.
    assert set(read_percentages(store, "GPUUtilization")) == {80.0}
    assert set(read_percentages(store, "GPUMemoryUtilization")) == {30.0}
    assert all(0 < value < 100 for value in read_percentages(store, "DiskUtilization"))
    expected = [100 * 0.1 / (later - earlier) for earlier, later in itertools.pairwise(host.measurement_times)]
    assert sorted(read_percentages(store, "CPUUtilization")) == pytest.approx(sorted(expected), rel=0.2)


def test_host_that_cannot_be_measured_has_no_metrics(store: MetricStore, tmp_path: Path) -> None:
    measurement_requested = threading.Event()

    class UnknownHost:
        name = "algo-1"

        def measure(self) -> None:
            measurement_requested.set()

    measure(store, tmp_path, UnknownHost(), measurement_requested.is_set)
    assert store.list_series() == []


def test_measurements_end_with_the_hosts(store: MetricStore, tmp_path: Path) -> None:
    earlier_threads = set(threading.enumerate())
    host = MeasuredHost(0.1)
    measure(store, tmp_path, host, lambda: bool(host.measurement_times))
    wait_until(lambda: "usage" not in [thread.name for thread in set(threading.enumerate()) - earlier_threads])


def test_slow_measurements_are_made_less_often(store: MetricStore, tmp_path: Path) -> None:
    class SlowHost(MeasuredHost):
        def measure(self) -> HostUsage | None:
            time.sleep(0.05)
            return super().measure()

    host = SlowHost(0.1)
    measure(store, tmp_path, host, lambda: len(host.measurement_times) >= 2)
    first_time, second_time = host.measurement_times[:2]
    assert second_time - first_time >= 0.05 / usage_module.MAX_SHARE


def test_hosts_of_an_endpoint_are_measured(
    parts: ServerParts,
    model: ImageBehaviour,  # noqa: ARG001  endpoint `e` serves it
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage_module, "FIRST_MEASUREMENT_SECONDS", 0.01)
    monkeypatch.setattr(FakeHost, "measure", lambda _: HostUsage(cpu_seconds=1.0, memory_bytes=1, memory_limit_bytes=2))
    parts.deploy()
    summaries = wait_until(lambda: parts.context.metrics.list_series("/aws/sagemaker/Endpoints"))
    assert {series.dimensions for series, _ in summaries} == {(("EndpointName", "e"), ("VariantName", "main"))}
