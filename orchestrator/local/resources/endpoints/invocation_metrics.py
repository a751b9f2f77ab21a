"""CloudWatch's metrics of invocations.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
https://docs.aws.amazon.com/sagemaker/latest/dg/inference-pipeline-logs-metrics.html
https://docs.aws.amazon.com/sagemaker/latest/dg/multi-container-metrics.html
"""

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus

from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.resources.endpoints.exchanges import Exchange

NAMESPACE = "AWS/SageMaker"
INSTANCE_NAMESPACE = "/aws/sagemaker/Endpoints"
"""CloudWatch's namespace of the metrics of hosts."""
INVOCATIONS_PER_INSTANCE, INVOCATIONS_PER_COPY = "InvocationsPerInstance", "InvocationsPerCopy"


class InvocationMetrics:
    """Records the exchanges of one endpoint, or of one inference component.

    Args:
        ratio_name: the name of the metric that divides the invocations by the number of instances or copies.
    """

    def __init__(self, metrics: MetricStore, ratio_name: str = INVOCATIONS_PER_INSTANCE) -> None:
        self._metrics = metrics
        self._ratio_name = ratio_name
        self.replica_count_by_variant: Mapping[str, int] = {}
        """The number of instances or copies of each variant. A missing variant has one."""
        self._dimensions: dict[str, Mapping[str, str]] = {}
        """Dimensions by variant. They are made only once, because the store is faster if values share one dimensions
        object."""

    def record(self, exchange: Exchange, dimensions: Mapping[str, str] | None = None) -> None:
        """Record one exchange, by default with the dimensions of its variant."""
        dimensions = dimensions or self._dimensions.get(exchange.variant)
        if dimensions is None:
            dimensions = {"EndpointName": exchange.endpoint, "VariantName": exchange.variant}
            self._dimensions[exchange.variant] = dimensions
        latencies = {
            "ModelLatency": exchange.model_seconds * 1e6,
            "OverheadLatency": exchange.overhead_seconds * 1e6,
        }
        self._metrics.record(NAMESPACE, dimensions, self._count(exchange))
        self._metrics.record(NAMESPACE, dimensions, latencies, unit="Microseconds")
        for container, seconds in exchange.container_seconds.items():
            self._record_container(exchange, {**dimensions, "ContainerName": container}, seconds)

    def _record_container(self, exchange: Exchange, dimensions: Mapping[str, str], seconds: float) -> None:
        """Record one container's part of an exchange. If the request names the container, no other container takes
        part, so record all metrics of the exchange."""
        latencies = {"ContainerLatency": seconds * 1e6}
        if exchange.request.target.container is not None:
            latencies["OverheadLatency"] = exchange.overhead_seconds * 1e6
            self._metrics.record(NAMESPACE, dimensions, self._count(exchange))
        self._metrics.record(NAMESPACE, dimensions, latencies, unit="Microseconds")

    def _count(self, exchange: Exchange) -> Mapping[str, float]:
        return count_invocation(
            exchange.status, self._ratio_name, self.replica_count_by_variant.get(exchange.variant, 1)
        )


def record_setup(metrics: MetricStore, endpoint: str, variant: str, seconds: float) -> None:
    """Record the seconds that the container of an idle serverless variant took to start."""
    dimensions = {"EndpointName": endpoint, "VariantName": variant}
    metrics.record(NAMESPACE, dimensions, {"ModelSetupTime": seconds * 1e6}, unit="Microseconds")


@cache
def count_invocation(status: int | None, ratio_name: str, replica_count: int) -> Mapping[str, float]:
    """Return the counts of one invocation.

    Args:
        status: the status of the container's response; None if there is no complete response.
        replica_count: the number of instances or copies, which share the invocations.
    """
    code = status or 0
    return {
        "Invocations": 1.0,
        ratio_name: 1.0 / max(1, replica_count),
        "Invocation4XXErrors": float(HTTPStatus.BAD_REQUEST <= code < HTTPStatus.INTERNAL_SERVER_ERROR),
        "Invocation5XXErrors": float(code >= HTTPStatus.INTERNAL_SERVER_ERROR),
        "InvocationModelErrors": float(not HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES),
    }
