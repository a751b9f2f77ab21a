"""Multi-model endpoints with the SageMaker SDK v2 and v3."""

import json
from pathlib import Path

from tests.clients.environments import run_program
from tests.conftest import image_name
from tests.local.clients import LocalServer
from tests.local.resources.examples.models import put_linear_model


def test_multi_data_model_of_version_2_loads_models_that_are_added_later(
    processes: LocalServer, tmp_path: Path
) -> None:
    for weight, name in ((1.0, "one"), (2.0, "two")):
        put_linear_model(processes, f"v2/{name}.tar.gz", weight)
    archives = processes.bucket / "v2"
    lines = run_program("sdk", processes, tmp_path, "multi_model_v2.py", image_name("serve"), archives)
    assert json.loads(lines[-1]) == {
        "models at the start": [],
        "models": ["one.tar.gz", "two.tar.gz"],
        "predictions": {"one.tar.gz": [["6.0"]], "two.tar.gz": [["12.0"]]},
        "added": [["12.0"]],
        "errors": ["ValidationError", "ValidationError"],
        "described": ["MultiModel", processes.uri("sdk-multi-model/")],
    }


def test_resources_of_version_3_serve_several_models(processes: LocalServer, tmp_path: Path) -> None:
    for weight, city in ((1.0, "berlin"), (2.0, "oslo")):
        put_linear_model(processes, f"v3/{city}.tar.gz", weight)
    arguments = [image_name("serve"), processes.uri("v3/"), "berlin.tar.gz", "oslo.tar.gz"]
    results = json.loads(run_program("sdk3", processes, tmp_path, "multi_model_v3.py", *arguments)[-1])
    assert results == {
        "predictions": ["6.0", "12.0"],
        "described": ["MultiModel", processes.uri("v3/"), "Enabled"],
    }
