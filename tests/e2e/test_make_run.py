"""`make run`, the README's first command, in a copy of the repository: with and without an engine or a registry."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.local.home import Home
from tests.e2e.conftest import copy_tracked_files, remove_images
from tests.local.clients import create_home_with_shared_environments

pytestmark = pytest.mark.slow

SETTINGS = ("LOCAL_PACKAGES", "MICROJOBS_HOME", "PYTHON_IMAGE", "REGISTRY", "REVISION", "TAG", "TORCH_INDEX_URL")
"""Variables that new users have not set."""

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
NO_REGISTRY = {"PYTHON_IMAGE": "registry.invalid/python:3.11", "TAG": "not-built"}
FAST_OPTIONS = "--no-tuning --epochs 3"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all tests of this file. Its jobs share the installed virtual environments with jobs of other tests,
    because each installation takes 10 s."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_tracked_files(folder)
    create_home_with_shared_environments(Home(folder / ".microjobs"))
    return folder


def run_make(checkout: Path, target: str, options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return subprocess.run(
        ["make", target, f"OPTIONS={options}"],
        cwd=checkout,
        env=environ | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def assert_ran_as_processes(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "jobs run on this machine, runtime process" in result.stdout
    assert "Test MSE, trained" in result.stdout
    assert "report.html" in result.stdout


def test_jobs_run_as_processes_without_an_engine(checkout: Path) -> None:
    assert_ran_as_processes(run_make(checkout, "run", FAST_OPTIONS, **NO_ENGINE))


@pytest.mark.engine
def test_jobs_run_as_processes_without_a_registry(checkout: Path) -> None:
    result = run_make(checkout, "run", FAST_OPTIONS, **NO_REGISTRY)
    assert_ran_as_processes(result)
    (line,) = [line for line in result.stdout.splitlines() if "cannot pull registry.invalid/python:3.11" in line]
    assert "the jobs run as processes" in line
    assert "docs/maintaining/building.md" in line


@pytest.mark.engine
def test_docker_runtime_without_a_registry_is_refused_with_a_remedy(checkout: Path) -> None:
    result = run_make(checkout, "run", "--runtime docker", **NO_REGISTRY)
    assert result.returncode != 0
    assert "microjobs: The Docker engine cannot pull registry.invalid/python:3.11" in result.stderr
    assert "--runtime process needs no images" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def build_settings() -> Iterator[dict[str, str]]:
    """The build settings of this machine, with a new tag. After the test, the images with this tag are removed."""
    tag = f"test-{uuid.uuid4().hex[:8]}"
    yield {name: os.environ[name] for name in SETTINGS if name in os.environ} | {"TAG": tag, "MICROJOBS_HOME": ".home"}
    remove_images(tag)


@pytest.mark.engine
def test_run_builds_only_the_images_of_the_workflow(checkout: Path, build_settings: dict[str, str]) -> None:
    result = run_make(checkout, "run", FAST_OPTIONS, **build_settings)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "jobs run on this machine, runtime docker" in result.stdout
    assert "Test MSE, trained" in result.stdout
    assert f"microjobs/train-pytorch:{build_settings['TAG']}" not in result.stdout
