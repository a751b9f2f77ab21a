"""Requirements of a user's code in the image serve."""

from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount

from tests.images.conftest import Job, RunJob, StartJob
from tests.images.test_every_image import answers_ping
from tests.unit.serve.test_serve_code import LOCAL_WHEELS_OPTIONS, PROGRAM_WITH_REQUIREMENT, write_files, write_wheel

pytestmark = pytest.mark.engine

INVOKE = (
    "import urllib.request as u; url = 'http://127.0.0.1:8080/invocations'; "
    "print(u.urlopen(u.Request(url, b'1', {'Content-Type': 'text/csv'})).read().decode())"
)


def write_code(root: Path, requirements: str) -> None:
    code = root / "model" / "code"
    write_files(code, {"inference.py": PROGRAM_WITH_REQUIREMENT, "requirements.txt": requirements})
    write_wheel(code)


def invoke(job: Job) -> str:
    job.wait_until(lambda: answers_ping(job), "200 on /ping", timeout=60)
    return job.execute("python", "-c", INVOKE)[1].strip()


def test_restarted_container_keeps_installed_requirements(root: Path, start_job: StartJob) -> None:
    write_code(root, f"{LOCAL_WHEELS_OPTIONS}tiny_words\n")
    job = start_job("serve", ["serve"], root)
    assert invoke(job) == "word 1.0"
    job.container.restart(timeout=30)
    assert invoke(job) == "word 1.0"
    assert job.log.count("installing code/requirements.txt") == 1


def test_hardened_container_installs_wheels_without_a_network(root: Path, start_job: StartJob) -> None:
    write_code(root, f"{LOCAL_WHEELS_OPTIONS}tiny_words\n")
    options: dict[str, Any] = {"user": "12345:23456", "read_only": True, "network_mode": "none", "cap_drop": ["ALL"]}
    job = start_job("serve", ["serve"], root, mounts=[Mount("/tmp", None, type="tmpfs")], **options)
    assert invoke(job) == "word 1.0"


def test_error_names_a_requirement_that_needs_a_network(root: Path, run_job: RunJob) -> None:
    write_code(root, "no-such-package==1.0\n")
    run = run_job("serve", ["serve"], root, exit_code=2, network_mode="none")
    assert "code/requirements.txt cannot be installed: " in (run.failure or "")
    assert "no-such-package==1.0" in (run.failure or "")
    assert "put the packages into the image" in (run.failure or "")
