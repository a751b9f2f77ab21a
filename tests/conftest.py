"""Paths of the repository, and hooks that skip tests whose engine, images or PyTorch are missing."""

import gc
import os
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from docker.errors import DockerException
from hypothesis import settings

from microjobs_orchestrator import docker_engine
from microjobs_orchestrator.local.runtimes.docker.guards import DEFAULT_IMAGE
from microjobs_orchestrator.local.runtimes.process.packages import TORCH_INDEX_URL

pytest_plugins = ["pytester", "tests.order", "tests.passes"]

settings.load_profile("ci")
"""Hypothesis' profile for CI: each run generates the same examples, and a slow machine is not a failure."""

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
"""Tests call `microjobs` and `uv`, which are installed in the folder of this interpreter."""

# Tests start hundreds of Python processes: without stored bytecode, each one compiles all modules that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

REPOSITORY = Path(__file__).resolve().parent.parent
CONTAINERS = REPOSITORY / "containers"
JOBS = sorted(path.parent.name for path in CONTAINERS.glob("*/image.yml"))
"""Names of the ready-made jobs: the folders of `containers/` with an `image.yml`."""

BOSTON = REPOSITORY.parent / "shared" / "data" / "boston_housing.npz"

REQUIRE_ENGINE_VARIABLE = "MICROJOBS_REQUIRE_ENGINE"
"""If this variable is set, as in CI, tests fail if the engine, the registry program or the browser that they need is
missing. Otherwise, they are skipped."""


def list_tracked_files() -> list[Path]:
    """Return tracked files, and new files that git does not ignore, relative to the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def get_base_image_name() -> str:
    """Return the name of the base image of builds."""
    return os.environ.get("PYTHON_IMAGE") or DEFAULT_IMAGE


def make_image_name(job: str) -> str:
    """Return the name that `make build` gives the image of a job."""
    return f"{os.environ.get('REGISTRY', 'microjobs')}/{job}:{os.environ.get('TAG', 'dev')}"


@contextmanager
def build_image_from_job(job: str, *lines: str) -> Iterator[str]:
    """Build an image from a job's image and more lines of a Dockerfile, and remove it after the block."""
    with build_image_from_base(make_image_name(job), *lines) as name:
        yield name


@contextmanager
def build_image_from_base(base: str, *lines: str) -> Iterator[str]:
    """Build an image from another image and more lines of a Dockerfile, and remove it after the block."""
    name = f"microjobs-test/{uuid.uuid4().hex[:8]}:dev"
    dockerfile = "\n".join([f"FROM {base}", *lines])
    subprocess.run(["docker", "build", "--quiet", "--tag", name, "-"], input=dockerfile.encode(), check=True)
    try:
        yield name
    finally:
        subprocess.run(["docker", "rmi", "--force", name], capture_output=True, check=True)


def _explain_missing_pytorch() -> str | None:
    """Return the reason why PyTorch's CPU build cannot be installed on this machine, or None.

    Only PyTorch's own index has this build. The usual package index has the build for GPUs, which takes several
    gigabytes.
    """
    packages = Path(os.environ.get("LOCAL_PACKAGES") or CONTAINERS / "local-packages")
    if any(packages.glob("torch-*+cpu-*.whl")):
        return None
    index = os.environ.get("TORCH_INDEX_URL", TORCH_INDEX_URL)
    try:
        requests.head(f"{index}/torch/", timeout=10).raise_for_status()
    except requests.RequestException as error:
        return (
            f"PyTorch's CPU build cannot be downloaded from {index or 'an index: TORCH_INDEX_URL is empty'}: {error}"[
                :300
            ]
        )
    return None


def _explain_missing_engine() -> str | None:
    """Return the reason why tests that need containers cannot run, or None."""
    try:
        client = docker_engine.connect()
        try:
            tags = {tag for image in docker_engine.list_images(client) for tag in image["RepoTags"]}
        finally:
            client.close()
    except DockerException as error:
        return f"no Docker engine answers: {str(error).splitlines()[0][:120]}"
    unbuilt_jobs = [job for job in JOBS if make_image_name(job) not in tags]
    if not unbuilt_jobs:
        return None
    return f"images are not built: make {' '.join(f'build/{job}' for job in unbuilt_jobs)}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests while Python's garbage collector is off: it would free none of the modules and tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    pytorch_tests = [item for item in items if item.get_closest_marker("pytorch")]
    if pytorch_tests and (reason := _explain_missing_pytorch()) is not None:
        for item in pytorch_tests:
            item.add_marker(pytest.mark.skip(reason=reason))
    engine_tests = [item for item in items if item.get_closest_marker("engine")]
    if not engine_tests or os.environ.get(REQUIRE_ENGINE_VARIABLE) or (reason := _explain_missing_engine()) is None:
        return
    for item in engine_tests:
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def boston() -> Path:
    """The Boston housing data, which this repository does not contain."""
    if not BOSTON.exists():
        pytest.skip("the Boston housing data is missing: put boston_housing.npz into ../shared/data")
    return BOSTON
