"""Tests of the MlflowConfig of jobs and pipelines: refused requests, and the run of a job whose server was killed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.resources.mlflow import rest_client
from microjobs_orchestrator.local.resources.training.create import create
from microjobs_orchestrator.local.resources.training.job import TrainingJob
from microjobs_orchestrator.local.resources.training.metrics import Point
from microjobs_orchestrator.local.resources.training.mlflow_run import MAX_METRICS, MlflowRun
from microjobs_orchestrator.local.state import Record
from tests.local.jobs.test_clock import TRAINING_REQUEST
from tests.local.mlflow.conftest import ROLE, FakeMlflow

ARN = format_arn("mlflow-tracking-server/one")
OUTPUT = {"S3OutputPath": "s3://bucket/models"}


def add_job(fake_mlflow: FakeMlflow, arn: str = ARN) -> Record:
    request = {**TRAINING_REQUEST, "OutputDataConfig": OUTPUT, "MlflowConfig": {"MlflowResourceArn": arn}}
    return create(fake_mlflow.parts.context, request)


def test_job_with_a_missing_server_is_refused(fake_mlflow: FakeMlflow) -> None:
    with pytest.raises(ValidationError, match=f"{ARN} does not exist: create it with CreateMlflowTrackingServer or"):
        add_job(fake_mlflow)


def test_job_with_a_stopped_server_is_refused(fake_mlflow: FakeMlflow) -> None:
    fake_mlflow.create()
    fake_mlflow.call("StopMlflowTrackingServer", TrackingServerName="one")
    fake_mlflow.wait_for_final_status()
    with pytest.raises(ValidationError, match=f"{ARN} is Stopped: start it"):
        add_job(fake_mlflow)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "MlflowExperimentName 'e' has no MLflow server: the definition of the pipeline has no MlflowConfig"),
        ({"MlflowConfig": {"MlflowResourceArn": ARN}}, f"{ARN} does not exist"),
    ],
)
def test_execution_without_a_running_server_is_refused(
    fake_mlflow: FakeMlflow, config: Mapping[str, Any], message: str
) -> None:
    steps = [{"Name": "Fail", "Type": "Fail", "Arguments": {"ErrorMessage": "m"}}]
    definition = json.dumps({"Version": "2020-12-01", "Steps": steps, **config})
    members = {"PipelineName": "p", "ClientRequestToken": "t" * 32}
    fake_mlflow.call("CreatePipeline", **members, PipelineDefinition=definition, RoleArn=ROLE)
    with pytest.raises(ServiceError, match=message):
        fake_mlflow.call("StartPipelineExecution", **members, MlflowExperimentName="e")
    assert fake_mlflow.call("ListPipelineExecutions", PipelineName="p")["PipelineExecutionSummaries"] == []


class FakeApi:
    """MLflow's API with one run, which already has the metric `accuracy`.

    The API stores the metrics of `remaining_batches` requests, and then fails.
    """

    def __init__(self, remaining_batches: int) -> None:
        self.remaining_batches = remaining_batches
        self.points: set[tuple[str, int]] = set()

    def call(
        self, _context: object, _arn: str, _method: str, path: str, members: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if path == "runs/log-batch":
            if self.remaining_batches == 0:
                raise ServiceError("ServiceUnavailable", "the server was killed", 503)
            self.remaining_batches -= 1
            self.points |= {(item["key"], item["step"]) for item in members["metrics"]}
        metrics = [{"key": name} for name in {"accuracy"} | {name for name, _ in self.points}]
        run = {"info": {"run_id": "r", "status": "RUNNING"}, "data": {"metrics": metrics}}
        return {"experiment_id": "1", "run": run}


def test_next_server_completes_the_metrics_of_a_run(fake_mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi(remaining_batches=1)
    monkeypatch.setattr(rest_client, "call_api", api.call)
    fake_mlflow.create()
    points = [(float(second), 0.5) for second in range(MAX_METRICS + 1)]
    add_job(fake_mlflow)
    finish(fake_mlflow, {"loss": points, "accuracy": points})
    assert len(api.points) == MAX_METRICS
    api.remaining_batches = 2
    finish(fake_mlflow, {"loss": points, "accuracy": points})
    assert api.points == {("loss", step) for step in range(MAX_METRICS + 1)}


def finish(fake_mlflow: FakeMlflow, metrics: Mapping[str, Sequence[Point]]) -> None:
    """Complete the run of the job as a new server does."""
    record = fake_mlflow.parts.context.state.get("training-job", "job")
    assert record is not None
    run = MlflowRun(TrainingJob(fake_mlflow.parts.context, record).job, record)
    run.create()
    run.finish("Completed", metrics)
