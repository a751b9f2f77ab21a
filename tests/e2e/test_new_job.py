"""`make new/JOB` gives a folder that is a job from the start."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.conftest import image_name


def make(target: str, checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", target], cwd=checkout, capture_output=True, text=True, check=False)


@pytest.mark.engine
def test_new_job_builds_and_passes_the_inherited_tests(checkout: Path) -> None:
    job = f"demo-{uuid.uuid4().hex[:8]}"
    assert make(f"new/{job}", checkout).returncode == 0
    try:
        built = make(f"build/{job}", checkout)
        assert built.returncode == 0, built.stderr[-3000:]
        tested = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/images/test_every_image.py", "-k", job, "-q"],
            cwd=checkout,
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert tested.returncode == 0, tested.stdout[-5000:]
        assert "passed" in tested.stdout
    finally:
        subprocess.run(["docker", "image", "rm", image_name(job)], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("serve", "containers/serve is there already"),
        ("My_Job", "cannot name an image"),
        ("-x", "cannot name an image"),
    ],
)
def test_name_that_cannot_be_is_refused_and_leaves_nothing(name: str, words: str, checkout: Path) -> None:
    before = sorted((checkout / "containers").iterdir())
    refused = make(f"new/{name}", checkout)
    assert refused.returncode != 0
    assert words in refused.stderr
    assert sorted((checkout / "containers").iterdir()) == before
