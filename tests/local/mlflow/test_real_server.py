"""Tests of a real MLflow server with MLflow's client, signed requests and a browser."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from playwright.sync_api import Browser, sync_playwright

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer, run_server
from tests.local.console.browsers import launch, require_chromium
from tests.polling import wait_until

pytestmark = pytest.mark.slow

NAME = "experiments"
ARN = f"arn:aws:sagemaker:us-east-1:000000000000:mlflow-tracking-server/{NAME}"
EXPERIMENT = "prices & <other> things"
START_SECONDS = 300.0
"""Time for the installation of MLflow and its first start."""
RUNS_API = "/api/2.0/mlflow/runs"


def wait_for_mlflow_server(server: LocalServer) -> dict[str, Any]:
    description: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_mlflow_tracking_server(TrackingServerName=NAME),
        lambda response: response["TrackingServerStatus"] != "Creating" and response["IsActive"] == "Active",
        seconds=START_SECONDS,
    )
    return description


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LocalServer]:
    """A local server with one MLflow server."""
    with run_server(folder, runtime="process") as server:
        server.sagemaker.create_mlflow_tracking_server(
            TrackingServerName=NAME,
            ArtifactStoreUri=server.uri("mlflow"),
            RoleArn=server.address.role_arn,
            AutomaticModelRegistration=True,
        )
        assert wait_for_mlflow_server(server)["TrackingServerStatus"] == "Created"
        yield server


def run_client(server: LocalServer, folder: Path) -> dict[str, Any]:
    """Log a run with the MLflow client in the environment of the MLflow server, as the documentation shows."""
    (python,) = server.home.environments.glob("mlflow-*/bin/python")
    (folder / "note.txt").write_text("hello")
    script = f'eval "$(microjobs local env --mlflow {NAME})" && exec "$0" "$@"'
    client = Path(__file__).with_name("client.py")
    output = run_command(server, folder, "sh", "-c", script, python, client, EXPERIMENT, folder / "note.txt")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def run_command(server: LocalServer, folder: Path, *command: object) -> str:
    """Run a command as a user does; return its output."""
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "MICROJOBS_HOME": str(server.home.root),
    }
    result = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def logged_run(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The client's output about the run that it has logged."""
    return run_client(server, tmp_path_factory.mktemp("client"))


def send(server: LocalServer, method: str, path: str, body: Any = None) -> requests.Response:
    """Send a signed request to the MLflow server."""
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"x-mlflow-sm-tracking-server-arn": ARN, "Content-Type": "application/json"}
    url = f"{server.address.url}{path}"
    request = AWSRequest(method, url, headers, content)
    credentials = Credentials(server.address.access_key_id, server.address.secret_access_key)
    SigV4Auth(credentials, "sagemaker-mlflow", server.address.region).add_auth(request)
    return requests.request(method, url, headers=dict(request.headers), data=content, timeout=60)


def list_processes(server: LocalServer) -> list[str]:
    """Return the command lines of the MLflow servers' processes: those that contain the home's folder `mlflow`."""
    command_lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # the process has ended
            continue
        if str(server.home.root / "mlflow") in line:
            command_lines.append(line)
    return command_lines


def test_run_of_a_client_is_stored_with_its_artifact(server: LocalServer, logged_run: dict[str, Any]) -> None:
    assert (logged_run["loss"], logged_run["text"]) == ([pytest.approx(1 / 3)], "hello")
    (artifact,) = (server.bucket / "mlflow").rglob("note.txt")
    assert artifact.read_text() == "hello"
    run = send(server, "GET", f"{RUNS_API}/get?run_id={logged_run['run']}").json()["run"]
    assert run["data"]["params"] == [{"key": "learning_rate", "value": "0.1"}]
    assert run["info"]["artifact_uri"].startswith(server.uri("mlflow/"))


def test_active_server_is_listed(server: LocalServer) -> None:
    (summary,) = server.sagemaker.list_mlflow_tracking_servers()["TrackingServerSummaries"]
    assert (summary["TrackingServerName"], summary["IsActive"]) == (NAME, "Active")


def test_artifact_is_read_through_the_server(server: LocalServer, logged_run: dict[str, Any]) -> None:
    assert send(server, "GET", f"/get-artifact?path=notes%2Fnote.txt&run_uuid={logged_run['run']}").text == "hello"


@pytest.mark.parametrize("location", ["file:///etc", "/etc", "http://127.0.0.1:1/", "ftp://example.com/"])
def test_locations_outside_of_buckets_are_refused(server: LocalServer, location: str) -> None:
    """A job in a container could otherwise read files of this machine."""
    body = {"name": f"at {location}", "artifact_location": location}
    response = send(server, "POST", "/api/2.0/mlflow/experiments/create", body)
    if response.ok:
        run = send(server, "POST", f"{RUNS_API}/create", {"experiment_id": response.json()["experiment_id"]})
        run_id = run.json()["run"]["info"]["run_id"]
        response = send(server, "GET", f"/get-artifact?path=hostname&run_uuid={run_id}")
        assert (response.status_code, "keeps artifacts in buckets" in response.text) == (400, True)


def test_large_artifact_is_streamed(server: LocalServer, logged_run: dict[str, Any]) -> None:
    size = 40 << 20
    (artifact,) = (path for path in (server.bucket / "mlflow").rglob("note.txt") if logged_run["run"] in str(path))
    with artifact.with_name("large.bin").open("wb") as file:
        file.truncate(size)
    pid = json.loads(server.home.server_file.read_text())["pid"]
    memory_before = read_peak_memory(pid)
    response = send(server, "GET", f"/get-artifact?path=notes%2Flarge.bin&run_uuid={logged_run['run']}")
    assert len(response.content) == size
    assert read_peak_memory(pid) - memory_before < size / 2


def read_peak_memory(pid: int) -> int:
    """Return the largest memory that a process has used at any time, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def test_hundreds_of_runs_are_listed(server: LocalServer) -> None:
    experiment_id = send(server, "POST", "/api/2.0/mlflow/experiments/create", {"name": "many"}).json()["experiment_id"]
    for number in range(200):
        body = {"experiment_id": experiment_id, "run_name": f"run {number}"}
        assert send(server, "POST", f"{RUNS_API}/create", body).ok
    query = {"experiment_ids": [experiment_id], "max_results": 1000}
    assert len(send(server, "POST", f"{RUNS_API}/search", query).json()["runs"]) == 200


def test_versions_of_models_become_model_packages(server: LocalServer, logged_run: dict[str, Any]) -> None:
    model, source = "prices of houses", server.uri(f"mlflow/1/{logged_run['run']}/artifacts/notes")
    assert send(server, "POST", "/api/2.0/mlflow/registered-models/create", {"name": model}).ok
    body = {"name": model, "source": source, "run_id": logged_run["run"]}
    for _ in range(2):
        response = send(server, "POST", "/api/2.0/mlflow/model-versions/create", body)
        assert response.json()["model_version"]["name"] == model
    summaries = server.sagemaker.list_model_packages(ModelPackageGroupName="prices-of-houses", SortOrder="Ascending")
    arns = [item["ModelPackageArn"] for item in summaries["ModelPackageSummaryList"]]
    assert [arn.rpartition("/")[2] for arn in arns] == ["1", "2"]
    description = server.sagemaker.describe_model_package(ModelPackageName=arns[1])
    assert (description["SourceUri"], description["ModelApprovalStatus"]) == (source, "PendingManualApproval")
    metadata = description["CustomerMetadataProperties"]
    assert (metadata["mlflow_model_version"], metadata["mlflow_run_id"]) == ("2", logged_run["run"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_chromium()
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.mark.usefixtures("logged_run")
def test_address_opens_the_pages_in_a_browser_once(server: LocalServer, browser: Browser) -> None:
    create = server.sagemaker.create_presigned_mlflow_tracking_server_url
    address = create(TrackingServerName=NAME)["AuthorizedUrl"]
    with browser.new_context() as context, browser.new_context() as other_context:
        page = context.new_page()
        page.goto(address)
        page.get_by_text(EXPERIMENT).first.wait_for(timeout=60_000)
        assert "authToken" not in page.url
        response = other_context.new_page().goto(address)
        assert response is not None
        assert (response.status, "CreatePresigned" in response.text()) == (401, True)


@pytest.mark.usefixtures("logged_run")
def test_console_opens_the_pages_in_another_tab(server: LocalServer, browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(control.make_console_address(server.home, server.address))
        page.get_by_role("link", name=NAME, exact=True).click()
        with context.expect_page() as new_page:
            page.get_by_role("button", name="Open MLflow").click()
        new_page.value.get_by_text(EXPERIMENT).first.wait_for(timeout=60_000)


def test_browser_without_a_session_is_refused(server: LocalServer) -> None:
    port = server.address.url.rpartition(":")[2]
    host = f"{'0' * 32}.mlflow.localhost:{port}"
    assert requests.get(f"{server.address.url}/", headers={"Host": host}, timeout=20).status_code == 401


def start_tracked_job(server: LocalServer) -> str:
    """Start a training job that runs until it is stopped or killed; return the id of its run in MLflow."""
    job = server.start_training("sleep 600", MlflowConfig={"MlflowResourceArn": ARN})
    description = server.wait_for_secondary_status(job, "Training")
    return str(description["MlflowDetails"]["MlflowRunId"])


def read_run(server: LocalServer, run_id: str) -> dict[str, Any]:
    description: dict[str, Any] = send(server, "GET", f"{RUNS_API}/get?run_id={run_id}").json()["run"]
    return description


def write_points(server: LocalServer, run_id: str, acknowledged_steps: list[int]) -> None:
    """Log the points 0, 1, 2, … until the server is killed. Add the step of each acknowledged point to a list."""
    with suppress(requests.RequestException):
        for step in count():
            point = {"run_id": run_id, "key": "written", "value": step, "timestamp": step, "step": step}
            if not send(server, "POST", f"{RUNS_API}/log-metric", point).ok:
                return
            acknowledged_steps.append(step)


def test_killed_local_server_leaves_no_process_and_loses_no_run(
    server: LocalServer, folder: Path, logged_run: dict[str, Any], tmp_path: Path
) -> None:
    """This test is the last one of the module, because the fixture's server is killed."""
    assert list_processes(server)
    run_id, acknowledged_steps = start_tracked_job(server), list[int]()
    writer = Thread(target=write_points, args=(server, logged_run["run"], acknowledged_steps))
    writer.start()
    wait_until(lambda: len(acknowledged_steps), lambda point_count: point_count > 10)
    os.kill(json.loads(server.home.server_file.read_text())["pid"], signal.SIGKILL)
    writer.join()
    wait_until(lambda: list_processes(server), lambda processes: not processes)
    with run_server(folder, runtime="process") as next_server:
        assert wait_for_mlflow_server(next_server)["TrackingServerStatus"] == "Created"
        path = f"/api/2.0/mlflow/metrics/get-history?run_id={logged_run['run']}&metric_key=written"
        steps = [point["step"] for point in send(next_server, "GET", path).json()["metrics"]]
        assert steps[: len(acknowledged_steps)] == acknowledged_steps
        assert len(steps) <= len(acknowledged_steps) + 1, "only the last point may have been stored without an answer"
        wait_until(lambda: read_run(next_server, run_id)["info"]["status"], lambda status: status == "FAILED")
        last_run_id = start_tracked_job(next_server)
    wait_until(lambda: list_processes(server), lambda processes: not processes)
    database = server.home.mlflow / "mlflow-tracking-server" / NAME / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT status FROM runs WHERE run_uuid = ?", (last_run_id,)).fetchone() == (
            "FAILED",
        )
    with run_server(folder, runtime="process") as last_server:
        assert (
            run_command(last_server, tmp_path, "microjobs", "stop", NAME) == f"MLflow server {NAME} is being stopped\n"
        )
        wait_until(lambda: list_processes(last_server), lambda processes: not processes)
        (row,) = (line for line in run_command(last_server, tmp_path, "microjobs", "ps").splitlines() if NAME in line)
        assert row.split()[:4] == ["MLflow", "server", NAME, "Stopped"]
