"""Airflow with a server that runs no containers: tests the requests that it sends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.environments import run_program
from tests.local.clients import LocalServer
from tests.local.security.stubbed import stubbed


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[LocalServer]:
    with stubbed(tmp_path / "home") as local:
        yield local


def test_airflow_trains_and_hosts(stub: LocalServer, tmp_path: Path) -> None:
    lines = run_program("airflow", stub, tmp_path, "airflow_hooks.py", "image:1", stub.address.bucket)
    assert json.loads(lines[-1]) == {
        "status": "Completed",
        "names": ["airflow"],
        "count": 0,
        "endpoint": "InService",
    }
