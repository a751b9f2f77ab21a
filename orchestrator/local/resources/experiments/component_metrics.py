"""Summaries of the metrics of trial components."""

from math import sqrt
from typing import Any

from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.metrics.tables import Point
from microjobs_orchestrator.local.resources.training.job import NAMESPACE as TRAINING_NAMESPACE
from microjobs_orchestrator.local.state import Record

COMPONENT_NAMESPACE = ":trial-components"
"""Namespace of the series of trial components. Clients of CloudWatch do not see these series; see
`Series.is_hidden`."""


def summarize(metrics: MetricStore, component: Record) -> list[dict[str, Any]]:
    """Return the summaries of a component's metrics: metrics that clients sent, and metrics in the log of its job."""
    source = component.description.get("Source", {}).get("SourceArn", component.arn)
    namespaces_and_dimensions = [(COMPONENT_NAMESPACE, {"TrialComponentName": component.name})]
    if ":training-job/" in source:
        namespaces_and_dimensions.append((TRAINING_NAMESPACE, {"TrainingJobName": source.rpartition("/")[2]}))
    return [
        {"MetricName": series.name, "SourceArn": source, **_summarize_points(points)}
        for namespace, dimensions in namespaces_and_dimensions
        for series, _ in metrics.list_series(namespace, dimensions=dimensions)
        if (points := metrics.read(series))
    ]


def _summarize_points(points: list[Point]) -> dict[str, float]:
    statistics = [point.statistics for point in points]
    count, total = sum(item.count for item in statistics), sum(item.total for item in statistics)
    mean = total / count
    # For a point with several samples, only the mean of the samples is used: the result is the deviation of the means.
    variance = sum(item.count * (item.total / item.count - mean) ** 2 for item in statistics) / count
    last_statistics = statistics[-1]
    return {
        "TimeStamp": points[-1].time,
        "Max": max(item.maximum for item in statistics),
        "Min": min(item.minimum for item in statistics),
        "Last": last_statistics.total / last_statistics.count,
        "Count": int(count),
        "Avg": mean,
        "StdDev": sqrt(variance),
    }
