"""`make new/JOB` creates a job that can be built and run."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

from microjobs_orchestrator.local import control
from tests.conftest import REPOSITORY, make_image_name
from tests.local.clients import run_server


def run_make(target: str, checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", target], cwd=checkout, capture_output=True, text=True, check=False)


@pytest.mark.engine
def test_new_job_builds_passes_the_tests_of_all_images_and_runs(checkout: Path, tmp_path: Path) -> None:
    job = f"demo-{uuid.uuid4().hex[:8]}"
    assert run_make(f"new/{job}", checkout).returncode == 0
    try:
        build = run_make(f"build/{job}", checkout)
        assert build.returncode == 0, build.stderr[-3000:]
        test_run = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/images/test_every_image.py", "-k", job, "-q"],
            cwd=checkout,
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert test_run.returncode == 0, test_run.stdout[-5000:]
        assert "passed" in test_run.stdout
        assert run_example_of_the_page(job, tmp_path) == 4.5
    finally:
        subprocess.run(["docker", "image", "rm", make_image_name(job)], capture_output=True, check=False)


def run_example_of_the_page(job: str, folder: Path) -> float:
    """Run the program in docs/using/your-own-job.md, and return the average that its job computes."""
    page = (REPOSITORY / "docs" / "using" / "your-own-job.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(import .*?)```", page, re.DOTALL)
    (folder / "my_first.py").write_text(program.replace("microjobs/my-job:dev", make_image_name(job)))
    with run_server(folder / "home", runtime="docker") as server:
        (server.bucket / "my-data").mkdir()
        np.save(server.bucket / "my-data" / "y_train.npy", np.arange(10.0))
        environment = {**os.environ, **control.make_environment(server.home, server.address)}
        command = [sys.executable, "my_first.py"]
        output = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
        assert output == f"s3://{server.address.bucket}/models/my-first/output/model.tar.gz\n"
        return float(json.loads(server.read_archive("my-first")["model.json"])["average"])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("serve", "containers/serve exists"),
        ("local", "microjobs/local is the image of the local server"),
        ("engines", "make test/engines has another meaning"),
        ("My_Job", "cannot name an image"),
        ("-x", "cannot name an image"),
    ],
)
def test_invalid_name_is_refused_and_creates_nothing(name: str, error: str, checkout: Path) -> None:
    folders = sorted((checkout / "containers").iterdir())
    result = run_make(f"new/{name}", checkout)
    assert result.returncode != 0
    assert error in result.stderr
    assert sorted((checkout / "containers").iterdir()) == folders
