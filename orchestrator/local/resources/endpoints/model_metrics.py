"""CloudWatch's metrics of multi-model endpoints.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/multi-model-endpoint-cloudwatch-metrics.html
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.endpoints.invocation_metrics import INSTANCE_NAMESPACE, NAMESPACE

DOWNLOADING, LOADING, UNLOADING = "ModelDownloadingTime", "ModelLoadingTime", "ModelUnloadingTime"


class ModelMetrics:
    """Records the loads of the models of one variant."""

    def __init__(self, metrics: MetricStore, endpoint: str, variant: str) -> None:
        self._metrics = metrics
        self._dimensions = {"EndpointName": endpoint, "VariantName": variant}

    def record_request(self, loaded_model_count: int, *, was_loaded: bool) -> None:
        """Record whether the model of a request was loaded before, and the current number of loaded models."""
        self._metrics.record(NAMESPACE, self._dimensions, {"ModelCacheHit": float(was_loaded)})
        self._metrics.record(INSTANCE_NAMESPACE, self._dimensions, {"LoadedModelCount": float(loaded_model_count)})

    def record_wait(self, seconds: float) -> None:
        """Record the time that a request has waited for its model."""
        self._record_time("ModelLoadingWaitTime", seconds)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Record the time of a block that ends without an error."""
        start_time = time.monotonic()
        yield
        self._record_time(name, time.monotonic() - start_time)

    def _record_time(self, name: str, seconds: float) -> None:
        self._metrics.record(NAMESPACE, self._dimensions, {name: seconds * 1e6}, unit="Microseconds")
