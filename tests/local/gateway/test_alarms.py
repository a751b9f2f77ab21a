"""CloudWatch's alarms, through boto3 over HTTP, in each protocol that clients use."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.local.alarms.records import ALARM_KIND, Alarms
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.services.alarms import AlarmOperations
from microjobs_orchestrator.local.services.cloudwatch import CloudWatch
from microjobs_orchestrator.local.state import Query, State
from tests.local.gateway.conftest import run_gateway
from tests.local.gateway.test_cloudwatch import DIMENSIONS, PROTOCOLS, make_client

METRIC = {"Namespace": "own", "MetricName": "errors", "Dimensions": DIMENSIONS}
ALARM: dict[str, Any] = {
    "AlarmName": "too many errors",
    **METRIC,
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 2,
    "DatapointsToAlarm": 1,
    "Threshold": 5.0,
    "ComparisonOperator": "GreaterThanThreshold",
    "TreatMissingData": "notBreaching",
    "AlarmDescription": "größe & <x>",
}
MISSING_DATA_ALARM = {**ALARM, "AlarmName": "missing", "TreatMissingData": "missing"}


@pytest.fixture(scope="module")
def cloudwatch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[State, MetricStore, str]]:
    """The stores and the address of a server that implements CloudWatch."""
    folder: Path = tmp_path_factory.mktemp("alarms")
    metrics, state = MetricStore(folder / "metrics.db"), State(folder / "state.db")
    alarms = AlarmOperations(state, Alarms(state, metrics, speed=1), "us-east-1")
    with run_gateway({"cloudwatch": {**CloudWatch(metrics).list_handlers(), **alarms.list_handlers()}}) as url:
        yield state, metrics, url
    state.close()
    metrics.close()


@pytest.fixture
def server_url(cloudwatch_server: tuple[State, MetricStore, str]) -> str:
    """The address of the server, from which all alarms and metrics were deleted."""
    state, metrics, url = cloudwatch_server
    for record in state.find(Query(ALARM_KIND, limit=-1)):
        state.delete(ALARM_KIND, record.name)
    for series, _ in metrics.list_series():
        metrics.remove(series.namespace, dict(series.dimensions), 0.0)
    return url


@pytest.fixture(params=PROTOCOLS)
def client(server_url: str, request: pytest.FixtureRequest) -> Any:
    """A client of CloudWatch: the test runs once per protocol."""
    return make_client(server_url, request.param)


@pytest.fixture
def default_client(server_url: str) -> Any:
    """A client with the protocol that boto3 chooses."""
    return make_client(server_url)


def put_errors(client: Any, count: float) -> None:
    """Record errors in the last complete minute."""
    datum = {"MetricName": "errors", "Dimensions": DIMENSIONS, "Timestamp": time.time() // 60 * 60 - 30, "Value": count}
    client.put_metric_data(Namespace="own", MetricData=[datum])


def describe(client: Any, name: str = ALARM["AlarmName"]) -> dict[str, Any]:
    (alarm,) = client.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return dict(alarm)


def get_code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_alarm_has_the_state_of_its_metric(client: Any) -> None:
    client.put_metric_alarm(**ALARM)
    client.put_metric_alarm(**MISSING_DATA_ALARM)
    assert describe(client)["StateValue"] == "OK"
    put_errors(client, 7)
    alarm = describe(client)
    assert alarm.items() >= ALARM.items()
    assert alarm["AlarmArn"] == "arn:aws:cloudwatch:us-east-1:000000000000:alarm:too many errors"
    assert alarm["StateValue"] == "ALARM"
    assert "[7]" in alarm["StateReason"]
    assert "greater than the threshold 5" in alarm["StateReason"]
    assert alarm["StateTransitionedTimestamp"] >= alarm["AlarmConfigurationUpdatedTimestamp"]


def test_alarm_without_data_is_insufficient(default_client: Any) -> None:
    default_client.put_metric_alarm(**MISSING_DATA_ALARM)
    default_client.put_metric_alarm(**{**MISSING_DATA_ALARM, "MetricName": "never recorded"})
    assert describe(default_client, "missing")["StateValue"] == "INSUFFICIENT_DATA"


def test_expression_is_evaluated(default_client: Any) -> None:
    put_errors(default_client, 7)
    stat = {"Metric": METRIC, "Period": 60, "Stat": "Maximum"}
    members = {member: ALARM[member] for member in ("AlarmName", "EvaluationPeriods", "DatapointsToAlarm", "Threshold")}
    metrics = [
        {"Id": "errors", "MetricStat": stat, "ReturnData": False},
        {"Id": "half", "Expression": "errors / 2", "Label": "half of the errors"},
    ]
    for operator, state in (("LessThanThreshold", "ALARM"), ("GreaterThanThreshold", "OK")):
        default_client.put_metric_alarm(**members, Metrics=metrics, ComparisonOperator=operator)
        assert describe(default_client)["StateValue"] == state
    assert describe(default_client)["Metrics"] == metrics


def test_state_that_a_client_sets_is_kept_for_a_period(client: Any) -> None:
    client.put_metric_alarm(**{**ALARM, "Period": 1})
    client.set_alarm_state(AlarmName=ALARM["AlarmName"], StateValue="ALARM", StateReason="a test")
    alarm = describe(client)
    assert (alarm["StateValue"], alarm["StateReason"]) == ("ALARM", "a test")
    time.sleep(1.1)
    assert describe(client)["StateValue"] == "OK"


def test_replaced_alarm_keeps_its_state_and_its_tags_but_no_other_member(default_client: Any) -> None:
    default_client.put_metric_alarm(**ALARM, Tags=[{"Key": "k", "Value": "v"}])
    put_errors(default_client, 7)
    original = describe(default_client)
    default_client.put_metric_alarm(**{name: value for name, value in ALARM.items() if name != "AlarmDescription"})
    replacement = describe(default_client)
    assert "AlarmDescription" not in replacement
    assert replacement["AlarmConfigurationUpdatedTimestamp"] > original["AlarmConfigurationUpdatedTimestamp"]
    members = ("StateValue", "StateReason", "StateUpdatedTimestamp", "StateTransitionedTimestamp")
    assert [replacement[member] for member in members] == [original[member] for member in members]
    assert default_client.list_tags_for_resource(ResourceARN=replacement["AlarmArn"])["Tags"] == [
        {"Key": "k", "Value": "v"}
    ]


def test_alarms_are_listed_in_pages_and_by_name_and_state(default_client: Any) -> None:
    for number in range(5):
        default_client.put_metric_alarm(**{**ALARM, "AlarmName": f"alarm-{number}"})
    default_client.set_alarm_state(AlarmName="alarm-3", StateValue="ALARM", StateReason="a test")
    pages = default_client.get_paginator("describe_alarms").paginate(
        AlarmNamePrefix="alarm", PaginationConfig={"PageSize": 2}
    )
    names = [[alarm["AlarmName"] for alarm in page["MetricAlarms"]] for page in pages]
    assert names == [["alarm-0", "alarm-1"], ["alarm-2", "alarm-3"], ["alarm-4"]]
    (alarm,) = default_client.describe_alarms(StateValue="ALARM")["MetricAlarms"]
    assert alarm["AlarmName"] == "alarm-3"
    assert default_client.describe_alarms(AlarmTypes=["CompositeAlarm"])["MetricAlarms"] == []


def test_no_alarm_is_deleted_if_one_is_missing(client: Any) -> None:
    client.put_metric_alarm(**ALARM)
    with pytest.raises(ClientError, match="There is no alarm other") as error:
        client.delete_alarms(AlarmNames=[ALARM["AlarmName"], "other"])
    assert get_code(error) == "ResourceNotFound"
    assert describe(client)
    client.delete_alarms(AlarmNames=[ALARM["AlarmName"]])
    assert client.describe_alarms()["MetricAlarms"] == []
    with pytest.raises(ClientError, match="There is no alarm"):
        client.set_alarm_state(AlarmName=ALARM["AlarmName"], StateValue="OK", StateReason="a test")


def test_tags_are_added_to_an_alarm_and_removed(client: Any) -> None:
    client.put_metric_alarm(**ALARM, Tags=[{"Key": "a", "Value": "1"}])
    arn = describe(client)["AlarmArn"]
    client.tag_resource(ResourceARN=arn, Tags=[{"Key": "b", "Value": "2"}])
    client.untag_resource(ResourceARN=arn, TagKeys=["a"])
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    with pytest.raises(ClientError, match="There is no alarm arn:x"):
        client.list_tags_for_resource(ResourceARN="arn:x")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"Threshold": None}, "PutMetricAlarm needs Threshold"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "needs anomaly detection"),
        ({"TreatMissingData": "x"}, "must be one of missing, ignore, breaching, notBreaching"),
        ({"DatapointsToAlarm": 3}, "DatapointsToAlarm 3 must not be larger than EvaluationPeriods 2"),
        ({"ExtendedStatistic": "p99"}, "either Statistic or ExtendedStatistic"),
        ({"Statistic": None}, "either Statistic or ExtendedStatistic"),
        ({"MetricName": None, "Period": None}, "needs MetricName, Period"),
        ({"Period": 45}, "Period 45 must be"),
        ({"Period": 1800, "EvaluationPeriods": 49}, "must be at most 86400 seconds"),
        ({"Metrics": [{"Id": "e", "Expression": "1 + 1"}]}, "must not have MetricName"),
        ({"ThresholdMetricId": "e"}, "anomaly detection is not supported"),
    ],
)
def test_invalid_alarm_is_refused(default_client: Any, members: dict[str, Any], message: str) -> None:
    request = {name: value for name, value in {**ALARM, **members}.items() if value is not None}
    with pytest.raises(ClientError, match=message):
        default_client.put_metric_alarm(**request)
    assert default_client.describe_alarms()["MetricAlarms"] == []


@pytest.mark.parametrize(
    ("expression", "message"),
    [("1 + 1", "has no MetricStat"), ("other / 2", "unknown ids: other"), ("(", "cannot be parsed")],
)
def test_invalid_expression_is_refused(default_client: Any, expression: str, message: str) -> None:
    members = {member: ALARM[member] for member in ("AlarmName", "EvaluationPeriods", "Threshold")}
    metrics = [{"Id": "e", "Expression": expression}]
    with pytest.raises(ClientError, match=message):
        default_client.put_metric_alarm(**members, Metrics=metrics, ComparisonOperator="LessThanThreshold")
