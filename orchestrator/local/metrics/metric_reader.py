"""The values of the metrics that a request or an alarm names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.metrics import metric_queries
from microjobs_orchestrator.local.metrics.metric_math import ValuesByTime
from microjobs_orchestrator.local.metrics.metric_queries import Query
from microjobs_orchestrator.local.metrics.metric_requests import Span
from microjobs_orchestrator.local.metrics.periods import compute_statistic, summarize_periods
from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.metrics.tables import Series


class MetricReader:
    """Reads the statistics and the values of metrics from a store."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store

    def find_series(self, metric: Mapping[str, Any], unit: str | None) -> list[Series]:
        """Return the series of a metric, one for each unit; with `unit`, only the series in this unit."""
        dimensions = {item["Name"]: item["Value"] for item in metric.get("Dimensions", ())}
        series_list = self._store.find_series(metric["Namespace"], metric["MetricName"], dimensions)
        return [series for series in series_list if unit in (None, series.unit)]

    def read_statistics(self, series_list: Sequence[Series], span: Span) -> Mapping[float, Statistics]:
        """Return the statistics of all series together, by the start of the period."""
        points = [point for series in series_list for point in self._store.read(series, span.start, span.end)]
        return summarize_periods(points, span.start, span.period)

    def compute_values(
        self, queries: Mapping[str, Query], make_span: Callable[[int], Span]
    ) -> Mapping[str, ValuesByTime]:
        """Return the values of all queries by id.

        Args:
            make_span: takes a period in seconds, and returns the time span to read. It may raise ServiceError.
        """
        values_by_id: dict[str, ValuesByTime] = {}
        for name in metric_queries.sort_by_use(queries):
            query = queries[name]
            has_metric = "MetricStat" in query
            values_by_id[name] = (
                self._compute_metric(query["MetricStat"], make_span)
                if has_metric
                else metric_queries.evaluate(query, values_by_id)
            )
        return values_by_id

    def _compute_metric(self, stat: Mapping[str, Any], make_span: Callable[[int], Span]) -> ValuesByTime:
        statistics_by_time = self.read_statistics(
            self.find_series(stat["Metric"], stat.get("Unit")), make_span(stat["Period"])
        )
        values = {
            begin: compute_statistic(stat["Stat"], statistics) for begin, statistics in statistics_by_time.items()
        }
        return {begin: value for begin, value in values.items() if value is not None}
