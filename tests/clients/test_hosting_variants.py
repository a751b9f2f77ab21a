"""Serverless variants, shadow variants and data capture with versions 2 and 3 of the SageMaker SDK."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.bundles import linear_bundle
from tests.clients.environments import run_program
from tests.conftest import image_name
from tests.local.clients import LocalServer, wait_until


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of a model that sums its three features."""
    linear_bundle(tmp_path / "model", [1.0] * 3, 0.0)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model", ".")
    return tmp_path / "model.tar.gz"


def test_version_2_deploys_serverless_and_captures_data(processes: LocalServer, archive: Path, tmp_path: Path) -> None:
    arguments = [image_name("serve"), archive]
    results = json.loads(run_program("sdk", processes, tmp_path, "hosting_variants_v2.py", *arguments)[-1])
    assert results["serverless"] == [["6.0"]]
    assert results["config"] == {"MemorySizeInMB": 1024, "MaxConcurrency": 2}
    (record,) = results["records"]
    assert record["eventMetadata"]["inferenceId"] == "first"
    assert [item["data"].strip() for item in record["captureData"].values()] == ["1,2,3", "6.0"]
    assert (results["status"], results["shadow"].strip()) == ("Started", "15.0")


def test_version_3_serves_all_variants(processes: LocalServer, archive: Path, tmp_path: Path) -> None:
    processes.s3.upload_file(str(archive), processes.address.bucket, "v3-variants/model.tar.gz")
    arguments = [image_name("serve"), processes.uri("v3-variants/model.tar.gz"), processes.uri("v3-captured")]
    results = json.loads(run_program("sdk3", processes, tmp_path, "hosting_variants_v3.py", *arguments)[-1])
    assert results == {"predictions": ["6.0", "6.0"], "concurrency": 5, "described": ["shadow", "Started"]}
    folder = processes.bucket / "v3-captured" / "v3-captured"
    assert wait_until(lambda: list_variants(folder), lambda names: len(names) == 2) == {"main", "shadow"}


def list_variants(folder: Path) -> set[str]:
    """Return the names of the variants with captured exchanges."""
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*.jsonl")}
