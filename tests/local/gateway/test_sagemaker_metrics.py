"""SageMaker Metrics, through boto3 over HTTP."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.services import sagemaker_metrics
from microjobs_orchestrator.local.services.cloudwatch import CloudWatch
from microjobs_orchestrator.local.services.sagemaker_metrics import SageMakerMetrics
from microjobs_orchestrator.local.state import State
from tests.local.gateway.conftest import CREDENTIALS, run_gateway
from tests.local.gateway.test_application import get_error

JOB_ARN = format_arn("training-job/job")
TRIAL_COMPONENT_ARN = format_arn("experiment-trial-component/mine")
START_TIME = 1_800_000_000
"""A time at which an hour begins, in seconds since 1970."""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    database = State(tmp_path_factory.mktemp("metrics") / "state.db")
    database.add("training-job", "job", JOB_ARN, "InProgress", {}, {})
    database.add("experiment-trial-component", "mine", TRIAL_COMPONENT_ARN, "", {}, {})
    yield database
    database.close()


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
def client(state: State, metrics: MetricStore) -> Iterator[Any]:
    services = {
        "sagemaker": {},
        "sagemaker-runtime": {},
        "sagemaker-metrics": SageMakerMetrics(state, metrics).list_handlers(),
    }
    with run_gateway(services) as address:
        yield boto3.client(
            "sagemaker-metrics",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS.access_key_id,
            aws_secret_access_key=CREDENTIALS.secret_access_key,
            config=Config(retries={"total_max_attempts": 1}),
        )


def put(
    client: Any, *values: float, trial_component: str = "mine", seconds: int = 1, has_steps: bool = True
) -> dict[str, Any]:
    """Put values of the metric `loss`, with `seconds` between two values. If `has_steps`, each step has two values."""
    data = [
        {
            "MetricName": "loss",
            "Timestamp": START_TIME + number * seconds,
            "Value": value,
            **({"Step": number // 2} if has_steps else {}),
        }
        for number, value in enumerate(values)
    ]
    answer: dict[str, Any] = client.batch_put_metrics(TrialComponentName=trial_component, MetricData=data)
    return answer


def get(client: Any, **members: Any) -> tuple[list[int], list[float]]:
    result = get_result(client, **members)
    assert result["Status"] == "Complete"
    return result["XAxisValues"], result["MetricValues"]


def get_result(client: Any, **members: Any) -> dict[str, Any]:
    query = {
        "MetricName": "loss",
        "ResourceArn": TRIAL_COMPONENT_ARN,
        "MetricStat": "Avg",
        "Period": "IterationNumber",
        "XAxisType": "IterationNumber",
        **members,
    }
    results: list[dict[str, Any]] = client.batch_get_metrics(MetricQueries=[query])["MetricQueryResults"]
    (result,) = results
    return result


def test_values_are_read_by_iteration(client: Any) -> None:
    assert "Errors" not in put(client, 1, 3, 5, 9)
    assert get(client) == ([0, 1], [2, 7])
    assert get(client, MetricStat="Last") == ([0, 1], [3, 9])
    assert get(client, MetricStat="StdDev") == ([0, 1], [1, 2])
    assert get(client, MetricStat="Count") == ([0, 1], [2, 2])
    assert get(client, MetricStat="Min", Start=1) == ([1], [5])
    assert get(client, MetricStat="Max", End=1) == ([0], [3])
    assert get(client, MetricName="other") == ([], [])


def test_values_are_read_by_time(client: Any) -> None:
    put(client, 1, 2, 3, 4, seconds=40)
    assert get(client, XAxisType="Timestamp", Period="OneMinute") == (
        [START_TIME, START_TIME + 60, START_TIME + 120],
        [1.5, 3, 4],
    )
    assert get(client, XAxisType="Timestamp", Period="FiveMinute") == ([START_TIME], [2.5])
    assert get(client, XAxisType="Timestamp", Period="OneHour", Start=START_TIME + 1) == ([], [])
    assert get(client, XAxisType="Timestamp") == ([START_TIME, START_TIME + 80], [1.5, 3.5])


def test_missing_iteration_is_replaced_by_the_position(client: Any) -> None:
    put(client, 7, 8, 9, has_steps=False)
    assert get(client) == ([0, 1, 2], [7, 8, 9])


def test_metrics_in_the_log_of_a_training_job_are_read(client: Any, metrics: MetricStore) -> None:
    for number, value in enumerate((0.5, 0.25)):
        dimensions = {"TrainingJobName": "job"}
        metrics.record("/aws/sagemaker/TrainingJobs", dimensions, {"loss": value}, START_TIME + number, is_exact=True)
    assert get(client, ResourceArn=JOB_ARN) == ([0, 1], [0.5, 0.25])
    arn = format_arn("experiment-trial-component/job-aws-training-job")
    assert get(client, ResourceArn=arn) == ([0, 1], [0.5, 0.25])


def test_training_code_can_put_metrics_of_its_job(client: Any) -> None:
    put(client, 4, trial_component="job-aws-training-job")
    assert get(client, ResourceArn=JOB_ARN) == ([0], [4])


@pytest.mark.parametrize("trial_component", ["other", "other-aws-training-job", "mine-aws-training-job"])
def test_missing_trial_component_is_reported(client: Any, trial_component: str) -> None:
    datum = {"MetricName": "m", "Timestamp": START_TIME, "Value": 1}
    error = get_error(client.batch_put_metrics, TrialComponentName=trial_component, MetricData=[datum])
    assert error == ("ResourceNotFound", f"Trial component {trial_component} does not exist.", 404)


def test_more_than_ten_values_are_refused(client: Any) -> None:
    data = [{"MetricName": "m", "Timestamp": START_TIME, "Value": 1}] * 11
    code, message, _ = get_error(client.batch_put_metrics, TrialComponentName="mine", MetricData=data)
    assert code == "ValidationException"
    assert "length less than or equal to 10" in message


def test_value_out_of_range_is_reported_by_its_index(client: Any) -> None:
    assert put(client, 1, 1e300, 2)["Errors"] == [{"Code": "VALIDATION_ERROR", "MetricIndex": 1}]
    assert get(client, MetricStat="Count") == ([0, 1], [1, 1])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ResourceArn": format_arn("training-job/other")}, "is not an existing training job or trial component"),
        ({"ResourceArn": format_arn("model/job")}, "is not an existing training job or trial component"),
        ({"Period": "OneMinute"}, "Period OneMinute needs XAxisType Timestamp, not IterationNumber"),
    ],
)
def test_invalid_query_has_a_result_with_a_message(client: Any, members: dict[str, Any], message: str) -> None:
    result = get_result(client, **members)
    assert result["Status"] == "ValidationError"
    assert message in result["Message"]


def test_long_result_is_truncated(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sagemaker_metrics, "MAX_VALUES", 2)
    put(client, 1, 2, 3, has_steps=False)
    result = get_result(client)
    assert (result["Status"], result["XAxisValues"]) == ("Truncated", [0, 1])


def test_series_of_trial_components_are_not_metrics_of_cloudwatch(client: Any, metrics: MetricStore) -> None:
    put(client, 1)
    summaries = CloudWatch(metrics).list_handlers()["ListMetrics"]({})
    assert isinstance(summaries, dict)
    assert summaries["Metrics"] == []
