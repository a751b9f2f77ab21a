"""Images contain exactly the packages of their locks, and builds are reproducible."""

import json
import re
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONTAINERS, JOBS, REPOSITORY
from tests.images.conftest import RunJob

pytestmark = pytest.mark.engine

GetImageAttributes = Callable[[str], dict[str, Any]]

LIST_PACKAGES = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"


def read_pins(lock: Path) -> set[str]:
    matches = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^ ]+)", lock.read_text(), re.MULTILINE)
    return {f"{_normalize(name)}=={version}" for name, version in matches}


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("job", JOBS)
def test_image_contains_exactly_the_packages_of_its_locks(job: str, root: Path, run_job: RunJob) -> None:
    run = run_job(job, ["-c", LIST_PACKAGES], root, entrypoint="python")
    installed = {
        f"{_normalize(name)}=={version}" for name, _, version in (word.partition("==") for word in run.log.split())
    }
    assert installed == read_pins(CONTAINERS / job / "cpu.lock") | read_pins(
        REPOSITORY / "shared" / "requirements.lock"
    )


def test_same_locks_build_the_same_layers(get_image_attributes: GetImageAttributes) -> None:
    """Build an image again, without a cache, and compare the digests of its layers."""
    job = "serve"
    config = subprocess.run(
        ["docker", "compose", "--file", CONTAINERS / job / "image.yml", "config"], capture_output=True, check=True
    ).stdout
    tag = f"microjobs-test/{uuid.uuid4().hex[:8]}:rebuilt"
    build = ["docker", "buildx", "bake", "--file", "-", "--load", "--no-cache", "--set", f"{job}.tags={tag}", job]
    try:
        subprocess.run(build, input=config, capture_output=True, check=True)
        inspected = subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=True)
    finally:
        subprocess.run(["docker", "image", "rm", tag], capture_output=True, check=False)
    assert json.loads(inspected.stdout)[0]["RootFS"]["Layers"] == get_image_attributes(job)["RootFS"]["Layers"]
