"""Tests of inference pipelines with the SageMaker SDK v2 and v3."""

import json
from pathlib import Path

import pytest

from tests.clients.environments import run_program
from tests.conftest import make_image_name
from tests.local.clients import LocalServer
from tests.local.test_inference_pipelines import put_models


@pytest.mark.slow
def test_pipeline_model_of_sdk_v2_is_deployed_and_registered(process_server: LocalServer, tmp_path: Path) -> None:
    put_models(process_server, "v2-pipeline")
    arguments = [make_image_name("serve"), process_server.uri("v2-pipeline")]
    results = json.loads(run_program("sdk", process_server, tmp_path, "inference_pipeline_v2.py", *arguments)[-1])
    assert "Received client error (400) from container-2" in results.pop("error")
    assert results == {
        "predicted": [["60.0"]],
        "transformed": "60.0\n150.0\n",
        "package": [["60.0"]],
    }


@pytest.mark.slow
def test_models_of_sdk_v3_are_chained(process_server: LocalServer, tmp_path: Path) -> None:
    put_models(process_server, "v3-pipeline")
    arguments = [make_image_name("serve"), process_server.uri("v3-pipeline")]
    lines = run_program("sdk3", process_server, tmp_path, "inference_pipeline_v3.py", *arguments)
    assert json.loads(lines[-1]) == "60.0"
