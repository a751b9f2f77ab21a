"""Tests of programs for the model registry, with the classes of both versions of the SDK."""

import json
from pathlib import Path

import pytest

from tests.clients.environments import run_program
from tests.conftest import make_image_name
from tests.local.clients import LocalServer
from tests.local.resources.examples.models import put_linear_model


@pytest.fixture
def arguments(process_server: LocalServer) -> tuple[str, str]:
    """The arguments of the programs. The model returns the sum of its three features."""
    put_linear_model(process_server, "registry/model.tar.gz", 1.0)
    return make_image_name("serve"), process_server.address.bucket


@pytest.mark.timeout(600)
def test_program_for_sdk_v2_registers_and_deploys(
    process_server: LocalServer, arguments: tuple[str, str], tmp_path: Path
) -> None:
    lines = run_program("sdk", process_server, tmp_path, "registry_v2.py", *arguments)
    assert json.loads(lines[-1]) == {
        "version": 2,
        "statistics": process_server.uri("registry/metrics.json"),
        "status": "PendingManualApproval",
        "predicted": [["6.0"]],
        "changed": ["Rejected", "too slow"],
        "metadata": {"stage": "test"},
        "specifications": ["other"],
        "withoutGroup": "model-package/registry-v2",
        "clone": "3",
    }


@pytest.mark.timeout(600)
def test_program_for_sdk_v3_registers_and_deploys(
    process_server: LocalServer, arguments: tuple[str, str], tmp_path: Path
) -> None:
    lines = run_program("sdk3", process_server, tmp_path, "registry_v3.py", *arguments)
    assert json.loads(lines[-1]) == {
        "group": "Completed",
        "version": 1,
        "status": "PendingManualApproval",
        "approved": ["Approved", "good"],
        "predicted": "6.0\n",
    }
