"""One real MLflow server, which MLflow's client, signed requests and a browser use."""

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
from playwright.sync_api import sync_playwright

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer, running_server, wait_until
from tests.local.console.browsers import launch, require_chromium

NAME = "experiments"
ARN = f"arn:aws:sagemaker:us-east-1:000000000000:mlflow-tracking-server/{NAME}"
EXPERIMENT = "prices & <other> things"
START_SECONDS = 300.0
"""Time for the installation of MLflow and its first start."""
RUNS_API = "/api/2.0/mlflow/runs"


def wait_for_server(local: LocalServer) -> dict[str, Any]:
    described: dict[str, Any] = wait_until(
        lambda: local.sagemaker.describe_mlflow_tracking_server(TrackingServerName=NAME),
        lambda server: server["TrackingServerStatus"] != "Creating" and server["IsActive"] == "Active",
        seconds=START_SECONDS,
    )
    return described


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LocalServer]:
    """A local server with one MLflow server."""
    with running_server(folder, runtime="process") as local:
        local.sagemaker.create_mlflow_tracking_server(
            TrackingServerName=NAME,
            ArtifactStoreUri=local.uri("mlflow"),
            RoleArn=local.address.role_arn,
            AutomaticModelRegistration=True,
        )
        assert wait_for_server(local)["TrackingServerStatus"] == "Created"
        yield local


def run_client(local: LocalServer, folder: Path) -> dict[str, Any]:
    """Log a run with the MLflow client in the environment of the MLflow server, as the documentation shows."""
    (python,) = local.home.environments.glob("mlflow-*/bin/python")
    (folder / "note.txt").write_text("hello")
    script = f'eval "$(microjobs local env --mlflow {NAME})" && exec "$0" "$@"'
    client = Path(__file__).with_name("client.py")
    output = run(local, folder, "sh", "-c", script, python, client, EXPERIMENT, folder / "note.txt")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def run(local: LocalServer, folder: Path, *command: object) -> str:
    """Run a command of a user, and return its output."""
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "MICROJOBS_HOME": str(local.home.root),
    }
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def logged(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client printed about the run that it has logged."""
    return run_client(server, tmp_path_factory.mktemp("client"))


def send(local: LocalServer, method: str, path: str, body: Any = None) -> requests.Response:
    """Send a signed request to the MLflow server."""
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"x-mlflow-sm-tracking-server-arn": ARN, "Content-Type": "application/json"}
    url = f"{local.address.url}{path}"
    request = AWSRequest(method, url, headers, content)
    keys = Credentials(local.address.access_key_id, local.address.secret_access_key)
    SigV4Auth(keys, "sagemaker-mlflow", local.address.region).add_auth(request)
    return requests.request(method, url, headers=dict(request.headers), data=content, timeout=60)


def list_processes(local: LocalServer) -> list[str]:
    """Return the command lines of processes that name the home, except the local server's own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if str(local.home.root / "mlflow") in line:
            found.append(line)
    return found


def test_run_of_a_client_is_stored_with_its_artifact(server: LocalServer, logged: dict[str, Any]) -> None:
    assert (logged["loss"], logged["text"]) == ([pytest.approx(1 / 3)], "hello")
    (artifact,) = (server.bucket / "mlflow").rglob("note.txt")
    assert artifact.read_text() == "hello"
    run = send(server, "GET", f"{RUNS_API}/get?run_id={logged['run']}").json()["run"]
    assert run["data"]["params"] == [{"key": "learning_rate", "value": "0.1"}]
    assert run["info"]["artifact_uri"].startswith(server.uri("mlflow/"))


def test_list_has_the_active_server(server: LocalServer) -> None:
    (summary,) = server.sagemaker.list_mlflow_tracking_servers()["TrackingServerSummaries"]
    assert (summary["TrackingServerName"], summary["IsActive"]) == (NAME, "Active")


def test_artifact_is_read_through_the_server(server: LocalServer, logged: dict[str, Any]) -> None:
    assert send(server, "GET", f"/get-artifact?path=notes%2Fnote.txt&run_uuid={logged['run']}").text == "hello"


@pytest.mark.parametrize("location", ["file:///etc", "/etc", "http://127.0.0.1:1/", "ftp://example.com/"])
def test_locations_outside_of_buckets_are_refused(server: LocalServer, location: str) -> None:
    """A job in a container could otherwise read files of this machine."""
    body = {"name": f"at {location}", "artifact_location": location}
    created = send(server, "POST", "/api/2.0/mlflow/experiments/create", body)
    if created.ok:
        run = send(server, "POST", f"{RUNS_API}/create", {"experiment_id": created.json()["experiment_id"]})
        name = run.json()["run"]["info"]["run_id"]
        read = send(server, "GET", f"/get-artifact?path=hostname&run_uuid={name}")
        assert (read.status_code, "keeps artifacts in buckets" in read.text) == (400, True)


def test_large_artifact_is_streamed(server: LocalServer, logged: dict[str, Any]) -> None:
    size = 100 << 20
    (artifact,) = (path for path in (server.bucket / "mlflow").rglob("note.txt") if logged["run"] in str(path))
    with artifact.with_name("large.bin").open("wb") as file:
        file.truncate(size)
    pid = json.loads(server.home.server_file.read_text())["pid"]
    before = read_memory(pid)
    answer = send(server, "GET", f"/get-artifact?path=notes%2Flarge.bin&run_uuid={logged['run']}")
    assert len(answer.content) == size
    assert read_memory(pid) - before < size / 2


def read_memory(pid: int) -> int:
    """Return the largest memory that a process has used, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def test_hundreds_of_runs_are_listed(server: LocalServer) -> None:
    created = send(server, "POST", "/api/2.0/mlflow/experiments/create", {"name": "many"}).json()["experiment_id"]
    for number in range(200):
        body = {"experiment_id": created, "run_name": f"run {number}"}
        assert send(server, "POST", f"{RUNS_API}/create", body).ok
    search = {"experiment_ids": [created], "max_results": 1000}
    assert len(send(server, "POST", f"{RUNS_API}/search", search).json()["runs"]) == 200


def test_versions_of_models_become_model_packages(server: LocalServer, logged: dict[str, Any]) -> None:
    model, source = "prices of houses", server.uri(f"mlflow/1/{logged['run']}/artifacts/notes")
    assert send(server, "POST", "/api/2.0/mlflow/registered-models/create", {"name": model}).ok
    body = {"name": model, "source": source, "run_id": logged["run"]}
    for _ in range(2):
        answer = send(server, "POST", "/api/2.0/mlflow/model-versions/create", body)
        assert answer.json()["model_version"]["name"] == model
    listed = server.sagemaker.list_model_packages(ModelPackageGroupName="prices-of-houses", SortOrder="Ascending")
    arns = [item["ModelPackageArn"] for item in listed["ModelPackageSummaryList"]]
    assert [arn.rpartition("/")[2] for arn in arns] == ["1", "2"]
    described = server.sagemaker.describe_model_package(ModelPackageName=arns[1])
    assert (described["SourceUri"], described["ModelApprovalStatus"]) == (source, "PendingManualApproval")
    metadata = described["CustomerMetadataProperties"]
    assert (metadata["mlflow_model_version"], metadata["mlflow_run_id"]) == ("2", logged["run"])


@pytest.mark.usefixtures("logged")
def test_address_opens_the_pages_in_a_browser_once(server: LocalServer) -> None:
    require_chromium()
    create = server.sagemaker.create_presigned_mlflow_tracking_server_url
    address = create(TrackingServerName=NAME)["AuthorizedUrl"]
    with sync_playwright() as playwright, launch(playwright) as browser:
        page = browser.new_page()
        page.goto(address)
        page.get_by_text(EXPERIMENT).first.wait_for(timeout=60_000)
        assert "authToken" not in page.url
        other = browser.new_context().new_page()
        answer = other.goto(address)
        assert answer is not None
        assert (answer.status, "CreatePresigned" in answer.text()) == (401, True)


@pytest.mark.usefixtures("logged")
def test_console_opens_the_pages_in_another_tab(server: LocalServer) -> None:
    require_chromium()
    with sync_playwright() as playwright, launch(playwright) as browser:
        page = browser.new_page()
        page.goto(control.make_console_address(server.home, server.address))
        page.get_by_role("link", name=NAME, exact=True).click()
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="Open MLflow").click()
        opened.value.get_by_text(EXPERIMENT).first.wait_for(timeout=60_000)


def test_server_in_a_browser_without_a_session_is_refused(server: LocalServer) -> None:
    port = server.address.url.rpartition(":")[2]
    host = f"{'0' * 32}.mlflow.localhost:{port}"
    assert requests.get(f"{server.address.url}/", headers={"Host": host}, timeout=20).status_code == 401


def start_tracked_job(local: LocalServer) -> str:
    """Start a training job that runs until it is ended; return the id of its run in MLflow."""
    job = local.start_training("sleep 600", MlflowConfig={"MlflowResourceArn": ARN})
    described = local.wait_for_secondary_status(job, "Training")
    return str(described["MlflowDetails"]["MlflowRunId"])


def read_run(local: LocalServer, run: str) -> dict[str, Any]:
    found: dict[str, Any] = send(local, "GET", f"{RUNS_API}/get?run_id={run}").json()["run"]
    return found


def write_points(local: LocalServer, run: str, acknowledged: list[int]) -> None:
    """Log the points 0, 1, 2, … until the server is killed; add each acknowledged one to the list."""
    with suppress(requests.RequestException):
        for step in count():
            point = {"run_id": run, "key": "written", "value": step, "timestamp": step, "step": step}
            if not send(local, "POST", f"{RUNS_API}/log-metric", point).ok:
                return
            acknowledged.append(step)


def test_killed_local_server_leaves_no_process_and_loses_no_run(
    server: LocalServer, folder: Path, logged: dict[str, Any], tmp_path: Path
) -> None:
    """This test is the last one of the module, because the fixture's server is killed."""
    assert list_processes(server)
    tracked, acknowledged = start_tracked_job(server), list[int]()
    writer = Thread(target=write_points, args=(server, logged["run"], acknowledged))
    writer.start()
    wait_until(lambda: len(acknowledged), lambda points: points > 10)
    os.kill(json.loads(server.home.server_file.read_text())["pid"], signal.SIGKILL)
    writer.join()
    wait_until(lambda: list_processes(server), lambda found: not found)
    with running_server(folder, runtime="process") as after:
        assert wait_for_server(after)["TrackingServerStatus"] == "Created"
        path = f"/api/2.0/mlflow/metrics/get-history?run_id={logged['run']}&metric_key=written"
        steps = [point["step"] for point in send(after, "GET", path).json()["metrics"]]
        assert steps[: len(acknowledged)] == acknowledged
        assert len(steps) <= len(acknowledged) + 1, "only the last point may have been stored without an answer"
        wait_until(lambda: read_run(after, tracked)["info"]["status"], lambda status: status == "FAILED")
        ended = start_tracked_job(after)
    wait_until(lambda: list_processes(server), lambda found: not found)
    database = server.home.mlflow / "mlflow-tracking-server" / NAME / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT status FROM runs WHERE run_uuid = ?", (ended,)).fetchone() == ("FAILED",)
    with running_server(folder, runtime="process") as last:
        assert run(last, tmp_path, "microjobs", "stop", NAME) == f"MLflow server {NAME} is being stopped\n"
        wait_until(lambda: list_processes(last), lambda found: not found)
        (row,) = (line for line in run(last, tmp_path, "microjobs", "ps").splitlines() if NAME in line)
        assert row.split()[:4] == ["MLflow", "server", NAME, "Stopped"]
