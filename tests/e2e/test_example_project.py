"""The example of a project that tests its image: docs/using/example."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, get_base_image_name


@pytest.mark.engine
def test_project_tests_its_image(tmp_path: Path) -> None:
    project = tmp_path / "example"
    shutil.copytree(REPOSITORY / "docs" / "using" / "example", project, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHON_IMAGE": get_base_image_name(), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'temporary'}"]
    images = list_images()
    result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert "4 passed" in result.stdout, result.stdout + result.stderr
    assert list_images() == images


def list_images() -> str:
    """Return the images named `line`: the example's tests build one, and remove it at their end."""
    command = ["docker", "images", "--filter", "reference=line"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
