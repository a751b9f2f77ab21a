"""The queries of GetMetricData: their checks, their order, and the pages of their results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.metrics import metric_math
from microjobs_orchestrator.local.metrics.metric_math import ValuesByTime
from microjobs_orchestrator.local.metrics.metric_requests import Request, check_statistic
from microjobs_orchestrator.local.pages import cut_page

MAX_POINTS = 100_800
MAX_QUERIES = 500

Query = Mapping[str, Any]
ResultPoint = tuple[str, float, float]
"""The id of a query, a time and a value."""


def _make_error(message: str) -> ServiceError:
    return ServiceError("ValidationError", message)


# --- checks ---


def read_queries(queries: Sequence[Query]) -> dict[str, Query]:
    """Return the queries by id. Raise ServiceError if they are invalid or not supported."""
    if not 0 < len(queries) <= MAX_QUERIES:
        raise _make_error(f"MetricDataQueries has {len(queries)} items; it must have 1 to {MAX_QUERIES}.")
    queries_by_id = {query["Id"]: query for query in queries}
    if len(queries_by_id) < len(queries):
        raise _make_error("MetricDataQueries has an Id twice: use unique ids.")
    for query in queries:
        _check_query(query)
    return queries_by_id


def _check_query(query: Query) -> None:
    query_id = query["Id"]
    if not (query_id[:1].islower() and query_id.isidentifier() and query_id.isascii()):
        raise _make_error(f"Id {query_id!r:.100} must begin with a lowercase letter, then letters, digits, _.")
    if ("Expression" in query) == ("MetricStat" in query):
        raise _make_error(f"{query_id} must have either MetricStat or Expression.")
    if "MetricStat" in query:
        check_statistic(query["MetricStat"]["Stat"], "Stat")


def sort_by_use(queries: Mapping[str, Query]) -> Iterator[str]:
    """Yield the ids so that an expression comes after the queries that it uses."""
    pending = {query_id: _list_used_ids(query, queries) for query_id, query in queries.items()}
    while pending:
        ready = [query_id for query_id, used_ids in pending.items() if not used_ids & pending.keys()]
        if not ready:
            raise _make_error(f"The expressions of {', '.join(pending)} use each other in a circle.")
        yield from ready
        pending = {query_id: used_ids for query_id, used_ids in pending.items() if query_id not in ready}


def _list_used_ids(query: Query, queries: Mapping[str, Query]) -> set[str]:
    if "Expression" not in query:
        return set()
    try:
        used_ids = set(metric_math.list_ids(metric_math.parse(query["Expression"])))
    except metric_math.UnsupportedExpressionError as error:
        message = f"Not supported here: Expression {query['Expression']!r:.100} of {query['Id']} ({error})"
        raise _make_error(message) from error
    if unknown := used_ids - queries.keys():
        raise _make_error(f"The expression of {query['Id']} uses unknown ids: {', '.join(sorted(unknown))}.")
    return used_ids


# --- results ---


def evaluate(query: Query, values_by_id: Mapping[str, ValuesByTime]) -> ValuesByTime:
    """Return the values of an expression, which uses the values of other queries."""
    expression = query["Expression"]
    try:
        result = metric_math.evaluate(metric_math.parse(expression), values_by_id)
    except RecursionError as error:
        raise _make_error(f"The expression of {query['Id']} is too long: split it.") from error
    if isinstance(result, float):
        raise _make_error(f"Expression {expression!r:.100} of {query['Id']} has no metric: add an id.")
    return result


def make_page(
    request: Request, queries: Mapping[str, Query], values_by_id: Mapping[str, ValuesByTime]
) -> Mapping[str, Any]:
    """Return the requested page of the results: the values of the queries, one after the other."""
    limit = request.get("MaxDatapoints", MAX_POINTS)
    if not 0 < limit <= MAX_POINTS:
        raise _make_error(f"MaxDatapoints {limit} must be from 1 to {MAX_POINTS}.")
    returned_queries = [query for query in queries.values() if query.get("ReturnData", True)]
    points = _list_points(returned_queries, values_by_id, is_ascending=request.get("ScanBy") == "TimestampAscending")
    page_request = {"MaxResults": limit, "NextToken": request.get("NextToken")}
    page, token = cut_page(points, page_request, code="InvalidNextToken")
    begin = int(request.get("NextToken") or 0)
    incomplete_ids = {query_id for query_id, _, _ in points[begin + len(page) :]}
    results = [_make_result(query, page, is_complete=query["Id"] not in incomplete_ids) for query in returned_queries]
    return {"MetricDataResults": results, "Messages": [], **token}


def _list_points(
    queries: Sequence[Query], values_by_id: Mapping[str, ValuesByTime], *, is_ascending: bool
) -> list[ResultPoint]:
    return [
        (query["Id"], time, values_by_id[query["Id"]][time])
        for query in queries
        for time in sorted(values_by_id[query["Id"]], reverse=not is_ascending)
    ]


def _make_result(query: Query, page: Sequence[ResultPoint], *, is_complete: bool) -> Mapping[str, Any]:
    points = [(time, value) for query_id, time, value in page if query_id == query["Id"]]
    metric = query.get("MetricStat", {}).get("Metric", {})
    return {
        "Id": query["Id"],
        "Label": query.get("Label") or metric.get("MetricName", query["Id"]),
        "Timestamps": [time for time, _ in points],
        "Values": [value for _, value in points],
        "StatusCode": "Complete" if is_complete else "PartialData",
    }
