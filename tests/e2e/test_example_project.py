"""The example of a project that tests its image: docs/using/example."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, base_image

IDLE_SECONDS = 20
"""The time that the README of the example states, on idle cores."""


@pytest.mark.engine
def test_project_tests_its_image(tmp_path: Path) -> None:
    project = tmp_path / "example"
    shutil.copytree(REPOSITORY / "docs" / "using" / "example", project, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHON_IMAGE": base_image(), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'temporary'}"]
    start = time.monotonic()
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    # On a busy machine, each of the waiting processes may get a part of a core only.
    share = min(1.0, (os.cpu_count() or 1) / max(1.0, os.getloadavg()[0]))
    assert time.monotonic() - start < IDLE_SECONDS / share
