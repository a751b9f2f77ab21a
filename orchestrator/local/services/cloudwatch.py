"""CloudWatch's metrics: those of jobs and endpoints, and those that clients put.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/Welcome.html
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.metrics.periods import MINUTE, STATISTICS, align, compute, is_statistic, split
from microjobs_orchestrator.local.metrics.statistics import Statistics
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.metrics.tables import Dimensions, Series
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.protocols.answer import Service
from microjobs_orchestrator.local.services import metric_math
from microjobs_orchestrator.local.services.metric_data import read_datum

SHORT_PERIODS = (1, 5, 10, 20, 30)
"""Periods in seconds that are no multiples of a minute."""
MAX_STATISTICS_POINTS = 1440
MAX_DATA_POINTS = 100_800
MAX_QUERIES = 500
MAX_LISTED = 500
MAX_DATA = 1000
"""Maximum number of MetricData in one request."""
ACTIVE_SECONDS = 3 * 3600.0

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
Values = Mapping[float, float]
"""The values of a metric by time."""


class CloudWatch:
    """The service."""

    def __init__(self, metrics: MetricStore) -> None:
        self._metrics = metrics

    def operations(self) -> Service:
        return {
            "GetMetricData": self.get_metric_data,
            "GetMetricStatistics": self.get_metric_statistics,
            "ListMetrics": self.list_metrics,
            "PutMetricData": self.put_metric_data,
        }

    def put_metric_data(self, request: Request) -> Answer:
        namespace, data = request["Namespace"], request.get("MetricData", [])
        if namespace.startswith("AWS/"):
            raise _make_value_error(f"The value {namespace} for parameter Namespace is reserved: it begins with AWS/.")
        if not 0 < len(data) <= MAX_DATA:
            raise _make_value_error(f"MetricData has {len(data)} items; it must have 1 to {MAX_DATA}.")
        read = [read_datum(datum, f"MetricData.member.{number}") for number, datum in enumerate(data, 1)]
        for datum in read:
            values = {datum.name: datum.statistics}
            self._metrics.record(namespace, datum.dimensions, values, datum.time, unit=datum.unit)
        return {}

    def list_metrics(self, request: Request) -> Answer:
        listed = self._metrics.list_series(request.get("Namespace"), request.get("MetricName"))
        since = time.time() - ACTIVE_SECONDS if "RecentlyActive" in request else 0.0
        filters = [(item["Name"], item.get("Value")) for item in request.get("Dimensions", ())]
        found = [
            series
            for series, last in listed
            if last >= since and not series.namespace.startswith(":") and _matches(series.dimensions, filters)
        ]
        metrics = list({_get_identity(series): _describe(series) for series in found}.values())
        page, token = cut_page(metrics, request, default_limit=MAX_LISTED, code="InvalidParameterValue")
        return {"Metrics": page, **token}

    # --- statistics ---

    def get_metric_statistics(self, request: Request) -> Answer:
        names, percentiles = request.get("Statistics", []), request.get("ExtendedStatistics", [])
        if not names and not percentiles:
            message = "At least one of the parameters Statistics and ExtendedStatistics must be specified."
            raise ServiceError("InvalidParameterCombination", message)
        for name in percentiles:
            _check_statistic(name, "ExtendedStatistics", is_extended=True)
        start, end, period = _read_times(request, request["Period"])
        if (count := (end - start) / period) > MAX_STATISTICS_POINTS:
            message = (
                f"You have requested up to {count:,.0f} datapoints, which exceeds the limit of "
                f"{MAX_STATISTICS_POINTS:,}. You may reduce the datapoints requested by increasing Period, "
                "or decreasing the time range."
            )
            raise ServiceError("InvalidParameterCombination", message)
        points = [
            {
                "Timestamp": begin,
                "Unit": series.unit,
                **{name: STATISTICS[name](statistics) for name in names},
                **_make_percentiles(percentiles, statistics),
            }
            for series in self._find_series(request, request.get("Unit"))
            for begin, statistics in split(self._metrics.read(series, start, end), start, period).items()
        ]
        return {"Label": request["MetricName"], "Datapoints": points}

    def _find_series(self, metric: Request, unit: str | None) -> list[Series]:
        dimensions = {item["Name"]: item["Value"] for item in metric.get("Dimensions", ())}
        found = self._metrics.find_units(metric["Namespace"], metric["MetricName"], dimensions)
        return [series for series in found if unit in (None, series.unit)]

    # --- data ---

    def get_metric_data(self, request: Request) -> Answer:
        queries = _read_queries(request["MetricDataQueries"])
        computed: dict[str, Values] = {}
        for name in _sort_by_use(queries):
            computed[name] = self._compute(queries[name], computed, request)
        shown = [query for query in queries.values() if query.get("ReturnData", True)]
        is_ascending = request.get("ScanBy") == "TimestampAscending"
        points = [
            (query["Id"], time_, computed[query["Id"]][time_])
            for query in shown
            for time_ in sorted(computed[query["Id"]], reverse=not is_ascending)
        ]
        limit = {"MaxResults": request.get("MaxDatapoints", MAX_DATA_POINTS)}
        if not 0 < limit["MaxResults"] <= MAX_DATA_POINTS:
            raise _make_validation_error(f"MaxDatapoints must be from 1 to {MAX_DATA_POINTS}.")
        token = {"NextToken": request["NextToken"]} if "NextToken" in request else {}
        page, next_token = cut_page(points, {**limit, **token}, code="InvalidNextToken")
        begin = int(request.get("NextToken") or 0)
        rest = {name for name, _, _ in islice(points, begin + len(page), None)}
        results = [_make_result(query, page, is_complete=query["Id"] not in rest) for query in shown]
        return {"MetricDataResults": results, "Messages": [], **next_token}

    def _compute(self, query: Request, computed: Mapping[str, Values], request: Request) -> Values:
        if "Expression" in query:
            return _evaluate(query, computed)
        stat = query["MetricStat"]
        start, end, period = _read_times(request, stat["Period"])
        points = [
            point
            for series in self._find_series(stat["Metric"], stat.get("Unit"))
            for point in self._metrics.read(series, start, end)
        ]
        values = {begin: compute(stat["Stat"], found) for begin, found in split(points, start, period).items()}
        return {begin: value for begin, value in values.items() if value is not None}


def _evaluate(query: Request, computed: Mapping[str, Values]) -> Values:
    expression = query["Expression"]
    try:
        result = metric_math.evaluate(metric_math.parse(expression), computed)
    except RecursionError as error:
        raise _make_validation_error(f"The expression of {query['Id']} is too long: split it.") from error
    if isinstance(result, float):
        raise _make_validation_error(f"Expression {expression!r} of {query['Id']} has no metric: add an id.")
    return result


# --- requests ---


def _make_value_error(message: str) -> ServiceError:
    return ServiceError("InvalidParameterValue", message)


def _make_validation_error(message: str) -> ServiceError:
    return ServiceError("ValidationError", message)


def _check_statistic(name: str, member: str, *, is_extended: bool = False) -> None:
    if not is_statistic(name) or (is_extended and name in STATISTICS):
        supported = "" if is_extended else f"{', '.join(STATISTICS)} and "
        raise _make_value_error(f"{member} {name!r:.100} is not supported here: use {supported}p0 to p100.")


def _read_times(request: Request, period: int) -> tuple[float, float, int]:
    """Return the begin of the first period, the end, and the length of a period."""
    start, end = float(request["StartTime"]), float(request["EndTime"])
    if start >= end:
        raise _make_value_error("The parameter StartTime must be less than the parameter EndTime.")
    if period not in SHORT_PERIODS and period % MINUTE:
        message = f"Period {period} must be 1, 5, 10, 20, 30 or a multiple of {MINUTE}."
        raise _make_value_error(message)
    return align(start, period), end, period


def _read_queries(queries: Sequence[Request]) -> dict[str, Request]:
    """Return the queries by id. Raise ServiceError ValidationError if they are invalid or not supported."""
    if not 0 < len(queries) <= MAX_QUERIES:
        raise _make_validation_error(f"MetricDataQueries has {len(queries)} items; it must have 1 to {MAX_QUERIES}.")
    by_id = {query["Id"]: query for query in queries}
    if len(by_id) < len(queries):
        raise _make_validation_error("MetricDataQueries has an Id twice: use unique ids.")
    for query in queries:
        name = query["Id"]
        if not (name[:1].islower() and name.isidentifier() and name.isascii()):
            raise _make_validation_error(
                f"Id {name!r:.100} must begin with a lowercase letter, then letters, digits, _."
            )
        if ("Expression" in query) == ("MetricStat" in query):
            raise _make_validation_error(f"{name} must have either MetricStat or Expression.")
        if "MetricStat" in query:
            _check_statistic(query["MetricStat"]["Stat"], "Stat")
    return by_id


def _sort_by_use(queries: Mapping[str, Request]) -> Iterator[str]:
    """Yield the ids so that an expression comes after the queries that it uses."""
    pending = {name: _list_used_ids(query, queries) for name, query in queries.items()}
    while pending:
        ready = [name for name, used in pending.items() if not used & pending.keys()]
        if not ready:
            raise _make_validation_error(f"The expressions of {', '.join(pending)} use each other in a circle.")
        yield from ready
        pending = {name: used for name, used in pending.items() if name not in ready}


def _list_used_ids(query: Request, queries: Mapping[str, Request]) -> set[str]:
    if "Expression" not in query:
        return set()
    try:
        used = set(metric_math.list_ids(metric_math.parse(query["Expression"])))
    except metric_math.UnsupportedExpressionError as error:
        message = f"Not supported here: Expression {query['Expression']!r:.100} of {query['Id']} ({error})"
        raise _make_validation_error(message) from error
    if unknown := used - queries.keys():
        raise _make_validation_error(f"The expression of {query['Id']} uses unknown ids: {', '.join(sorted(unknown))}.")
    return used


def _matches(dimensions: Dimensions, filters: Sequence[tuple[str, str | None]]) -> bool:
    values = dict(dimensions)
    return all(name in values and value in (None, values[name]) for name, value in filters)


# --- results ---


def _get_identity(series: Series) -> tuple[str, str, Dimensions]:
    return series.namespace, series.name, series.dimensions


def _describe(series: Series) -> Answer:
    dimensions = [{"Name": name, "Value": value} for name, value in series.dimensions]
    return {"Namespace": series.namespace, "MetricName": series.name, "Dimensions": dimensions}


def _make_percentiles(names: Sequence[str], statistics: Statistics) -> Answer:
    values = {name: value for name in names if (value := compute(name, statistics)) is not None}
    return {"ExtendedStatistics": values} if names else {}


def _make_result(query: Request, page: Sequence[tuple[str, float, float]], *, is_complete: bool) -> Answer:
    own = [(time_, value) for name, time_, value in page if name == query["Id"]]
    metric = query.get("MetricStat", {}).get("Metric", {})
    return {
        "Id": query["Id"],
        "Label": query.get("Label") or metric.get("MetricName", query["Id"]),
        "Timestamps": [time_ for time_, _ in own],
        "Values": [value for _, value in own],
        "StatusCode": "Complete" if is_complete else "PartialData",
    }
