"""The time series of metrics, which a boto3 client reads from CloudWatch, also after the server is killed."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.local.clients import ROOT, LocalServer, running_server, wait_until
from tests.local.test_server import crash

LOSS = {"Name": "test:loss", "Regex": r"loss=([0-9.]+)"}


def count_points(local: LocalServer, job: str) -> tuple[float, float]:
    """Return the number and the sum of a job's values in the last hours."""
    now = time.time()
    points: list[dict[str, Any]] = local.client("cloudwatch").get_metric_statistics(
        Namespace="/aws/sagemaker/TrainingJobs",
        MetricName=LOSS["Name"],
        Dimensions=[{"Name": "TrainingJobName", "Value": job}],
        StartTime=now - 3600,
        EndTime=now + 3600,
        Period=60,
        Statistics=["SampleCount", "Sum"],
    )["Datapoints"]
    return sum(point["SampleCount"] for point in points), sum(point["Sum"] for point in points)


def test_every_point_is_stored_and_the_last_one_is_the_final_value(anywhere: LocalServer) -> None:
    script = "for i in 1 2 3 4; do echo loss=$i; done"
    job = anywhere.train(script, algorithm={"MetricDefinitions": [LOSS]})
    assert count_points(anywhere, job["TrainingJobName"]) == (4, 10)
    assert [(found["MetricName"], found["Value"]) for found in job["FinalMetricDataList"]] == [("test:loss", 4)]


def test_points_are_read_while_the_job_runs(processes: LocalServer) -> None:
    script = f"echo loss=1; while [ ! -e {ROOT}/output/go ]; do sleep 0.1; done"
    name = processes.start_training(script, algorithm={"MetricDefinitions": [LOSS]})
    assert wait_until(lambda: count_points(processes, name), lambda found: found[0] > 0) == (1, 1)
    processes.sagemaker.stop_training_job(TrainingJobName=name)
    processes.wait_for_end(name)


def test_killed_server_loses_at_most_the_last_second_of_metrics(tmp_path: Path) -> None:
    acknowledged: list[float] = []
    with running_server(tmp_path, runtime="process") as local:
        cloudwatch = local.client("cloudwatch")
        while not acknowledged or acknowledged[-1] < acknowledged[0] + 3:
            cloudwatch.put_metric_data(Namespace="own", MetricData=[{"MetricName": "m", "Value": 1}])
            acknowledged.append(time.time())
        crash(local)
        killed = time.time()
    with running_server(tmp_path, runtime="process") as local:
        (result,) = local.client("cloudwatch").get_metric_data(
            MetricDataQueries=[
                {
                    "Id": "m",
                    "MetricStat": {"Metric": {"Namespace": "own", "MetricName": "m"}, "Period": 60, "Stat": "Sum"},
                }
            ],
            StartTime=killed - 120,
            EndTime=killed + 120,
        )["MetricDataResults"]
    assert len([moment for moment in acknowledged if moment < killed - 1]) <= sum(result["Values"]) <= len(acknowledged)


@pytest.mark.engine
def test_killed_server_loses_no_points_of_a_container(tmp_path: Path) -> None:
    """The next server reads the whole log of the container again, and stores no point twice."""
    script = "i=0; while [ $i -lt 40 ]; do echo loss=1; i=$((i + 1)); sleep 0.1; done"
    with running_server(tmp_path, runtime="docker") as local:
        name = local.start_training(script, algorithm={"MetricDefinitions": [LOSS]})
        wait_until(lambda: count_points(local, name), lambda found: found[0] >= 5)
        crash(local)
    with running_server(tmp_path, runtime="docker") as local:
        assert local.wait_for_end(name)["TrainingJobStatus"] == "Completed"
        assert count_points(local, name) == (40, 40)
