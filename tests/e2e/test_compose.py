"""The jobs of the Compose files, started as a user starts them, in a separate checkout."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.e2e.conftest import OWNER_ID, ComposeProject
from tests.images.training import LINEAR_REGRESSION_MSE, STRAIGHT_LINE_TABLE

pytestmark = pytest.mark.engine

RESULTS = [
    "batch/predicted-versus-target.png",
    "batch/predictions.npy",
    "batch/report.json",
    "batch/score-report.txt",
    "train/scaler.json",
    "train-pytorch/model/model.onnx",
    "train-pytorch/model/model.pth",
    "train-pytorch/output/data/metrics.json",
    "train-tensorflow/model/1/saved_model.pb",
    "train-tensorflow/model/model.onnx",
    "train-tensorflow/output/data/metrics.json",
]


def read_curl_command(port: int) -> list[str]:
    """Return the README's command that invokes the endpoint."""
    match = re.search(r"^ *(curl .*?)$(?<!\\)", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None
    return shlex.split(match[1].replace("\\\n", " ").replace("127.0.0.1:8080", f"127.0.0.1:{port}"))


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("docker-compose.*.yml")), ids=lambda path: path.name)
def test_override_is_valid(path: Path) -> None:
    files = ["--file", str(REPOSITORY / "docker-compose.yml"), "--file", str(path)]
    result = subprocess.run(["docker", "compose", *files, "config"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_housing_runs_to_its_report_and_the_endpoint_answers(compose_project: ComposeProject) -> None:
    for path in [compose_project.checkout, *compose_project.checkout.rglob("*")]:
        os.chown(path, OWNER_ID, OWNER_ID)
    output = compose_project.run()

    report = json.loads((compose_project.artifacts / "batch" / "report.json").read_text())
    metrics = json.loads((compose_project.artifacts / "train-tensorflow/output/data/metrics.json").read_text())
    assert report["mse"] == pytest.approx(metrics["test_mse"], rel=1e-4)
    result_lines = output[output.rindex("Test MSE :") :].splitlines()
    assert result_lines[0] == f"Test MSE : {report['mse']}"
    predictions, targets = (line.split(":")[1].split() for line in result_lines[1:3])
    np.testing.assert_allclose(
        np.array(predictions, float), np.load(compose_project.artifacts / "batch/predictions.npy")[:10], atol=0.051
    )
    np.testing.assert_allclose(
        np.array(targets, float), np.load(compose_project.artifacts / "test/y_test.npy")[:10], atol=0.051
    )

    assert [name for name in RESULTS if not (compose_project.artifacts / name).is_file()] == []
    assert {path.stat().st_uid for path in compose_project.artifacts.rglob("*")} == {OWNER_ID}

    response = subprocess.run(read_curl_command(compose_project.port), capture_output=True, text=True, check=True)
    assert len(json.loads(response.stdout)["predictions"]) == 1

    compose_project.down()
    assert compose_project.list_leftovers() == []


def test_docker_compose_up_builds_and_runs_a_clean_checkout(compose_project: ComposeProject) -> None:
    """Run exactly the README's command, with names of images that do not exist yet."""
    compose_project.settings |= {"TAG": compose_project.name}
    try:
        compose_project.run_compose_up_until("report-1 exited with code 0")
        assert "Test MSE : " in compose_project.read_log("report")
        assert [name for name in RESULTS if not (compose_project.artifacts / name).is_file()] == []
    finally:
        compose_project.down()
        compose_project.remove_images()


@pytest.mark.parametrize(
    ("job", "option", "reason"),
    [
        ("batch-score", "--signature=none", "invalid choice: 'none'"),
        ("report", "--none", "arguments: --none"),
    ],
)
def test_failing_last_job_stops_the_endpoint(
    compose_project: ComposeProject, job: str, option: str, reason: str
) -> None:
    """The endpoint does not depend on batch-score or on the report, but must stop when one of them fails."""
    override = compose_project.checkout / "docker-compose.spoilt.yml"
    override.write_text(f"services: {{{job}: {{command: [{option}]}}}}")
    assert reason in compose_project.run("spoilt", exit_code=1)
    assert compose_project.list_leftovers() == []


def test_four_hosts_scale_boston_as_one_host_does_and_beat_linear_regression(
    compose_project: ComposeProject, boston: Path
) -> None:
    data = compose_project.checkout / "boston"
    data.mkdir()
    shutil.copy(boston, data)
    compose_project.settings = {"DATASET": "boston --from boston_housing.npz", "DATA": str(data)}
    assert "do not authenticate each other" not in compose_project.run("four-hosts")
    assert json.loads((compose_project.artifacts / "batch/report.json").read_text())["mse"] < LINEAR_REGRESSION_MSE
    four_host_arrays = {path.name: np.load(path) for path in compose_project.artifacts.glob("t*/*.npy")}
    assert len(four_host_arrays) == 4
    compose_project.run_service("preprocess")
    for path in compose_project.artifacts.glob("t*/*.npy"):
        np.testing.assert_allclose(four_host_arrays[path.name], np.load(path), rtol=1e-12)


def test_straight_line_prints_the_table_of_the_notebook(compose_project: ComposeProject) -> None:
    """The notebook is the PyTorch notebook on which the workflow `straight-line` is based."""
    output = compose_project.run("straight-line")
    table = re.findall(r"Epoch: \d+ \| Train loss: \S+ \| Test loss: \S+", output)
    assert table == STRAIGHT_LINE_TABLE.splitlines()
    request = urllib.request.Request(
        f"http://127.0.0.1:{compose_project.port}/invocations",
        b'{"instances": [[0.8]]}',
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        predicted = json.load(response)["predictions"][0][0]
    assert f"{predicted:.4f}" == "1.1464"  # the notebook's first prediction


def test_failing_job_stops_the_other_jobs_and_shows_its_reason(compose_project: ComposeProject) -> None:
    compose_project.settings = {"EPOCHS": "many"}
    output = compose_project.run(exit_code=1)
    assert "ERROR hyperparameters: epochs = 'many' is not a whole number" in output
    assert compose_project.list_leftovers() == []
    assert (
        (compose_project.artifacts / "train-pytorch/output/failure").read_text().startswith("hyperparameters: epochs")
    )


def test_interrupted_run_leaves_nothing_behind(compose_project: ComposeProject) -> None:
    compose_project.settings = {"EPOCHS": "100000"}
    process = compose_project.start()
    assert process.stdout is not None
    jobs_without_epochs = {"train-pytorch", "train-tensorflow"}
    for line in process.stdout:
        jobs_without_epochs -= {job for job in jobs_without_epochs if job in line and "Epoch" in line}
        if not jobs_without_epochs:
            break
    start_time = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=110)
    assert process.returncode == 130
    # A job that ignores the signal is killed after 110 s.
    assert time.monotonic() - start_time < 80
    assert compose_project.list_leftovers() == []
    for job in ("train-pytorch", "train-tensorflow"):  # a job that was killed has saved no model
        assert (compose_project.artifacts / job / "model/manifest.json").is_file()
