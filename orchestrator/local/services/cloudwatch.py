"""CloudWatch's metrics: the metrics of jobs and endpoints, and the metrics that clients put.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/Welcome.html
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.metrics import metric_queries
from microjobs_orchestrator.local.metrics.metric_data import read_datum
from microjobs_orchestrator.local.metrics.metric_reader import MetricReader
from microjobs_orchestrator.local.metrics.metric_requests import (
    Request,
    Span,
    check_statistic,
    make_value_error,
    read_span,
)
from microjobs_orchestrator.local.metrics.periods import STATISTICS, compute_statistic
from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.metrics.tables import Dimensions, Series
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.protocols.results import Service

MAX_POINTS = 1440
"""Maximum number of periods in a request for GetMetricStatistics."""
MAX_LISTED_METRICS = 500
"""Maximum number of metrics in a page of ListMetrics."""
MAX_DATA = 1000
"""Maximum number of items of MetricData in one request."""
ACTIVE_SECONDS = 3 * 3600.0
"""Maximum age of the newest point of a metric that counts as recently active."""

Response = Mapping[str, Any]


class CloudWatch:
    """CloudWatch's operations for metrics."""

    def __init__(self, metrics: MetricStore) -> None:
        self._metrics = metrics
        self._reader = MetricReader(metrics)

    def list_handlers(self) -> Service:
        return {
            "GetMetricData": self.get_metric_data,
            "GetMetricStatistics": self.get_metric_statistics,
            "ListMetrics": self.list_metrics,
            "PutMetricData": self.put_metric_data,
        }

    def put_metric_data(self, request: Request) -> Response:
        namespace, data = request["Namespace"], request.get("MetricData", [])
        if namespace.startswith("AWS/"):
            raise make_value_error(f"The value {namespace} for parameter Namespace is reserved: it begins with AWS/.")
        if not 0 < len(data) <= MAX_DATA:
            raise make_value_error(f"MetricData has {len(data)} items; it must have 1 to {MAX_DATA}.")
        parsed_data = [read_datum(datum, f"MetricData.member.{number}") for number, datum in enumerate(data, 1)]
        for datum in parsed_data:
            values = {datum.name: datum.statistics}
            self._metrics.record(namespace, datum.dimensions, values, datum.time, unit=datum.unit)
        return {}

    def list_metrics(self, request: Request) -> Response:
        filters = [(item["Name"], item.get("Value")) for item in request.get("Dimensions", ())]
        pairs = tuple((name, value) for name, value in filters if value is not None)
        series_with_times = self._metrics.list_series(
            request.get("Namespace"), request.get("MetricName"), required_dimensions=pairs
        )
        since = time.time() - ACTIVE_SECONDS if "RecentlyActive" in request else 0.0
        selected_series = [
            series
            for series, last_time in series_with_times
            if last_time >= since and not series.is_hidden and _matches(series.dimensions, filters)
        ]
        metrics = list({_get_identity(series): _describe(series) for series in selected_series}.values())
        page, token = cut_page(metrics, request, default_limit=MAX_LISTED_METRICS, code="InvalidParameterValue")
        return {"Metrics": page, **token}

    def get_metric_statistics(self, request: Request) -> Response:
        span = _read_statistics_request(request)
        names, percentiles = request.get("Statistics", ()), request.get("ExtendedStatistics", ())
        points = [
            {
                "Timestamp": begin,
                "Unit": series.unit,
                **{name: STATISTICS[name](statistics) for name in names},
                **_make_percentiles(percentiles, statistics),
            }
            for series in self._reader.find_series(request, request.get("Unit"))
            for begin, statistics in self._reader.read_statistics([series], span).items()
        ]
        return {"Label": request["MetricName"], "Datapoints": points}

    def get_metric_data(self, request: Request) -> Response:
        queries = metric_queries.read_queries(request["MetricDataQueries"])
        results = self._reader.compute_values(queries, partial(read_span, request))
        return metric_queries.make_page(request, queries, results)


def _read_statistics_request(request: Request) -> Span:
    """Return the time range and the period of a request for GetMetricStatistics. Raise ServiceError if the request is
    invalid."""
    percentiles = request.get("ExtendedStatistics", ())
    if not request.get("Statistics") and not percentiles:
        message = "At least one of the parameters Statistics and ExtendedStatistics must be specified."
        raise ServiceError("InvalidParameterCombination", message)
    for name in percentiles:
        check_statistic(name, "ExtendedStatistics", is_extended=True)
    span = read_span(request, request["Period"])
    if (count := (span.end - span.start) / span.period) > MAX_POINTS:
        message = f"You have requested up to {count:,.0f} datapoints, which exceeds the limit of {MAX_POINTS:,}"
        remedy = "increase Period, or decrease the time range"
        raise ServiceError("InvalidParameterCombination", f"{message}: {remedy}.")
    return span


def _matches(dimensions: Dimensions, filters: Sequence[tuple[str, str | None]]) -> bool:
    values = dict(dimensions)
    return all(name in values and value in (None, values[name]) for name, value in filters)


def _get_identity(series: Series) -> tuple[str, str, Dimensions]:
    return series.namespace, series.name, series.dimensions


def _describe(series: Series) -> Response:
    dimensions = [{"Name": name, "Value": value} for name, value in series.dimensions]
    return {"Namespace": series.namespace, "MetricName": series.name, "Dimensions": dimensions}


def _make_percentiles(names: Sequence[str], statistics: Statistics) -> Response:
    values = {name: value for name in names if (value := compute_statistic(name, statistics)) is not None}
    return {"ExtendedStatistics": values} if names else {}
