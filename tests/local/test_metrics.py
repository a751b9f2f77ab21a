"""Tests of metrics that a boto3 client reads from CloudWatch, also after the server is killed."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.local.clients import ROOT, LocalServer, run_server
from tests.local.test_server import kill_server
from tests.polling import wait_until

LOSS = {"Name": "test:loss", "Regex": r"loss=([0-9.]+)"}


def summarize_points(server: LocalServer, job: str) -> tuple[float, float]:
    """Return the number and the sum of the values that a job printed in the last hour."""
    now = time.time()
    points: list[dict[str, Any]] = server.client("cloudwatch").get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName=LOSS["Name"],
        Dimensions=[{"Name": "TrainingJobName", "Value": job}],
        StartTime=now - 3600,
        EndTime=now + 3600,
        Period=60,
        Statistics=["SampleCount", "Sum"],
    )["Datapoints"]
    return sum(point["SampleCount"] for point in points), sum(point["Sum"] for point in points)


def test_every_value_is_stored_and_the_last_one_is_the_final_value(any_runtime_server: LocalServer) -> None:
    script = "for i in 1 2 3 4; do echo loss=$i; done"
    job = any_runtime_server.train(script, algorithm={"MetricDefinitions": [LOSS]})
    assert summarize_points(any_runtime_server, job["TrainingJobName"]) == (4, 10)
    assert [(metric["MetricName"], metric["Value"]) for metric in job["FinalMetricDataList"]] == [("test:loss", 4)]


def test_points_are_read_while_the_job_runs(process_server: LocalServer) -> None:
    script = f"echo loss=1; while [ ! -e {ROOT}/output/go ]; do sleep 0.1; done"
    name = process_server.start_training(script, algorithm={"MetricDefinitions": [LOSS]})
    assert wait_until(lambda: summarize_points(process_server, name), lambda summary: summary[0] > 0) == (1, 1)
    process_server.sagemaker.stop_training_job(TrainingJobName=name)
    process_server.wait_for_end(name)


@pytest.mark.slow
def test_killed_server_loses_at_most_the_last_second_of_metrics(tmp_path: Path) -> None:
    response_timestamps: list[float] = []
    with run_server(tmp_path, runtime="process") as server:
        cloudwatch = server.client("cloudwatch")
        while not response_timestamps or response_timestamps[-1] < response_timestamps[0] + 3:
            cloudwatch.put_metric_data(Namespace="own", MetricData=[{"MetricName": "m", "Value": 1}])
            response_timestamps.append(time.time())
        kill_server(server)
        kill_time = time.time()
    with run_server(tmp_path, runtime="process") as server:
        (result,) = server.client("cloudwatch").get_metric_data(
            MetricDataQueries=[
                {
                    "Id": "m",
                    "MetricStat": {"Metric": {"Namespace": "own", "MetricName": "m"}, "Period": 60, "Stat": "Sum"},
                }
            ],
            StartTime=kill_time - 120,
            EndTime=kill_time + 120,
        )["MetricDataResults"]
    early_count = len([timestamp for timestamp in response_timestamps if timestamp < kill_time - 1])
    assert early_count <= sum(result["Values"]) <= len(response_timestamps)


@pytest.mark.engine
def test_killed_server_loses_no_points_of_a_container(tmp_path: Path) -> None:
    """The next server reads the whole log of the container again, and stores no point twice."""
    script = "i=0; while [ $i -lt 40 ]; do echo loss=1; i=$((i + 1)); sleep 0.1; done"
    with run_server(tmp_path, runtime="docker") as server:
        name = server.start_training(script, algorithm={"MetricDefinitions": [LOSS]})
        wait_until(lambda: summarize_points(server, name), lambda summary: summary[0] >= 5)
        kill_server(server)
    with run_server(tmp_path, runtime="docker") as server:
        assert server.wait_for_end(name)["TrainingJobStatus"] == "Completed"
        assert summarize_points(server, name) == (40, 40)
