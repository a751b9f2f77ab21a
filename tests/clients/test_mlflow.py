"""MLflow servers with AWS's plug-in and the SDK v3, on the host and in training jobs."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from microjobs_orchestrator.local.identity import MLFLOW_PATH, make_mlflow_token
from tests.clients.environments import client_programs, run_program
from tests.conftest import REPOSITORY, image_name
from tests.local.clients import ROOT, SHELL, LocalServer, channel, wait_until

pytestmark = pytest.mark.timeout(900)

PAGE = REPOSITORY / "docs" / "using" / "experiments.md"
START_SECONDS = 300.0
PROGRAM = Path(__file__).with_name("mlflow_job.py")
UNUSED_PACKAGES = ("numpy*", "pandas*", "__pycache__")
"""Large packages of MLflow's environment that the program of the job does not import."""


@pytest.fixture(scope="module")
def app(processes: LocalServer) -> Iterator[str]:
    """Run an MLflow app; return its ARN."""
    sagemaker = processes.sagemaker
    arn: str = sagemaker.create_mlflow_app(
        Name="app", ArtifactStoreUri=processes.uri("app"), RoleArn=processes.address.role_arn
    )["Arn"]
    describe = sagemaker.describe_mlflow_app
    found = wait_until(lambda: describe(Arn=arn), lambda found: found["Status"] != "Creating", START_SECONDS)
    assert found["Status"] == "Created", found
    yield arn
    sagemaker.delete_mlflow_app(Arn=arn)


@pytest.fixture(scope="module")
def tracking_server(local: LocalServer) -> Iterator[str]:
    """Run an MLflow tracking server; return its ARN."""
    sagemaker, name = local.sagemaker, {"TrackingServerName": "tracking"}
    store = {"ArtifactStoreUri": local.uri("app"), "RoleArn": local.address.role_arn}
    arn: str = sagemaker.create_mlflow_tracking_server(**name, **store)["TrackingServerArn"]
    status = wait_until(
        lambda: sagemaker.describe_mlflow_tracking_server(**name)["TrackingServerStatus"],
        lambda status: status != "Creating",
        START_SECONDS,
    )
    assert status == "Created"
    yield arn
    sagemaker.delete_mlflow_tracking_server(**name)


@pytest.fixture(params=["app", pytest.param("tracking_server", marks=pytest.mark.engine)])
def tracked(request: pytest.FixtureRequest) -> tuple[LocalServer, str]:
    """Return a local server and the ARN of its MLflow server: one for processes, and one for containers."""
    local = request.getfixturevalue("processes" if request.param == "app" else "local")
    return local, request.getfixturevalue(request.param)


def get(tracked: tuple[LocalServer, str], path: str, **parameters: str) -> Any:
    """Send a request to an MLflow server as plain MLflow does: with its address and the token."""
    local, arn = tracked
    token = make_mlflow_token(local.home.server_key())
    url = f"{local.address.url}{MLFLOW_PATH}/{arn.rpartition(':')[2]}/api/2.0/mlflow/{path}"
    response = requests.get(url, parameters, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    response.raise_for_status()
    return response.json()


def read_items(items: list[dict[str, Any]]) -> Mapping[str, Any]:
    return {item["key"]: item["value"] for item in items}


# --- clients on the host ---


def test_plug_in_logs_and_registers_a_model(processes: LocalServer, app: str, tmp_path: Path) -> None:
    lines = run_program("mlflow", processes, tmp_path, "mlflow_tracking.py", app)
    found = json.loads(lines[-1])
    assert found.pop("artifact_uri").startswith(processes.uri("app/"))
    assert found == {
        "status": "FINISHED",
        "parameters": {"learning_rate": "0.1", "optimizer": "adam"},
        "losses": [[0, 1.0], [1, 0.5], [2, 0.33]],
        "artifact": "a note",
        "prediction": [2, 4],
        "versions": ["1"],
        "experiments": ["prices"],
    }


@pytest.mark.usefixtures("app")
def test_program_for_version_3_reads_tracked_runs(processes: LocalServer, tmp_path: Path) -> None:
    lines = run_program("sdk3", processes, tmp_path, "mlflow_v3.py", image_name(SHELL), processes.address.bucket)
    assert json.loads(lines[-1]) == {
        "apps": [True],
        "losses": [0.3, 0.2, 0.1],
        "run": ["one", "FINISHED", {"epochs": "3"}],
        "pipelines": ["Succeeded", ["Train"]],
        "chosen": ["Succeeded", ["Train"]],
    }


def test_plug_in_of_mlflow_deploys_registered_models(processes: LocalServer, app: str, tmp_path: Path) -> None:
    lines = run_program("mlflow", processes, tmp_path, "mlflow_deployment.py", image_name("serve"), app)
    assert json.loads(lines[-1]) == {
        "status": "InService",
        "listed": ["deployed"],
        "remaining": 0,
        "predictions": [[2, 4], [3, 6]],
    }


def test_program_of_the_page_logs_a_run(processes: LocalServer, app: str, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(import mlflow\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text(re.sub(r"arn:aws:sagemaker:[^\"]+", app, program))
    assert run_program("mlflow", processes, tmp_path, str(script))[-1].startswith(processes.uri("app/"))


# --- jobs ---


def test_job_continues_its_run(tracked: tuple[LocalServer, str]) -> None:
    local, arn = tracked
    inputs = [channel(name, local.uri(f"mlflow-{name}/")) for name in ("packages", "code")]
    (packages,) = (client_programs("mlflow").parent / "lib").glob("python*/site-packages")
    shutil.copytree(packages, local.bucket / "mlflow-packages", ignore=shutil.ignore_patterns(*UNUSED_PACKAGES))
    local.put({"mlflow-code/mlflow_job.py": PROGRAM.read_text()})
    job = local.train(
        f"PYTHONPATH={ROOT}/input/data/packages python3 {ROOT}/input/data/code/mlflow_job.py",
        InputDataConfig=inputs,
        HyperParameters={"epochs": "3", "optimizer": '"adam"'},
        MlflowConfig={"MlflowResourceArn": arn, "MlflowExperimentName": "jobs", "MlflowRunName": "first"},
        algorithm={"MetricDefinitions": [{"Name": "loss", "Regex": "loss: ([0-9.]+)"}]},
    )
    assert job["TrainingJobStatus"] == "Completed", local.read_logs("TrainingJobs", job["TrainingJobName"])
    run_id = job["MlflowDetails"]["MlflowRunId"]
    run = get(tracked, "runs/get", run_id=run_id)["run"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("first", "FINISHED")
    assert run["info"]["experiment_id"] == job["MlflowDetails"]["MlflowExperimentId"]
    assert get(tracked, "experiments/get-by-name", experiment_name="jobs")["experiment"]["lifecycle_stage"] == "active"
    assert read_items(run["data"]["params"]) == {"epochs": "3", "optimizer": "adam"}, "the job's own value stays"
    assert read_items(run["data"]["metrics"]) == {"accuracy": 0.5, "loss": 0.33}
    losses = get(tracked, "metrics/get-history", run_id=run_id, metric_key="loss")["metrics"]
    assert [(point["step"], point["value"]) for point in losses] == [(0, 1.0), (1, 0.5), (2, 0.33)]
    assert read_items(run["data"]["tags"])["sagemaker.training-job-arn"] == job["TrainingJobArn"]
    (artifact,) = local.bucket.glob(f"app/*/{run_id}/artifacts/weights.txt")
    assert artifact.read_text() == "weights"


def test_failed_job_fails_its_run(tracked: tuple[LocalServer, str]) -> None:
    local, arn = tracked
    job = local.train("exit 3", MlflowConfig={"MlflowResourceArn": arn})
    run = get(tracked, "runs/get", run_id=job["MlflowDetails"]["MlflowRunId"])["run"]
    assert (run["info"]["run_name"], run["info"]["status"]) == (job["TrainingJobName"], "FAILED")
    assert run["info"]["experiment_id"] == "0", "MLflow's experiment Default"
