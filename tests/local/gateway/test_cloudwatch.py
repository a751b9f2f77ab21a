"""CloudWatch's metrics, through boto3 over HTTP, in each protocol that clients use."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.config import Config

from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.services import cloudwatch
from microjobs_orchestrator.local.services.cloudwatch import CloudWatch
from tests.local.gateway.conftest import CREDENTIALS, run_gateway
from tests.local.gateway.test_application import get_error

PROTOCOLS = ["json", "smithy-rpc-v2-cbor", "query"]
"""boto3 uses "json" since 2025, and "query" in older versions. Other SDKs use "smithy-rpc-v2-cbor"."""

START_TIME = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
DIMENSIONS = [{"Name": "EndpointName", "Value": "größe & <x>"}, {"Name": "VariantName", "Value": "v"}]
METRIC = {"Namespace": "own", "MetricName": "latency", "Dimensions": DIMENSIONS}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricStore]:
    store = MetricStore(tmp_path_factory.mktemp("metrics") / "metrics.db")
    yield store
    store.close()


@pytest.fixture(autouse=True)
def _remove_all_metrics(metrics: MetricStore) -> None:
    for series, _ in metrics.list_series():
        metrics.remove(series.namespace, dict(series.dimensions), 0.0)


@pytest.fixture(scope="module")
def address(metrics: MetricStore) -> Iterator[str]:
    with run_gateway({"cloudwatch": CloudWatch(metrics).list_handlers()}) as url:
        yield url


@cache
def make_session(protocol: str) -> boto3.Session:
    """Return a session whose clients use a protocol. If `protocol` is empty, boto3 chooses the protocol."""
    session = boto3.Session(CREDENTIALS.access_key_id, CREDENTIALS.secret_access_key, region_name="us-east-1")
    loader = session._session.get_component("data_loader")
    load = loader.load_service_model

    def load_with_protocol(name: str, type_name: str, *arguments: Any, **options: Any) -> Any:
        model = load(name, type_name, *arguments, **options)
        if name == "cloudwatch" and type_name == "service-2" and protocol:
            return {**model, "metadata": {**model["metadata"], "protocol": protocol, "protocols": [protocol]}}
        return model

    loader.load_service_model = load_with_protocol
    return session


def make_client(address: str, protocol: str = "") -> Any:
    session = make_session(protocol)
    return session.client("cloudwatch", endpoint_url=address, config=Config(retries={"total_max_attempts": 1}))


@pytest.fixture
def client(address: str) -> Any:
    return make_client(address)


def put(client: Any, *values: float, name: str = "latency", seconds: float = 0, **members: Any) -> None:
    """Put one value per second. The time of the first value is START_TIME plus `seconds`."""
    data = [
        {
            "MetricName": name,
            "Dimensions": DIMENSIONS,
            "Value": value,
            "Timestamp": START_TIME + timedelta(seconds=seconds + number),
            **members,
        }
        for number, value in enumerate(values)
    ]
    client.put_metric_data(Namespace="own", MetricData=data)


def make_query(name: str, stat: str = "Average", period: int = 60, metric: Any = METRIC, **members: Any) -> Any:
    return {"Id": name, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}, **members}


def get_data(client: Any, *queries: Any, **members: Any) -> dict[str, Any]:
    times = {"StartTime": START_TIME, "EndTime": START_TIME + timedelta(minutes=5)}
    answer: dict[str, Any] = client.get_metric_data(MetricDataQueries=list(queries), **times, **members)
    return answer


def get_statistics(client: Any, period: int = 60, **members: Any) -> list[dict[str, Any]]:
    times = {"StartTime": START_TIME, "EndTime": START_TIME + timedelta(minutes=5)}
    points: list[dict[str, Any]] = client.get_metric_statistics(**{**METRIC, **times, "Period": period, **members})[
        "Datapoints"
    ]
    return points


# --- every protocol ---


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metrics_are_put_listed_and_read_in_each_protocol(address: str, protocol: str) -> None:
    client = make_client(address, protocol)
    put(client, 1, 2, 6.5, Unit="Milliseconds")
    (point,) = get_statistics(client, Statistics=["Average", "SampleCount", "Maximum"], ExtendedStatistics=["p50"])
    assert point == {
        "Timestamp": START_TIME,
        "SampleCount": 3.0,
        "Average": 9.5 / 3,
        "Maximum": 6.5,
        "Unit": "Milliseconds",
        "ExtendedStatistics": {"p50": 2.0},
    }
    assert client.list_metrics(Namespace="own")["Metrics"] == [METRIC]
    (result,) = get_data(client, make_query("m", "Sum"))["MetricDataResults"]
    assert (result["Timestamps"], result["Values"], result["StatusCode"]) == ([START_TIME], [9.5], "Complete")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_error_is_readable_in_each_protocol(address: str, protocol: str) -> None:
    client = make_client(address, protocol)
    code, message, status = get_error(client.put_metric_data, Namespace="AWS/EC2", MetricData=[{"MetricName": "m"}])
    assert (code, status) == ("InvalidParameterValue", 400)
    assert "begins with AWS/" in message
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.put_metric_data(Namespace="AWS/EC2", MetricData=[{"MetricName": "m", "Value": 1}])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_large_requests_are_decompressed(address: str, protocol: str) -> None:
    client = make_client(address, protocol)
    put(client, *range(500), seconds=-600, name="n" * 200)
    assert client.list_metrics()["Metrics"][0]["MetricName"] == "n" * 200


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unknown_operation_is_reported_in_each_protocol(address: str, protocol: str) -> None:
    code, message, _ = get_error(make_client(address, protocol).describe_alarms)
    assert code == "UnknownOperationException"
    assert "'DescribeAlarms' of cloudwatch is not supported" in message


# --- PutMetricData ---


def test_values_with_counts_have_percentiles(client: Any) -> None:
    datum = {"MetricName": "latency", "Dimensions": DIMENSIONS, "Values": [1, 10, 100], "Counts": [90, 9, 1]}
    client.put_metric_data(Namespace="own", MetricData=[{**datum, "Timestamp": START_TIME}])
    (point,) = get_statistics(client, Statistics=["Sum"], ExtendedStatistics=["p90", "p99", "p99.9"])
    assert point["ExtendedStatistics"] == {"p90": 1.0, "p99": 10.0, "p99.9": 100.0}
    assert point["Sum"] == 280


def test_statistic_set_is_merged_and_has_no_percentiles(client: Any) -> None:
    values = {"SampleCount": 4, "Sum": 10, "Minimum": 1, "Maximum": 5}
    datum = {"MetricName": "latency", "Dimensions": DIMENSIONS, "Timestamp": START_TIME, "StatisticValues": values}
    client.put_metric_data(Namespace="own", MetricData=[datum])
    put(client, 20)
    (point,) = get_statistics(client, Statistics=["Average", "Minimum", "Maximum"], ExtendedStatistics=["p50"])
    assert (point["Average"], point["Minimum"], point["Maximum"]) == (6, 1, 20)
    assert point["ExtendedStatistics"] == {}


@pytest.mark.parametrize(
    ("datum", "message"),
    [
        ({}, "must have one of Value, Values and StatisticValues, but it has none of them"),
        ({"Value": 1, "Values": [1]}, "but it has Value, Values"),
        ({"Value": 2.0**361}, "from -2^360 to 2^360"),
        ({"Values": [1], "Counts": [1, 2]}, "Counts has 2 items, but Values has 1"),
        ({"Values": [1], "Counts": [0]}, "Counts must be greater than 0"),
        ({"Values": list(range(151))}, "it must have 1 to 150"),
        ({"Value": 1, "Timestamp": datetime(2020, 1, 1, tzinfo=UTC)}, "two weeks in the past"),
        ({"Value": 1, "Dimensions": [DIMENSIONS[0], DIMENSIONS[0]]}, "Dimensions has a name twice"),
        ({"StatisticValues": {"SampleCount": 0, "Sum": 0, "Minimum": 0, "Maximum": 0}}, "positive SampleCount"),
    ],
)
def test_invalid_data_are_refused(client: Any, datum: dict[str, Any], message: str) -> None:
    valid_datum = {"MetricName": "latency", "Value": 1}
    data = [valid_datum, {"MetricName": "m", **datum}]
    code, text, _ = get_error(client.put_metric_data, Namespace="own", MetricData=data)
    assert code in ("InvalidParameterValue", "InvalidParameterCombination")
    assert message in text
    assert "MetricData.member.2" in text
    assert client.list_metrics()["Metrics"] == []


def test_value_without_a_time_gets_the_current_time(client: Any, metrics: MetricStore) -> None:
    start_time = time.time()
    client.put_metric_data(Namespace="own", MetricData=[{"MetricName": "m", "Value": 1}])
    ((_, last_time),) = metrics.list_series()
    assert start_time - 1 <= last_time <= time.time()


# --- ListMetrics ---


def test_metrics_are_filtered_by_name_and_dimensions(client: Any) -> None:
    put(client, 1)
    put(client, 1, name="other")
    client.put_metric_data(Namespace="space", MetricData=[{"MetricName": "latency", "Value": 1}])

    def count(**members: Any) -> int:
        return len(client.list_metrics(**members)["Metrics"])

    assert count() == 3
    assert count(Namespace="own") == 2
    assert count(MetricName="latency") == 2
    assert count(Dimensions=[{"Name": "VariantName"}]) == 2
    assert count(Dimensions=[{"Name": "VariantName", "Value": "w"}]) == 0
    assert count(MetricName="other", Dimensions=[{"Name": "VariantName", "Value": "v"}]) == 1


def test_metrics_are_listed_in_pages(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudwatch, "MAX_LISTED_METRICS", 2)
    for number in range(5):
        put(client, 1, name=f"m{number}")
    pages = [len(page["Metrics"]) for page in client.get_paginator("list_metrics").paginate()]
    assert pages == [2, 2, 1]


def test_metrics_of_two_units_are_listed_once(client: Any) -> None:
    put(client, 1, Unit="Seconds")
    put(client, 1, Unit="Count")
    assert client.list_metrics()["Metrics"] == [METRIC]
    assert {point["Unit"] for point in get_statistics(client, Statistics=["Sum"])} == {"Seconds", "Count"}
    assert len(get_statistics(client, Statistics=["Sum"], Unit="Count")) == 1


def test_recently_active_metrics_have_points_of_the_last_three_hours(client: Any) -> None:
    put(client, 1, seconds=-4 * 3600, name="old")
    put(client, 1)
    names = [item["MetricName"] for item in client.list_metrics(RecentlyActive="PT3H")["Metrics"]]
    assert names == ["latency"]


# --- GetMetricStatistics ---


def test_periods_begin_at_the_start_time_rounded_down(client: Any) -> None:
    put(client, *range(120))
    points = get_statistics(client, 60, Statistics=["SampleCount", "Minimum"])
    assert [(point["Timestamp"], point["SampleCount"], point["Minimum"]) for point in points] == [
        (START_TIME, 60, 0),
        (START_TIME + timedelta(minutes=1), 60, 60),
    ]
    assert len(get_statistics(client, 1, Statistics=["Sum"])) == 120
    later_points = get_statistics(client, 60, Statistics=["Sum"], StartTime=START_TIME + timedelta(seconds=59))
    assert later_points[0]["Timestamp"] == START_TIME


def test_end_time_is_exclusive(client: Any) -> None:
    put(client, 1, 2)
    (point,) = get_statistics(client, 60, Statistics=["Sum"], EndTime=START_TIME + timedelta(seconds=1))
    assert point["Sum"] == 1


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"Statistics": ["Sum"], "Period": 7}, "Period 7 must be"),
        ({"Statistics": ["Sum"], "EndTime": START_TIME}, "StartTime must be less than the parameter EndTime"),
        ({}, "At least one of the parameters Statistics and ExtendedStatistics"),
        ({"ExtendedStatistics": ["tm90"]}, "ExtendedStatistics 'tm90' is not supported here: use p0 to p100"),
        ({"ExtendedStatistics": ["p101"]}, "is not supported here"),
        ({"Statistics": ["Sum"], "StartTime": START_TIME - timedelta(days=2)}, "exceeds the limit of 1,440"),
    ],
)
def test_invalid_statistics_request_is_refused(client: Any, members: dict[str, Any], message: str) -> None:
    times = {"StartTime": START_TIME, "EndTime": START_TIME + timedelta(minutes=5), "Period": 60}
    _, text, status = get_error(client.get_metric_statistics, **{**METRIC, **times, **members})
    assert message in text
    assert status == 400


# --- GetMetricData ---


def test_expressions_combine_metrics(client: Any) -> None:
    put(client, 1, 1, 0, 0, name="errors")
    put(client, 1, 1, 1, 1, name="calls")
    errors, calls = ({**METRIC, "MetricName": name} for name in ("errors", "calls"))
    results = get_data(
        client,
        {"Id": "rate", "Expression": "-100 * (errors / calls) + zero", "Label": "error rate"},
        make_query("errors", "Sum", metric=errors, ReturnData=False),
        make_query("calls", "Sum", metric=calls, ReturnData=False),
        {"Id": "zero", "Expression": "errors - errors", "ReturnData": False},
    )["MetricDataResults"]
    assert [(result["Id"], result["Label"], result["Values"]) for result in results] == [("rate", "error rate", [-50])]


def test_division_by_zero_has_no_value(client: Any) -> None:
    put(client, 0)
    results = get_data(client, make_query("m"), {"Id": "e", "Expression": "1 / m"})["MetricDataResults"]
    assert [result["Values"] for result in results] == [[0], []]


def test_data_are_sorted_and_paged(client: Any) -> None:
    put(client, 0, 1, 2, 3, 4)
    queries = [make_query("a", "Sum", period=1), make_query("b", "Maximum", period=1)]
    assert get_data(client, queries[0])["MetricDataResults"][0]["Values"] == [4, 3, 2, 1, 0]
    pages: list[Any] = []
    token: dict[str, str] = {}
    while True:
        page = get_data(client, *queries, ScanBy="TimestampAscending", MaxDatapoints=4, **token)
        pages.append([(result["Values"], result["StatusCode"]) for result in page["MetricDataResults"]])
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert pages == [
        [([0, 1, 2, 3], "PartialData"), ([], "PartialData")],
        [([4], "Complete"), ([0, 1, 2], "PartialData")],
        [([], "Complete"), ([3, 4], "Complete")],
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"Expression": "SEARCH('x', 'Average')"}, "the function SEARCH is not supported"),
        ({"Expression": "SELECT AVG(x) FROM y"}, "it cannot be parsed"),
        ({"Expression": "x + 1"}, "uses unknown ids: x"),
        ({"Expression": "e + 1"}, "use each other in a circle"),
        ({"Expression": "1 + 1"}, "has no metric"),
        ({"Expression": "m ** 2"}, "it has Pow"),
        ({"Expression": "m.real"}, "it has Attribute"),
        ({"Expression": "+".join(["m"] * 1020)}, "is too long"),
        ({}, "must have either MetricStat or Expression"),
        (make_query("e", "p200"), "Stat 'p200' is not supported here"),
        ({"Id": "E", "Expression": "m"}, "Id 'E' must begin with a lowercase letter"),
        ({"Id": "m", "Expression": "m"}, "has an Id twice"),
        ({"Expression": "m", "AccountId": "1" * 12}, "AccountId"),
    ],
)
def test_invalid_query_is_refused(client: Any, query: dict[str, Any], message: str) -> None:
    put(client, 1)
    with pytest.raises(client.exceptions.ClientError) as caught:
        get_data(client, make_query("m"), {"Id": "e", **query})
    error = caught.value.response["Error"]
    assert message in error["Message"]
    assert error["Code"] in ("ValidationError", "InvalidParameterValue")
