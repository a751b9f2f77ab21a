"""Tests of programs whose jobs name AWS's framework images, on servers with `--framework-images`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local import own_images
from tests.clients.environments import run_program
from tests.local.clients import LocalServer, run_server
from tests.packages import make_wheel

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

FILES = {"sklearn": {"model.joblib"}, "tensorflow": {"1/saved_model.pb"}, "pytorch": {"model.pth"}}
"""Files that the training script for each framework must save."""


@pytest.fixture(scope="module", params=["docker", "process"])
def framework_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("home")
    with run_server(folder, runtime=request.param, framework_images=True) as server:
        yield server


@pytest.fixture
def docker_framework_server(tmp_path: Path) -> Iterator[LocalServer]:
    with run_server(tmp_path / "home", runtime="docker", framework_images=True) as server:
        yield server


def test_scripts_of_processors_for_sdk_v2_run(framework_server: LocalServer, tmp_path: Path) -> None:
    lines = run_program("sdk", framework_server, tmp_path, "processors_v2.py", make_wheel(tmp_path))
    assert json.loads(lines[-1]) == {
        "sklearn": [0.0, 1.0],
        "parquet": ["parquet/frame.parquet"],
        "framework": "helper 7 ['--x', 'a b']",
        "shell": True,
        "dask": "['helper 0', 'helper 7', 'helper 14'] ['algo-1', 'algo-2']",
    }
    # The SDK prints the jobs' logs.
    assert any("instead of 0.23-1, Python 3.11 instead of 3" in line for line in lines)


def test_scripts_of_processors_for_sdk_v3_run(framework_server: LocalServer, tmp_path: Path) -> None:
    lines = run_program("sdk3", framework_server, tmp_path, "processors_v3.py", make_wheel(tmp_path))
    assert json.loads(lines[-1]) == {"script": "--rows 3", "framework": "7 ['x']"}


def test_scripts_of_estimators_run(framework_server: LocalServer, tmp_path: Path) -> None:
    results = json.loads(run_program("sdk", framework_server, tmp_path, "estimators_v2.py", make_wheel(tmp_path))[-1])
    assert results.pop("transformed") == [5.5, 3.0]
    for name, files in FILES.items():
        assert files <= set(results[name]["files"]), name
        assert results[name]["loss"] < 0.01, name
        assert results[name]["predicted"] == [5.5, 5.5], name


# typical_v3.py runs the script of a ModelTrainer in a container, so this test needs only processes.
@pytest.mark.parametrize("framework_server", ["process"], indirect=True)
def test_script_of_model_trainer_runs(framework_server: LocalServer, tmp_path: Path) -> None:
    lines = run_program("sdk3", framework_server, tmp_path, "trainers_v3.py", make_wheel(tmp_path))
    assert json.loads(lines[-1]) == {"files": ["total.txt"], "total": 12.0}


@pytest.mark.timeout(1500)
def test_cells_of_the_housing_notebook_run(docker_framework_server: LocalServer, boston: Path, tmp_path: Path) -> None:
    version = own_images.find_locked_version("train-tensorflow", "tensorflow-cpu")
    arguments = (boston, docker_framework_server.address.bucket, version)
    results = json.loads(run_program("sdk290", docker_framework_server, tmp_path, "notebook_cells.py", *arguments)[-1])
    assert results["processed"] == "Completed"
    assert results["saved_model"]
    assert results["trials"] == {"Completed": 6}
    assert results["hours"] > 0
    assert results["best"] < 60
    errors = [abs(p - t) for p, t in zip(results["predictions"], results["targets"], strict=True)]
    assert sum(errors) / len(errors) < 6
    label, _, mse = results["report"].partition(" : ")
    assert (label, float(mse) == pytest.approx(results["best"], rel=0.01)) == ("Test MSE", True)
