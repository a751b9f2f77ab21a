"""Test that a killed server loses no metrics except those of the last second, and repeats no metrics."""

import os
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from tests.local.clients import LocalServer, run_server
from tests.polling import wait_until

LOSS_SECONDS = 1.0
"""Points that the server received in the last second before it was killed may be missing: see
docs/using/metrics.md."""
WRITING_SECONDS = 2.5
SCRIPT = "number=0; while :; do number=$((number + 1)); echo value: $number; sleep 0.02; done"
TRIAL_COMPONENT = "written"


class Writer:
    """A client that sends the numbers 0, 1, 2, … as values of one metric until the server is killed."""

    def __init__(self, server: LocalServer) -> None:
        self._client = server.client("sagemaker-metrics")
        self.response_times: list[float] = []
        """The times of the server's responses, by number."""
        self.thread = Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        try:
            while True:
                number = len(self.response_times)
                datum = {"MetricName": "sent", "Value": number, "Timestamp": int(time.time()), "Step": number}
                self._client.batch_put_metrics(TrialComponentName=TRIAL_COMPONENT, MetricData=[datum])
                self.response_times.append(time.time())
        except (BotoCoreError, ClientError):
            return


@pytest.mark.slow
def test_killed_server_loses_only_the_last_second_of_metrics(tmp_path: Path) -> None:
    with run_server(tmp_path / "home", runtime="process") as server:
        arn = server.sagemaker.create_trial_component(TrialComponentName=TRIAL_COMPONENT)["TrialComponentArn"]
        metric = {"Name": "value", "Regex": "value: ([0-9]+)"}
        job = server.start_training(SCRIPT, algorithm={"MetricDefinitions": [metric]})
        server.wait_for_log(job, "value: 1")
        writer = Writer(server)
        writer.thread.start()
        time.sleep(WRITING_SECONDS)
        job_arn = server.describe_training(job)["TrainingJobArn"]
        os.kill(server.address.pid, signal.SIGKILL)
        kill_time = time.time()
        writer.thread.join()
        wait_until(lambda: control.find_server(server.home), lambda address: address is None)
        next_server = LocalServer(server.home, control.start(server.home, Config(port=0, runtime="process")))
        assert next_server.wait_for_end(job)["TrainingJobStatus"] == "Failed"

        sent_values = [
            float(number)
            for number, response_time in enumerate(writer.response_times)
            if response_time < kill_time - LOSS_SECONDS
        ]
        check_values(read_values(next_server, arn, "sent"), sent_values)
        check_values(
            read_values(next_server, job_arn, "value"), list_logged_values(next_server, job, kill_time - LOSS_SECONDS)
        )


def check_values(values: list[float], expected: list[float]) -> None:
    """Check that the expected values are stored, in order, and that only later values follow."""
    assert len(expected) > 10
    assert values[: len(expected)] == expected
    assert values == sorted(set(values))


def read_values(server: LocalServer, arn: str, metric: str) -> list[float]:
    query = {"ResourceArn": arn, "MetricName": metric, "MetricStat": "Last", "Period": "IterationNumber"}
    response: Any = server.client("sagemaker-metrics").batch_get_metrics(
        MetricQueries=[
            {**query, "XAxisType": "IterationNumber"},
            {**query, "MetricStat": "Count", "XAxisType": "IterationNumber"},
        ]
    )
    values, counts = (result["MetricValues"] for result in response["MetricQueryResults"])
    assert set(counts) == {1.0}
    return [float(value) for value in values]


def list_logged_values(server: LocalServer, job: str, end: float) -> list[float]:
    """Return the values that a job's log received before a time."""
    group = "/aws/sagemaker/TrainingJobs"
    (stream,) = server.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=job)["logStreams"]
    request = {"logGroupName": group, "logStreamName": stream["logStreamName"], "startFromHead": True}
    events = server.logs.get_log_events(**request)["events"]
    return [
        float(event["message"].rpartition(" ")[2])
        for event in events
        if event["message"].startswith("value: ") and event["timestamp"] / 1000 < end
    ]
