"""Metrics of the resources that hosts use, such as CPUUtilization, while the hosts run.

AWS publishes these metrics each minute, but local hosts often run for seconds only. Therefore, they are measured more
often.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.runtimes.base import Host, HostUsage

logger = logging.getLogger(__name__)

FIRST_MEASUREMENT_SECONDS = 1.0
"""Seconds from the start of a host to its first measurement, and from there to its second measurement."""
INTERVAL_SECONDS = 5.0
"""Seconds between later measurements."""
MAX_SHARE = 0.05
"""Maximum share of the time that measurements may take. With many hosts, the intervals are therefore longer."""

_measurement_lock = threading.Lock()
"""Lock that is held during measurements, so that only one job is measured at a time. An engine needs about 10 ms for
each host, and measurements of many jobs at the same time would delay its other requests."""


@dataclass(frozen=True)
class Meter:
    """Records the resources that the hosts of an attempt use."""

    metrics: MetricStore
    namespace: str
    """CloudWatch's namespace, such as `/aws/sagemaker/TrainingJobs`."""
    make_dimensions: Callable[[str], Mapping[str, str]]
    """Returns the dimensions of a host by its name."""
    disk: Path
    """A folder. DiskUtilization is the used part of its file system."""

    @contextmanager
    def measure(self, hosts: Sequence[Host]) -> Iterator[None]:
        """Measure hosts until the block ends."""
        end_event = threading.Event()
        threading.Thread(target=self._run, args=(hosts, end_event), name="usage", daemon=True).start()
        try:
            yield
        finally:
            end_event.set()

    def _run(self, hosts: Sequence[Host], end_event: threading.Event) -> None:
        recorders = [_Recorder(self, host) for host in hosts]
        measurement_seconds = 0.0
        for interval in chain((FIRST_MEASUREMENT_SECONDS, FIRST_MEASUREMENT_SECONDS), repeat(INTERVAL_SECONDS)):
            if end_event.wait(max(interval, measurement_seconds / MAX_SHARE)):
                return
            start_time = time.monotonic()
            try:
                with _measurement_lock:
                    for recorder in recorders:
                        recorder.record()
            except Exception:
                logger.exception("the use of resources cannot be measured")
                return
            measurement_seconds = time.monotonic() - start_time

    def measure_disk(self) -> float:
        """Return the used part of the file system in percent."""
        usage = shutil.disk_usage(self.disk)
        return 100.0 * usage.used / usage.total


class _Recorder:
    """Records the use of resources by one host."""

    def __init__(self, meter: Meter, host: Host) -> None:
        self._meter = meter
        self._host = host
        self._dimensions = meter.make_dimensions(host.name)
        self._last_measurement: tuple[float, float] | None = None
        """The time of the last measurement, by the monotonic clock, and the CPU seconds until this time."""

    def record(self) -> None:
        """Record one measurement, if the host can be measured."""
        if (usage := self._host.measure()) is None:
            return
        values = {
            "MemoryUtilization": 100.0 * usage.memory_bytes / usage.memory_limit_bytes,
            "DiskUtilization": self._meter.measure_disk(),
            **self._compute_cpu(usage),
            **_sum_gpus(usage),
        }
        self._meter.metrics.record(self._meter.namespace, self._dimensions, values, unit="Percent")

    def _compute_cpu(self, usage: HostUsage) -> Mapping[str, float]:
        """Return the percentage of one CPU that the host used since the last measurement, as AWS counts it."""
        now, earlier = time.monotonic(), self._last_measurement
        self._last_measurement = now, usage.cpu_seconds
        if earlier is None:
            return {}
        return {"CPUUtilization": max(0.0, 100.0 * (usage.cpu_seconds - earlier[1]) / (now - earlier[0]))}


def _sum_gpus(usage: HostUsage) -> Mapping[str, float]:
    """Return the sums over all GPUs, as on AWS: two busy GPUs are 200 percent."""
    if not usage.gpus:
        return {}
    return {
        "GPUUtilization": sum(gpu.utilization for gpu in usage.gpus),
        "GPUMemoryUtilization": sum(gpu.memory_utilization for gpu in usage.gpus),
    }
