"""Tests of pipelines that classes of the SDKs define and start. Their jobs run in containers."""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import write_linear_bundle
from tests.clients.environments import run_program
from tests.clients.test_typical import train_image as train_image
from tests.conftest import REPOSITORY, make_image_name
from tests.local.clients import LocalServer, run_server

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

PAGE = REPOSITORY / "docs" / "using" / "pipelines.md"


def test_program_of_the_page_succeeds(server: LocalServer, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "pipeline.py"
    script.write_text(re.sub(r"microjobs/([a-z-]+):dev", lambda match: make_image_name(match[1]), program))
    assert run_program("sdk3", server, tmp_path, str(script))[-1] == "Succeeded"
    (package,) = server.sagemaker.list_model_packages(ModelPackageGroupName="line")["ModelPackageSummaryList"]
    assert package["ModelApprovalStatus"] == "PendingManualApproval"


@pytest.fixture
def function_server(tmp_path: Path) -> Iterator[LocalServer]:
    """A server on which the function `double` is a Python function."""
    (tmp_path / "handlers.py").write_text("def double(event, context):\n    return {'doubled': 2 * event['value']}\n")
    functions = {"double": f"{tmp_path / 'handlers.py'}:double"}
    with run_server(tmp_path / "home", runtime="docker", functions=functions) as server:
        yield server


def put_bundle(server: LocalServer, folder: Path) -> None:
    """Put a model that returns the sum of its three features into the bucket."""
    write_linear_bundle(folder, [1.0] * 3, 0.0)
    target = server.bucket / "bundle"
    target.mkdir(parents=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


SUCCEEDED = "Succeeded"
CACHED_STATUS = "Succeeded from cache"


def test_program_for_sdk_v2_runs(function_server: LocalServer, train_image: str, tmp_path: Path) -> None:
    server = function_server
    put_bundle(server, tmp_path / "bundle")
    bucket = server.address.bucket
    lines = run_program("sdk", server, tmp_path, "pipeline_runs_v2.py", train_image, make_image_name("serve"), bucket)
    results = json.loads(lines[-1])
    common_steps = dict.fromkeys(("Prepare", "Train", "Tune", "Double", "IsGood"), SUCCEEDED)
    model_steps = dict.fromkeys(("Register-RegisterModel", "Create-CreateModel", "Transform"), SUCCEEDED)
    assert results == {
        "first": {**common_steps, **model_steps, "Config": SUCCEEDED, "Endpoint": SUCCEEDED, "": SUCCEEDED},
        "transformed": "6.0\n15.0\n",
        "predicted": [["6.0"]],
        "bad": {**common_steps, "Bad": "Failed", "": "Failed"},
        "selected": {
            "Prepare": SUCCEEDED,  # this step was not selected: its job belongs to the first execution
            "Train": CACHED_STATUS,
            "": SUCCEEDED,
        },
        "failed": {"Before": SUCCEEDED, "Check": "Failed", "": "Failed"},
        "retried": {"Before": SUCCEEDED, "Check": SUCCEEDED, "": SUCCEEDED},
        "keptFirstJob": True,
        "registered": "PendingManualApproval",
        "approved": [["6.0"]],
    }


def test_program_for_sdk_v3_runs(server: LocalServer, train_image: str, tmp_path: Path) -> None:
    if not (server.bucket / "bundle").exists():
        put_bundle(server, tmp_path / "bundle")
    queue = server.client("sqs").create_queue(QueueName="approvals")["QueueUrl"]
    bucket = server.address.bucket
    lines = run_program(
        "sdk3", server, tmp_path, "pipeline_runs_v3.py", train_image, make_image_name("serve"), bucket, queue
    )
    iterations = {f"Paint-{number}": SUCCEEDED for number in range(3)}
    step_statuses = {**dict.fromkeys(("Evaluate", "Each", "IsGood", "Clean"), SUCCEEDED), **iterations}
    assert json.loads(lines[-1]) == {
        "first": {
            **step_statuses,
            **dict.fromkeys(("Train", "Ask", "Register", "Alarm"), SUCCEEDED),
            "Fragile": "Failed",
            "": "CompletedWithFailures",
        },
        "painted": ["Paint/blue.txt", "Paint/green.txt", "Paint/red.txt"],
        "cleaned": [],
        "reviewer": {"reviewer": "reviewer of 0.9"},
        "second": {**step_statuses, "Train": CACHED_STATUS, "Fragile": SUCCEEDED, "": SUCCEEDED},
    }


@pytest.mark.parametrize(("client", "version"), [("sdk", "v2"), ("sdk3", "v3")])
def test_housing_is_registered_approved_and_deployed(
    client: str, version: str, server: LocalServer, tmp_path: Path
) -> None:
    images = [make_image_name(job) for job in ("preprocess", "train-tensorflow", "serve", "batch-score")]
    lines = run_program(client, server, tmp_path, f"housing_pipeline_{version}.py", *images)
    results = json.loads(lines[-1])
    steps = results.pop("steps")
    assert {name.removesuffix("-RegisterModel") for name in steps} == {
        *("Raw", "Scale", "Train", "Tune", "Score", "IsGood", "Register"),
    }
    assert set(steps.values()) == {SUCCEEDED}
    assert results == {"status": "PendingManualApproval", "predictions": 1}


def test_functions_run_as_steps_and_models_are_repacked(tmp_path: Path) -> None:
    with run_server(tmp_path / "home", runtime="docker", framework_images=True) as server:
        images = make_image_name("preprocess"), make_image_name("serve")
        lines = run_program("sdk", server, tmp_path, "functions_v2.py", *images, server.address.bucket)
        results = json.loads(lines[-1])
        assert results["doubled"] == 14
        assert results["steps"] == dict.fromkeys(
            ("Train", "Register-RepackModel-0", "Register-RegisterModel"), SUCCEEDED
        )
        with tarfile.open(server.home.buckets / results["archive"].removeprefix("s3://")) as archive:
            assert {"weights", "code/inference.py"} <= {name.removeprefix("./") for name in archive.getnames()}
