"""What a build makes of a lock."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CONTAINERS, JOBS, REPOSITORY
from tests.images.conftest import RunJob, image_name

pytestmark = pytest.mark.engine

LIST_PACKAGES = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"
LIST_FILES = (
    "cd /opt && find . -type f -exec sha256sum {} + | sort -k 2 && find . ! -type f -printf '%p %m %l\\n' | sort"
)


def pins(lock: Path) -> set[str]:
    found = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^ ]+)", lock.read_text(), re.MULTILINE)
    return {f"{_normal(name)}=={version}" for name, version in found}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("job", JOBS)
def test_image_holds_what_its_locks_say_and_nothing_else(job: str, root: Path, run_job: RunJob) -> None:
    run = run_job(job, ["-c", LIST_PACKAGES], root, entrypoint="python")
    installed = {
        f"{_normal(name)}=={version}" for name, _, version in (word.partition("==") for word in run.log.split())
    }
    assert installed == pins(CONTAINERS / job / "cpu.lock") | pins(REPOSITORY / "shared" / "requirements.lock")


def test_same_locks_build_the_same_files() -> None:
    """Built once more without any cache, an image has the same files, byte for byte, with the same modes."""
    job = "serve"
    config = subprocess.run(
        ["docker", "compose", "--file", CONTAINERS / job / "image.yml", "config"],
        capture_output=True,
        check=True,
    ).stdout
    tag = f"{image_name(job)}-again"
    build = ["docker", "buildx", "bake", "--file", "-", "--load", "--no-cache", "--set", f"{job}.tags={tag}", job]
    try:
        subprocess.run(build, input=config, capture_output=True, check=True)
        first, again = (list_files(image) for image in (image_name(job), tag))
    finally:
        subprocess.run(["docker", "image", "rm", tag], capture_output=True, check=False)
    assert first.splitlines() == again.splitlines()


def list_files(image: str) -> str:
    command = ["docker", "run", "--rm", "--entrypoint", "sh", image, "-c", LIST_FILES]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
