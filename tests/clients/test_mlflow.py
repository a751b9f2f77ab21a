"""Tests of MLflow servers with MLflow's plug-ins and the SageMaker SDK v3, outside of jobs and in training jobs."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from microjobs_orchestrator.local.identity import MLFLOW_PATH, make_mlflow_token
from tests.clients.environments import install_client_programs, run_program
from tests.conftest import REPOSITORY, make_image_name
from tests.local.clients import ROOT, SHELL_IMAGE, LocalServer, make_channel
from tests.polling import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = REPOSITORY / "docs" / "using" / "experiments.md"
START_TIMEOUT_SECONDS = 300.0
PROGRAM = Path(__file__).with_name("mlflow_job.py")
UNUSED_PACKAGES = ("numpy*", "pandas*", "__pycache__")
"""Large packages of MLflow's environment that the program of the job does not import."""


@pytest.fixture(scope="module")
def app(process_server: LocalServer) -> Iterator[str]:
    """Run an MLflow app; return its ARN."""
    sagemaker = process_server.sagemaker
    arn: str = sagemaker.create_mlflow_app(
        Name="app", ArtifactStoreUri=process_server.uri("app"), RoleArn=process_server.address.role_arn
    )["Arn"]
    describe = sagemaker.describe_mlflow_app
    description = wait_until(
        lambda: describe(Arn=arn), lambda description: description["Status"] != "Creating", START_TIMEOUT_SECONDS
    )
    assert description["Status"] == "Created", description
    yield arn
    sagemaker.delete_mlflow_app(Arn=arn)


@pytest.fixture(scope="module")
def tracking_server(server: LocalServer) -> Iterator[str]:
    """Run an MLflow tracking server; return its ARN."""
    sagemaker, name = server.sagemaker, {"TrackingServerName": "tracking"}
    store = {"ArtifactStoreUri": server.uri("app"), "RoleArn": server.address.role_arn}
    arn: str = sagemaker.create_mlflow_tracking_server(**name, **store)["TrackingServerArn"]
    status = wait_until(
        lambda: sagemaker.describe_mlflow_tracking_server(**name)["TrackingServerStatus"],
        lambda status: status != "Creating",
        START_TIMEOUT_SECONDS,
    )
    assert status == "Created"
    yield arn
    sagemaker.delete_mlflow_tracking_server(**name)


@pytest.fixture(params=["app", pytest.param("tracking_server", marks=pytest.mark.engine)])
def mlflow_server(request: pytest.FixtureRequest) -> tuple[LocalServer, str]:
    """A local server and the ARN of its MLflow server: one pair for processes, and one for containers."""
    server = request.getfixturevalue("process_server" if request.param == "app" else "server")
    return server, request.getfixturevalue(request.param)


def send_get(mlflow_server: tuple[LocalServer, str], path: str, **parameters: str) -> Any:
    """Send a request to an MLflow server as plain MLflow does: with its address and the token."""
    server, arn = mlflow_server
    token = make_mlflow_token(server.home.server_key())
    url = f"{server.address.url}{MLFLOW_PATH}/{arn.rpartition(':')[2]}/api/2.0/mlflow/{path}"
    response = requests.get(url, parameters, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    response.raise_for_status()
    return response.json()


def convert_to_dict(items: list[dict[str, Any]]) -> Mapping[str, Any]:
    return {item["key"]: item["value"] for item in items}


# --- clients outside of jobs ---


def test_plug_in_logs_and_registers_a_model(process_server: LocalServer, app: str, tmp_path: Path) -> None:
    lines = run_program("mlflow", process_server, tmp_path, "mlflow_tracking.py", app)
    results = json.loads(lines[-1])
    assert results.pop("artifact_uri").startswith(process_server.uri("app/"))
    assert results == {
        "status": "FINISHED",
        "parameters": {"learning_rate": "0.1", "optimizer": "adam"},
        "losses": [[0, 1.0], [1, 0.5], [2, 0.33]],
        "artifact": "a note",
        "prediction": [2, 4],
        "versions": ["1"],
        "experiments": ["prices"],
    }


@pytest.mark.usefixtures("app")
def test_program_for_sdk_v3_reads_tracked_runs(process_server: LocalServer, tmp_path: Path) -> None:
    lines = run_program(
        "sdk3", process_server, tmp_path, "mlflow_v3.py", make_image_name(SHELL_IMAGE), process_server.address.bucket
    )
    assert json.loads(lines[-1]) == {
        "apps": [True],
        "losses": [0.3, 0.2, 0.1],
        "run": ["one", "FINISHED", {"epochs": "3"}],
        "pipelines": ["Succeeded", ["Train"]],
        "chosen": ["Succeeded", ["Train"]],
    }


def test_plug_in_of_mlflow_deploys_registered_models(process_server: LocalServer, app: str, tmp_path: Path) -> None:
    lines = run_program("mlflow", process_server, tmp_path, "mlflow_deployment.py", make_image_name("serve"), app)
    assert json.loads(lines[-1]) == {
        "status": "InService",
        "listed": ["deployed"],
        "remaining": 0,
        "predictions": [[2, 4], [3, 6]],
    }


def test_program_of_the_page_logs_a_run(process_server: LocalServer, app: str, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(import mlflow\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text(re.sub(r"arn:aws:sagemaker:[^\"]+", app, program))
    assert run_program("mlflow", process_server, tmp_path, str(script))[-1].startswith(process_server.uri("app/"))


# --- jobs ---


def test_script_continues_the_run_of_its_job(mlflow_server: tuple[LocalServer, str]) -> None:
    server, arn = mlflow_server
    inputs = [make_channel("code", server.uri("mlflow-code/"))]
    (packages,) = map(str, (install_client_programs("mlflow").parent / "lib").glob("python*/site-packages"))
    if server.address.runtime == "docker":  # a container cannot read the folder of this machine
        inputs.append(make_channel("packages", server.uri("mlflow-packages/")))
        shutil.copytree(packages, server.bucket / "mlflow-packages", ignore=shutil.ignore_patterns(*UNUSED_PACKAGES))
        packages = f"{ROOT}/input/data/packages"
    server.put({"mlflow-code/mlflow_job.py": PROGRAM.read_text()})
    job = server.train(
        f"PYTHONPATH={packages} python3 {ROOT}/input/data/code/mlflow_job.py",
        InputDataConfig=inputs,
        HyperParameters={"epochs": "3", "optimizer": '"adam"'},
        MlflowConfig={"MlflowResourceArn": arn, "MlflowExperimentName": "jobs", "MlflowRunName": "first"},
        algorithm={"MetricDefinitions": [{"Name": "loss", "Regex": "loss: ([0-9.]+)"}]},
    )
    assert job["TrainingJobStatus"] == "Completed", server.read_logs("TrainingJobs", job["TrainingJobName"])
    run_id = job["MlflowDetails"]["MlflowRunId"]
    run = send_get(mlflow_server, "runs/get", run_id=run_id)["run"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("first", "FINISHED")
    assert run["info"]["experiment_id"] == job["MlflowDetails"]["MlflowExperimentId"]
    assert (
        send_get(mlflow_server, "experiments/get-by-name", experiment_name="jobs")["experiment"]["lifecycle_stage"]
        == "active"
    )
    assert convert_to_dict(run["data"]["params"]) == {"epochs": "3", "optimizer": "adam"}, "the job's own value stays"
    assert convert_to_dict(run["data"]["metrics"]) == {"accuracy": 0.5, "loss": 0.33}
    losses = send_get(mlflow_server, "metrics/get-history", run_id=run_id, metric_key="loss")["metrics"]
    assert [(point["step"], point["value"]) for point in losses] == [(0, 1.0), (1, 0.5), (2, 0.33)]
    assert convert_to_dict(run["data"]["tags"])["sagemaker.training-job-arn"] == job["TrainingJobArn"]
    (artifact,) = server.bucket.glob(f"app/*/{run_id}/artifacts/weights.txt")
    assert artifact.read_text() == "weights"


def test_failed_job_fails_its_run(mlflow_server: tuple[LocalServer, str]) -> None:
    server, arn = mlflow_server
    job = server.train("exit 3", MlflowConfig={"MlflowResourceArn": arn})
    run = send_get(mlflow_server, "runs/get", run_id=job["MlflowDetails"]["MlflowRunId"])["run"]
    assert (run["info"]["run_name"], run["info"]["status"]) == (job["TrainingJobName"], "FAILED")
    assert run["info"]["experiment_id"] == "0", "MLflow's experiment Default"
