"""`make run`, the README's first command, in a copy of the repository: with and without an engine or a registry."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import copy_tracked_files, remove_images

SETTINGS = ("LOCAL_PACKAGES", "MICROJOBS_HOME", "PYTHON_IMAGE", "REGISTRY", "REVISION", "TAG", "TORCH_INDEX_URL")
"""Variables that new users have not set."""

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
NO_REGISTRY = {"PYTHON_IMAGE": "registry.invalid/python:3.11", "TAG": "not-built"}
FAST = "--no-tuning --epochs 3"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all tests of this file, so that its virtual environments are created once."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_tracked_files(folder)
    return folder


def make_run(checkout: Path, target: str, options: str, **settings: str) -> subprocess.CompletedProcess[str]:
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


def assert_ran_as_processes(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "jobs run by process on this machine" in done.stdout
    assert "Test MSE, trained" in done.stdout
    assert "report.html" in done.stdout


def test_without_an_engine_the_jobs_run_as_processes(checkout: Path) -> None:
    assert_ran_as_processes(make_run(checkout, "run", FAST, **NO_ENGINE))


@pytest.mark.engine
def test_without_a_registry_one_line_says_so_and_the_jobs_run_as_processes(checkout: Path) -> None:
    done = make_run(checkout, "run", FAST, **NO_REGISTRY)
    assert_ran_as_processes(done)
    (line,) = [line for line in done.stdout.splitlines() if "cannot pull registry.invalid/python:3.11" in line]
    assert "the jobs run as processes" in line
    assert "docs/maintaining/building.md" in line


@pytest.mark.engine
def test_without_a_registry_docker_is_refused_with_the_remedy(checkout: Path) -> None:
    done = make_run(checkout, "run", "--runtime docker", **NO_REGISTRY)
    assert done.returncode != 0
    assert "microjobs: The Docker engine cannot pull registry.invalid/python:3.11" in done.stderr
    assert "--runtime process needs no images" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def build_settings() -> Iterator[dict[str, str]]:
    """The build settings of this machine, with a tag of this test, whose images are removed."""
    tag = f"test-{uuid.uuid4().hex[:8]}"
    yield {name: os.environ[name] for name in SETTINGS if name in os.environ} | {"TAG": tag, "MICROJOBS_HOME": ".home"}
    remove_images(tag)


@pytest.mark.engine
def test_with_an_engine_only_the_images_of_the_workflow_are_built(
    checkout: Path, build_settings: dict[str, str]
) -> None:
    done = make_run(checkout, "run", FAST, **build_settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "jobs run by docker on this machine" in done.stdout
    assert "Test MSE, trained" in done.stdout
    assert f"microjobs/train-pytorch:{build_settings['TAG']}" not in done.stdout
