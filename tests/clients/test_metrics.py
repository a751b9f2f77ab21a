"""Tests of metrics with the SageMaker SDK v2 and the AWS CLI."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local import control
from tests.clients.environments import install_client_programs, run_program
from tests.local.clients import LocalServer

METRIC_DEFINITIONS = [{"Name": "loss", "Regex": "loss=([0-9.]+)"}, {"Name": "test:acc", "Regex": "accuracy ([0-9.]+)"}]
SCRIPT = "for i in 4 2 1; do echo loss=$i accuracy 0.$i; sleep 1.1; done"


def run_training(server: LocalServer) -> str:
    name: str = server.train(SCRIPT, algorithm={"MetricDefinitions": METRIC_DEFINITIONS})["TrainingJobName"]
    return name


@pytest.mark.slow
def test_sdk_returns_the_curves_of_a_training_job(process_server: LocalServer, tmp_path: Path) -> None:
    results = json.loads(
        run_program("sdk", process_server, tmp_path, "analytics_v2.py", run_training(process_server))[-1]
    )
    assert results["columns"] == ["metric_name", "timestamp", "value"]
    assert results["metrics"] == ["loss", "test:acc"]
    assert results["losses"] == [4, 2, 1]
    assert 1 <= results["mean_per_minute"] <= 4


@pytest.mark.slow
def test_cli_puts_lists_and_reads_metrics(process_server: LocalServer, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        **control.make_environment(process_server.home, process_server.address),
    }

    def aws(*arguments: str) -> Mapping[str, Any]:
        command = [str(install_client_programs("aws") / "aws"), "cloudwatch", *arguments]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        result: Mapping[str, Any] = json.loads(process.stdout or "{}")
        return result

    aws("put-metric-data", "--namespace", "cli", "--metric-name", "m", "--value", "3", "--dimensions", "a=b")
    assert aws("list-metrics", "--namespace", "cli")["Metrics"] == [
        {"Namespace": "cli", "MetricName": "m", "Dimensions": [{"Name": "a", "Value": "b"}]}
    ]
    dimensions = f"Name=TrainingJobName,Value={run_training(process_server)}"
    period = ("--start-time", "2020-01-01T00:00:00Z", "--end-time", "2100-01-01T00:00:00Z", "--period", "31536000")
    points = aws(
        "get-metric-statistics",
        *("--namespace", "/aws/sagemaker/TrainingJobs", "--metric-name", "loss", "--dimensions", dimensions),
        *(*period, "--statistics", "SampleCount", "Minimum"),
    )["Datapoints"]
    assert [(point["SampleCount"], point["Minimum"]) for point in points] == [(3, 1)]
