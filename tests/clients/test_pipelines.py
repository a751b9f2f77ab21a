"""Tests of pipelines that the SDKs' classes define. The server checks the generated definitions."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import run_program
from tests.local.clients import LocalServer

pytestmark = pytest.mark.timeout(600)

JOB_TYPES = ["Processing", "Training", "Transform", "Tuning"]


def create_pipeline(client: str, server: LocalServer, folder: Path, script: str) -> dict[str, Any]:
    lines = run_program(client, server, folder, script, server.address.bucket)
    return dict(json.loads(lines[-1]))


def list_types(steps: list[dict[str, Any]]) -> set[str]:
    """Return the types of steps, and of the steps that they contain."""
    types = {step["Type"] for step in steps}
    for step in steps:
        for member in ("IfSteps", "ElseSteps", "ForEachBody"):
            types |= list_types(step["Arguments"].get(member, []))
    return types


@pytest.mark.slow
def test_sdk_2_creates_a_pipeline(process_server: LocalServer, tmp_path: Path) -> None:
    result = create_pipeline("sdk", process_server, tmp_path, "pipelines_v2.py")
    types = list_types(result.pop("definition")["Steps"])
    assert types == {*JOB_TYPES, "Model", "RegisterModel", "Condition", "Fail", "Lambda", "Callback"}
    assert result == {
        "version": 2,
        "description": "second",
        "parallelism": {"MaxParallelExecutionSteps": 2},
        "tags": ["stage", "team"],
        "deleted": "pipelines-v2",
    }


@pytest.mark.slow
def test_sdk_3_creates_a_pipeline(process_server: LocalServer, tmp_path: Path) -> None:
    result = create_pipeline("sdk3", process_server, tmp_path, "pipelines_v3.py")
    types = list_types(result.pop("definition")["Steps"])
    other_types = {"ForEach", "Cleanup", "EndpointConfig", "Endpoint", "Callback"}
    assert types == {*JOB_TYPES, "Model", "RegisterModel", "Condition", "Fail", *other_types}
    # The SDK uploads the function again for the second upsert. So the definition changes, and a second version exists.
    assert result == {"versions": [2, 1], "description": "second", "deleted": "pipelines-v3"}
