"""Test of Terraform: apply, then an empty plan, then destroy. The test needs `terraform` and its AWS provider.

If the provider cannot be downloaded, set `TF_CLI_ARGS_init=-plugin-dir=FOLDER` to a folder that contains it.
"""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from microjobs_orchestrator.local import control
from tests.local.clients import LocalServer

Terraform = Callable[..., int]

EMPTY_PLAN_CODE, CHANGES_PLAN_CODE = 0, 2
"""Exit codes of `plan -detailed-exitcode`."""


@pytest.fixture
def terraform(process_server: LocalServer, tmp_path: Path) -> Terraform:
    """A function that runs a Terraform command on the resources and returns its exit code."""
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("terraform is not installed")
    shutil.copy(Path(__file__).with_name("terraform") / "main.tf", tmp_path)
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "main.tf", "file")
    environment = {
        **{name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("TF_")},
        **control.make_environment(process_server.home, process_server.address),
        "HOME": str(tmp_path),
        "TF_VAR_bundle": str(tmp_path / "bundle.tar.gz"),
        "TF_IN_AUTOMATION": "1",
    }

    def run_terraform(*arguments: str, codes: tuple[int, ...] = (0,)) -> int:
        command = [program, *arguments, "-input=false", "-no-color"]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode in codes, result.stdout[-3000:] + result.stderr[-3000:]
        return result.returncode

    if run_terraform("init", codes=(0, 1)) != 0:
        pytest.skip("terraform cannot download its AWS provider")
    return run_terraform


@pytest.mark.slow
def test_terraform_creates_and_destroys_resources(terraform: Terraform, process_server: LocalServer) -> None:
    terraform("apply", "-auto-approve")
    assert (
        process_server.client("sagemaker")
        .describe_model(ModelName="terraform-model")["ExecutionRoleArn"]
        .endswith(":role/teams/terraform-sagemaker")
    )
    assert terraform("plan", "-detailed-exitcode", codes=(EMPTY_PLAN_CODE, CHANGES_PLAN_CODE)) == EMPTY_PLAN_CODE
    terraform("destroy", "-auto-approve")
    assert process_server.client("sagemaker").list_models(NameContains="terraform")["Models"] == []
    groups = process_server.client("sagemaker").list_model_package_groups(NameContains="terraform")
    assert groups["ModelPackageGroupSummaryList"] == []
    assert process_server.client("iam").list_roles(PathPrefix="/teams/")["Roles"] == []
    assert "terraform-data" not in [item["Name"] for item in process_server.s3.list_buckets()["Buckets"]]
