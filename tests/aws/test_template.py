"""Tests of the CloudFormation template: cfn-lint validates it, and the tests check the permissions of its role."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws.template import TRUST_POLICY, make_statements, make_template
from microjobs_orchestrator.cli import main
from microjobs_orchestrator.runs.backend import RequestContext
from microjobs_orchestrator.runs.pipelines import STEP_TYPES
from tests.conftest import JOBS

TEMPLATE = make_template(JOBS)
RESOURCES = TEMPLATE["Resources"]
CONTEXT = RequestContext(bucket="", role="", find_image_uri=str)


def list_role_statements() -> Iterator[dict[str, Any]]:
    """Yield all statements of the role, including those with a condition."""
    for statement in make_statements(["RepositoryServe"]):
        yield statement["Fn::If"][1] if "Fn::If" in statement else statement


@pytest.mark.slow
def test_cfn_lint_accepts_the_template(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(TEMPLATE))
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--include-checks", "I", "--", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_every_job_has_a_repository_with_immutable_tags() -> None:
    repositories = [item["Properties"] for item in RESOURCES.values() if item["Type"] == "AWS::ECR::Repository"]
    assert [item["RepositoryName"] for item in repositories] == [f"microjobs/{job}" for job in JOBS]
    for item in repositories:
        assert item["ImageTagMutability"] == "IMMUTABLE"
        assert item["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert json.loads(item["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]


def test_bucket_is_private_encrypted_and_requires_tls() -> None:
    bucket = RESOURCES["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    [statement] = RESOURCES["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_no_action_of_the_role_is_a_wildcard() -> None:
    assert [action for statement in list_role_statements() for action in statement["Action"] if "*" in action] == []


def test_wildcard_resources_are_necessary() -> None:
    actions_on_all_resources = {
        action for statement in list_role_statements() if statement["Resource"] == "*" for action in statement["Action"]
    }
    network_actions = {action for action in actions_on_all_resources if action.startswith("ec2:")}
    assert actions_on_all_resources - network_actions == {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}


def test_role_can_use_only_its_prefix() -> None:
    objects = [item for item in list_role_statements() if any("Object" in action for action in item["Action"])]
    assert [item["Resource"] for item in objects] == [{"Fn::Sub": "${Bucket.Arn}/${Prefix}/*"}]
    [listing] = [item for item in list_role_statements() if "s3:ListBucket" in item["Action"]]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": [{"Fn::Sub": "${Prefix}/*"}]}}


def test_role_can_create_jobs_only_for_pipelines() -> None:
    conditional_statements = [item["Fn::If"] for item in make_statements([]) if "Fn::If" in item]
    pipeline_statements = [
        statement for condition, statement, _ in conditional_statements if condition == "HasPipelines"
    ]
    creation_statements = [
        item for item in list_role_statements() if {"sagemaker:CreateTrainingJob", "iam:PassRole"} & {*item["Action"]}
    ]
    assert creation_statements == pipeline_statements
    assert TEMPLATE["Parameters"]["Pipelines"]["Default"] == "false"


def test_role_has_the_permissions_of_the_steps_of_all_workflows() -> None:
    operations = {planned.operation for planned in workflows.plan_requests(CONTEXT, {}) if planned.kind in STEP_TYPES}
    actions = {action for statement in list_role_statements() for action in statement["Action"]}
    assert {f"sagemaker:{name}" for name in operations - {"CreateModel"}} <= actions
    assert "sagemaker:CreateModelPackage" in actions


def test_only_sagemaker_of_this_account_assumes_the_role() -> None:
    [statement] = TRUST_POLICY["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_init_writes_the_template_and_prints_next_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "aws.json"
    assert main(["init", str(path)]) == 0
    assert json.loads(path.read_text()) == TEMPLATE
    assert f"--template-file {path} --capabilities CAPABILITY_NAMED_IAM" in capsys.readouterr().out


def test_init_does_not_overwrite_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "aws.json"
    path.write_text("mine")
    assert main(["init", str(path)]) == 2
    assert path.read_text() == "mine"
    assert "--force overwrites it" in capsys.readouterr().err
    assert main(["init", str(path), "--force"]) == 0


def test_init_prints_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == TEMPLATE


def test_init_reports_an_unwritable_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "aws.json"
    assert main(["init", str(path)]) == 2
    assert f"cannot write {path}: File exists: {path.parent}; choose another file" in capsys.readouterr().err
