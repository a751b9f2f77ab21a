"""Tests of the wheel, which is installed in a new virtual environment outside of the repository."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.doctor.machine import INDEX_VARIABLES, check_package_index
from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.home import Home
from tests.conftest import REPOSITORY, build_image_from_base, get_base_image_name, make_image_name
from tests.polling import wait_until

pytestmark = pytest.mark.slow

SERVER_SCRIPT = """
set -eu
microjobs --version
microjobs local up --detach --runtime RUNTIME --port 0 > up
trap 'microjobs local down' EXIT
eval "$(microjobs local env)"
python job.py
"""
CLIENT_PROGRAM = """
import sys
import time
import boto3

sagemaker = boto3.client("sagemaker")
sagemaker.create_processing_job(
    ProcessingJobName="job",
    AppSpecification=SPECIFICATION,
    ProcessingResources={
        "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
    },
    RoleArn="arn:aws:iam::000000000000:role/any",
)
while (job := sagemaker.describe_processing_job(ProcessingJobName="job"))["ProcessingJobStatus"] == "InProgress":
    time.sleep(0.2)
if job["ProcessingJobStatus"] != "Completed":
    sys.exit(job["FailureReason"])
print(job["ExitMessage"].strip())
"""
FIND_PACKAGES_PROGRAM = (
    "from importlib.util import find_spec; import numpy; from microjobs.contract import Layout; "
    "layout = Layout.from_environment(); layout.output.mkdir(exist_ok=True); "
    "layout.message.write_text(f'found numpy, cheroot: {find_spec(\"cheroot\")}')"
)
"""Program of a job. It reports whether it finds a package of its image and a package of the server."""
INHERITED_VARIABLES = ("DOCKER_HOST", "LOCAL_PACKAGES", "PIP_CERT", "SSL_CERT_FILE", *INDEX_VARIABLES)
"""Environment variables that the installed server inherits: those of the engine and of the package index."""


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


@pytest.fixture(scope="module")
def program_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with the locked dependencies into a new environment; return the folder of its programs."""
    folder = tmp_path_factory.mktemp("installed")
    lock, environment = folder / "requirements.txt", folder / "environment"
    export = ["uv", "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--output-file", str(lock)]
    subprocess.run(export, cwd=REPOSITORY, check=True)
    subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", str(environment)], check=True)
    install = ["uv", "pip", "install", "--quiet", "--python", str(environment / "bin" / "python")]
    subprocess.run([*install, "--requirements", str(lock)], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    return environment / "bin"


def run_job(program_folder: Path, folder: Path, runtime: str, specification: dict[str, Any]) -> list[str]:
    """Run a processing job on an installed server in an empty folder; return the lines of the output."""
    (folder / "job.py").write_text(CLIENT_PROGRAM.replace("SPECIFICATION", repr(specification)))
    inherited_variables = {name: value for name, value in os.environ.items() if name in INHERITED_VARIABLES}
    (tools := folder / "tools").mkdir()
    (tools / "uv").symlink_to(shutil.which("uv") or "")  # pip would need 8 s of CPU time to install an image's packages
    cache = subprocess.check_output(["uv", "cache", "dir"], text=True).strip()
    environment = {
        **inherited_variables,
        "PATH": f"{tools}:{program_folder}:/usr/bin:/bin",
        "HOME": str(folder),
        "UV_CACHE_DIR": cache,
    }
    script = ["bash", "-c", SERVER_SCRIPT.replace("RUNTIME", runtime)]
    result = subprocess.run(
        script, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_installed_server_runs_the_jobs_as_processes(program_folder: Path, tmp_path: Path) -> None:
    command = {"ContainerEntrypoint": ["python", "-c", FIND_PACKAGES_PROGRAM]}
    version, result, down_message = run_job(
        program_folder, tmp_path, "process", {"ImageUri": make_image_name("serve"), **command}
    )
    assert version.startswith("microjobs ")
    assert (result, down_message) == ("found numpy, cheroot: None", "stopped")


@pytest.mark.engine
def test_installed_server_runs_the_image_of_a_user(program_folder: Path, tmp_path: Path) -> None:
    message = Layout().message
    command = f"mkdir -p {message.parent}; echo hello from my image > {message}"
    with build_image_from_base(get_base_image_name(), f'ENTRYPOINT ["sh", "-c", "{command}"]') as image:
        _, result, down_message = run_job(program_folder, tmp_path, "docker", {"ImageUri": image})
    assert (result, down_message) == ("hello from my image", "stopped")


def test_pip_installs_the_server(wheel: Path, tmp_path: Path) -> None:
    """pip chooses the versions of the dependencies. uv is not on the PATH."""
    subprocess.run([sys.executable, "-m", "venv", "environment"], cwd=tmp_path, check=True)
    pip = ["environment/bin/pip", "install", "--quiet", "--no-compile", str(wheel)]
    subprocess.run(pip, cwd=tmp_path, check=True)
    inherited_variables = {name: value for name, value in os.environ.items() if name in INHERITED_VARIABLES}
    environment = {**inherited_variables, "PATH": f"{tmp_path}/environment/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    script = "microjobs local up --detach --runtime process --port 0 && microjobs local down"
    result = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("stopped\n")


def test_uvx_runs_the_server_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    command = ["uv", "tool", "run", "--python", "3.11", "--from", str(wheel), "microjobs", "local", "up", "--port", "0"]
    environment = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    environment.pop("MICROJOBS_HOME", None)
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    home = Home(tmp_path / ".microjobs")
    try:
        wait_until(home.server_file.exists, bool, seconds=60)
        assert control.find_server(home) is not None
    finally:
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert control.find_server(home) is None


@pytest.mark.parametrize("client", ["sdk", "sdk3"])
def test_package_can_be_installed_with_the_sdk(wheel: Path, tmp_path: Path, client: str) -> None:
    lock = (REPOSITORY / "tests" / "clients" / f"{client}.lock").read_text()
    (requirement,) = re.findall(r"^sagemaker==[\d.]+", lock, re.MULTILINE)
    (tmp_path / "requirements.in").write_text(f"{requirement}\nmicrojobs @ {wheel.as_uri()}\n")
    resolved_lock = tmp_path / "requirements.txt"
    resolved_lock.write_text(lock)  # uv prefers the versions of an existing output file
    command = ["uv", "pip", "compile", "--quiet", "--python-version", "3.11", "requirements.in"]
    command += ["--output-file", str(resolved_lock)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"\n{requirement}\n" in resolved_lock.read_text()
    assert "\nmicrojobs @ " in resolved_lock.read_text()
