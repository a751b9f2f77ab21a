"""Test that a killed server loses or repeats no metric that is older than the documented second."""

import os
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from tests.local.clients import LocalServer, running_server, wait_until

LOSS_SECONDS = 1.0
"""Points of this last part of the killed server's time may be missing, as docs/using/metrics.md says."""
WRITING_SECONDS = 2.5
SCRIPT = "number=0; while :; do number=$((number + 1)); echo value: $number; sleep 0.02; done"
COMPONENT = "written"


class Writer:
    """A client that sends the numbers 0, 1, 2, … as values of one metric until the server is killed."""

    def __init__(self, local: LocalServer) -> None:
        self._client = local.client("sagemaker-metrics")
        self.acknowledged: list[float] = []
        """The time of the response for each number."""
        self.thread = Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        try:
            while True:
                number = len(self.acknowledged)
                datum = {"MetricName": "sent", "Value": number, "Timestamp": int(time.time()), "Step": number}
                self._client.batch_put_metrics(TrialComponentName=COMPONENT, MetricData=[datum])
                self.acknowledged.append(time.time())
        except (BotoCoreError, ClientError):
            return


def test_killed_server_loses_only_the_last_second_of_metrics(tmp_path: Path) -> None:
    with running_server(tmp_path / "home", runtime="process") as local:
        arn = local.sagemaker.create_trial_component(TrialComponentName=COMPONENT)["TrialComponentArn"]
        metric = {"Name": "value", "Regex": "value: ([0-9]+)"}
        job = local.start_training(SCRIPT, algorithm={"MetricDefinitions": [metric]})
        local.wait_for_log(job, "value: 1")
        writer = Writer(local)
        writer.thread.start()
        time.sleep(WRITING_SECONDS)
        job_arn = local.describe_training(job)["TrainingJobArn"]
        os.kill(local.address.pid, signal.SIGKILL)
        killed = time.time()
        writer.thread.join()
        wait_until(lambda: control.find_server(local.home), lambda address: address is None)
        second = LocalServer(local.home, control.start(local.home, Config(port=0, runtime="process")))
        assert second.wait_for_end(job)["TrainingJobStatus"] == "Failed"

        sent = [float(number) for number, at in enumerate(writer.acknowledged) if at < killed - LOSS_SECONDS]
        check(read_values(second, arn, "sent"), sent)
        check(read_values(second, job_arn, "value"), list_logged_values(second, job, killed - LOSS_SECONDS))


def check(stored: list[float], expected: list[float]) -> None:
    """Check that the expected values are stored, in order, and that only later values follow."""
    assert len(expected) > 10
    assert stored[: len(expected)] == expected
    assert stored == sorted(set(stored))


def read_values(local: LocalServer, arn: str, metric: str) -> list[float]:
    query = {"ResourceArn": arn, "MetricName": metric, "MetricStat": "Last", "Period": "IterationNumber"}
    answer: Any = local.client("sagemaker-metrics").batch_get_metrics(
        MetricQueries=[
            {**query, "XAxisType": "IterationNumber"},
            {**query, "MetricStat": "Count", "XAxisType": "IterationNumber"},
        ]
    )
    values, counts = (result["MetricValues"] for result in answer["MetricQueryResults"])
    assert set(counts) == {1.0}
    return [float(value) for value in values]


def list_logged_values(local: LocalServer, job: str, end: float) -> list[float]:
    """Return the values that a job's log received before a time."""
    group = "/aws/sagemaker/TrainingJobs"
    (stream,) = local.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=job)["logStreams"]
    pages = {"logGroupName": group, "logStreamName": stream["logStreamName"], "startFromHead": True}
    events = local.logs.get_log_events(**pages)["events"]
    return [
        float(event["message"].rpartition(" ")[2])
        for event in events
        if event["message"].startswith("value: ") and event["timestamp"] / 1000 < end
    ]
