"""The template of what an account needs: read by cfn-lint as CloudFormation reads it, and made by moto."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.aws.policy import TRUST, statements, template
from microjobs_orchestrator.cli import main
from tests.conftest import JOBS

TEMPLATE = template(JOBS)
RESOURCES = TEMPLATE["Resources"]


def allowed() -> Iterator[dict[str, Any]]:
    """All statements of the role, those under a condition too."""
    for statement in statements(["RepositoryServe"]):
        yield statement["Fn::If"][1] if "Fn::If" in statement else statement


def test_cloudformation_takes_the_template(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(TEMPLATE))
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--include-checks", "I", "--", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_job_has_a_repository_with_immutable_tags() -> None:
    repositories = [item["Properties"] for item in RESOURCES.values() if item["Type"] == "AWS::ECR::Repository"]
    assert [item["RepositoryName"] for item in repositories] == [f"microjobs/{job}" for job in JOBS]
    for item in repositories:
        assert item["ImageTagMutability"] == "IMMUTABLE"
        assert item["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert json.loads(item["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]


def test_bucket_is_closed_encrypted_and_reached_by_tls_alone() -> None:
    bucket = RESOURCES["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    [statement] = RESOURCES["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_no_action_of_the_role_is_a_wildcard() -> None:
    assert [action for statement in allowed() for action in statement["Action"] if "*" in action] == []


def test_wildcard_resources_are_only_those_that_aws_needs() -> None:
    everywhere = {action for statement in allowed() if statement["Resource"] == "*" for action in statement["Action"]}
    network = {action for action in everywhere if action.startswith("ec2:")}
    assert everywhere - network == {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}


def test_role_reaches_its_prefix_of_the_bucket_alone() -> None:
    objects = [item for item in allowed() if any("Object" in action for action in item["Action"])]
    assert [item["Resource"] for item in objects] == [{"Fn::Sub": "${Bucket.Arn}/${Prefix}/*"}]
    [listing] = [item for item in allowed() if "s3:ListBucket" in item["Action"]]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": [{"Fn::Sub": "${Prefix}/*"}]}}


def test_sagemaker_of_this_account_alone_takes_the_role_on() -> None:
    [statement] = TRUST["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_init_writes_the_template_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "aws.json"
    assert main(["init", str(path)]) == 0
    assert json.loads(path.read_text()) == TEMPLATE
    assert f"--template-file {path} --capabilities CAPABILITY_NAMED_IAM" in capsys.readouterr().out


def test_init_does_not_write_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "aws.json"
    path.write_text("mine")
    assert main(["init", str(path)]) == 2
    assert path.read_text() == "mine"
    assert "--force writes over it" in capsys.readouterr().err
    assert main(["init", str(path), "--force"]) == 0


def test_init_prints_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == TEMPLATE


def test_init_names_the_folder_that_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "aws.json"
    assert main(["init", str(path)]) == 2
    assert f"cannot write {path}: File exists: {path.parent}; name another file" in capsys.readouterr().err
