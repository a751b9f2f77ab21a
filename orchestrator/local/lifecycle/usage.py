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
from pathlib import Path

from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.runtimes.base import Host, Usage

logger = logging.getLogger(__name__)

FIRST_SECONDS = 1.0
"""Seconds from the start of a host to its first measurement, and from the first to the second."""
INTERVAL_SECONDS = 5.0
"""Seconds between later measurements."""


@dataclass(frozen=True)
class Meter:
    """Where the use of resources by the hosts of an attempt is recorded."""

    metrics: MetricStore
    namespace: str
    """CloudWatch's namespace, such as `/aws/sagemaker/TrainingJobs`."""
    make_dimensions: Callable[[str], Mapping[str, str]]
    """Returns the dimensions of a host by its name."""
    disk: Path
    """A folder of the file system whose used part is DiskUtilization."""

    @contextmanager
    def measure(self, hosts: Sequence[Host]) -> Iterator[None]:
        """Measure hosts until the block ends."""
        ended = threading.Event()
        threading.Thread(target=self._run, args=(hosts, ended), name="usage", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _run(self, hosts: Sequence[Host], ended: threading.Event) -> None:
        recorders = [_Recorder(self, host) for host in hosts]
        interval = FIRST_SECONDS
        while not ended.wait(interval):
            try:
                results = [recorder.record() for recorder in recorders]
            except Exception:
                logger.exception("the use of resources cannot be measured")
                return
            interval = INTERVAL_SECONDS if any(results) else interval

    def measure_disk(self) -> float:
        """Return the used part of the file system in percent."""
        found = shutil.disk_usage(self.disk)
        return 100.0 * found.used / found.total


class _Recorder:
    """Records the use of resources by one host."""

    def __init__(self, meter: Meter, host: Host) -> None:
        self._meter = meter
        self._host = host
        self._dimensions = meter.make_dimensions(host.name)
        self._earlier: tuple[float, float] | None = None
        """The time of the last measurement, by the monotonic clock, and the CPU seconds until then."""

    def record(self) -> bool:
        """Record one measurement. Return whether it has all metrics: CPUUtilization needs an earlier measurement."""
        usage = self._host.measure()
        if usage is None:
            return False
        processor = self._compute_cpu(usage)
        values = {
            "MemoryUtilization": 100.0 * usage.memory_bytes / usage.memory_limit,
            "DiskUtilization": self._meter.measure_disk(),
            **processor,
            **_sum_gpus(usage),
        }
        self._meter.metrics.record(self._meter.namespace, self._dimensions, values, unit="Percent")
        return bool(processor)

    def _compute_cpu(self, usage: Usage) -> Mapping[str, float]:
        """Return the percentage of one CPU that the host used since the last measurement, as AWS counts it."""
        now, earlier = time.monotonic(), self._earlier
        self._earlier = now, usage.cpu_seconds
        if earlier is None:
            return {}
        return {"CPUUtilization": max(0.0, 100.0 * (usage.cpu_seconds - earlier[1]) / (now - earlier[0]))}


def _sum_gpus(usage: Usage) -> Mapping[str, float]:
    """Return the sums over all GPUs, as on AWS: two busy GPUs are 200 percent."""
    if not usage.gpus:
        return {}
    return {
        "GPUUtilization": sum(gpu.utilization for gpu in usage.gpus),
        "GPUMemoryUtilization": sum(gpu.memory_utilization for gpu in usage.gpus),
    }
