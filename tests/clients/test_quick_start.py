"""Tests of the quick start's programs for the SageMaker SDK, with the versions that the page names."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from microjobs_orchestrator.local import control
from microjobs_orchestrator.workflows.housing import Options
from tests.clients.environments import install_client_programs
from tests.conftest import REPOSITORY, make_image_name
from tests.local.clients import LocalServer

PAGE = (REPOSITORY / "docs" / "using" / "quick-start.md").read_text(encoding="utf-8")
PROGRAMS = {
    "sdk3": next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "ModelTrainer(" in text),
    "sdk": next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "Estimator(" in text),
}

POLL_QUICKLY = f"import runpy; runpy.run_path({str(Path(__file__).with_name('polling.py'))!r})['poll_quickly']()"
"""Calls `poll_quickly` without a new folder in the search path, so that the program imports only the SDK's packages."""


@pytest.mark.parametrize("client", PROGRAMS)
def test_page_names_the_tested_version(client: str) -> None:
    lock = Path(__file__).with_name(f"{client}.lock").read_text()
    (version,) = re.findall(r"^sagemaker==(\S+)", lock, re.MULTILINE)
    assert f"pip install sagemaker=={version}" in PAGE


def test_each_version_has_its_own_environment() -> None:
    environments = re.findall(r"([\w.-]+)/bin/pip install sagemaker==", PAGE)
    assert len(set(environments)) == len(PROGRAMS)


def test_page_uses_only_images_that_make_run_builds() -> None:
    images = set(re.findall(r"microjobs/([a-z-]+):dev", PAGE))
    assert images
    assert images <= set(Options().jobs)


@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", PROGRAMS)
def test_program_of_the_page_trains_a_model(client: str, server: LocalServer, tmp_path: Path) -> None:
    program = re.sub(r"microjobs/([a-z-]+):dev", lambda match: make_image_name(match[1]), PROGRAMS[client])
    (tmp_path / "first.py").write_text(f"{POLL_QUICKLY}\n{program}")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),  # this folder has neither settings nor credentials of the user
        **control.make_environment(server.home, server.address),
    }
    command = [str(install_client_programs(client) / "python"), "first.py"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    model = result.stdout.splitlines()[-1]
    assert (server.home.buckets / model.removeprefix("s3://")).is_file()
