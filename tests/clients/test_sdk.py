"""Tests of the unmodified SageMaker SDK v2 with the local server."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.bundles import write_linear_bundle
from tests.clients.environments import run_program
from tests.conftest import make_image_name
from tests.local.clients import LocalServer, run_server

pytestmark = pytest.mark.engine


def run_sdk_program(server: LocalServer, folder: Path, script: str, *arguments: object) -> list[str]:
    return run_program("sdk", server, folder, script, *arguments)


def test_script_runs_in_the_alias_of_an_aws_image(tmp_path: Path) -> None:
    aliases = {"*.dkr.ecr.*.amazonaws.com/sagemaker-scikit-learn:*": make_image_name("preprocess")}
    with run_server(tmp_path / "home", runtime="docker", images=aliases) as server:
        assert run_sdk_program(server, tmp_path, "sklearn_processor.py", tmp_path)[-1] == "mean 0.000000 std 1.000000"


@pytest.mark.timeout(900)
def test_housing_notebook_runs(server: LocalServer, boston: Path, tmp_path: Path) -> None:
    lines = run_sdk_program(server, tmp_path, "housing_notebook.py", boston, tmp_path, make_image_name("{}"))
    results = json.loads(lines[-1])
    assert results["best"] < 30
    assert len(results["predictions"]) == 10
    assert sum(abs(p - t) for p, t in zip(results["predictions"], results["targets"], strict=True)) / 10 < 6
    assert results["report"].startswith("Test MSE : ")
    assert any(" val_loss: " in line for line in lines)  # fit() has printed the job's log
    assert results["endpoints"] == []


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of a model that sums its three features."""
    write_linear_bundle(tmp_path / "model", [1.0] * 3, 0.0)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model", ".")
    return tmp_path / "model.tar.gz"


def test_sdk_predicts_asynchronously_and_joins_inputs(server: LocalServer, archive: Path, tmp_path: Path) -> None:
    results = json.loads(run_sdk_program(server, tmp_path, "asynchronous_v2.py", make_image_name("serve"), archive)[-1])
    assert results["predicted"] == [["6.0"], ["15.0"]]
    assert "oops" in results["failure"]
    assert results["joined"] == "first,6.0\nsecond,15.0\n"
