"""Tests of the wheel, which is installed in a new virtual environment outside of the repository."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from microjobs_orchestrator.doctor.machine import check_package_index
from tests.conftest import REPOSITORY

SCRIPT = """
set -eu
microjobs --version
microjobs local up --detach --runtime process --port 0
trap 'microjobs local down' EXIT
eval "$(microjobs local env)"
python -c 'import boto3; print(boto3.client("sts").get_caller_identity()["Account"])'
python -c 'import boto3; print(boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"])'
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed: it builds the wheel")
    index_check = check_package_index(os.environ)
    if index_check.level != "ok":
        pytest.skip(index_check.message)
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(REPOSITORY)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_contains_only_packages_of_this_project(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"microjobs", "microjobs_orchestrator"}


def test_installed_server_answers_boto3(wheel: Path, tmp_path: Path) -> None:
    bin_path = tmp_path / "environment" / "bin"
    subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", str(bin_path.parent)], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(bin_path / "python"), str(wheel)], check=True)
    environment = {"PATH": f"{bin_path}:/usr/bin:/bin", "HOME": str(tmp_path), "MICROJOBS_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        ["bash", "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    version, *_, account, jobs, down_message = result.stdout.splitlines()
    assert version.startswith("microjobs ")
    assert (account, jobs, down_message) == ("000000000000", "[]", "stopped")
