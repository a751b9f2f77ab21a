"""Test of the requests that Airflow sends. The server runs no containers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.environments import run_program
from tests.local.clients import LocalServer
from tests.local.security.stub_runner import run_stub_server

pytestmark = pytest.mark.slow


@pytest.fixture
def stub_server(tmp_path: Path) -> Iterator[LocalServer]:
    with run_stub_server(tmp_path / "home") as server:
        yield server


def test_airflow_trains_and_hosts(stub_server: LocalServer, tmp_path: Path) -> None:
    lines = run_program("airflow", stub_server, tmp_path, "airflow_hooks.py", "image:1", stub_server.address.bucket)
    assert json.loads(lines[-1]) == {
        "status": "Completed",
        "training_jobs": ["airflow"],
        "processing_job_count": 0,
        "endpoint": "InService",
    }
