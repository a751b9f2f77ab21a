"""Programs for inference components, with both SDKs."""

import json
from pathlib import Path

import pytest

from tests.clients.environments import run_program
from tests.conftest import image_name
from tests.local.clients import LocalServer
from tests.local.resources.examples.models import put_linear_model


@pytest.fixture
def arguments(processes: LocalServer) -> tuple[str, str, str]:
    """The arguments of the programs. The models return the sum of their features, and twice the sum."""
    for name, factor in (("one", 1.0), ("two", 2.0)):
        put_linear_model(processes, f"components/{name}.tar.gz", factor)
    return image_name("serve"), processes.uri("components/one.tar.gz"), processes.uri("components/two.tar.gz")


@pytest.mark.timeout(600)
def test_program_for_version_2_shares_an_endpoint(
    processes: LocalServer, arguments: tuple[str, str, str], tmp_path: Path
) -> None:
    lines = run_program("sdk", processes, tmp_path, "components_v2.py", *arguments)
    assert json.loads(lines[-1]) == {
        "predicted": ["6.0", "12.0"],
        "listed": ["v2-first", "v2-second"],
        "copies": 1,
        "again": "6.0",
        "is_counted": True,
    }


@pytest.mark.timeout(600)
def test_program_for_version_3_shares_an_endpoint(
    processes: LocalServer, arguments: tuple[str, str, str], tmp_path: Path
) -> None:
    lines = run_program("sdk3", processes, tmp_path, "components_v3.py", *arguments)
    assert json.loads(lines[-1]) == {
        "predicted": ["6.0", "12.0"],
        "copies": 2,
        "listed": ["v3-first", "v3-second"],
    }
