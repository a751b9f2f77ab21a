"""Tests of `microjobs … --on aws`: the local server replaces AWS, and runs real containers."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs_orchestrator.aws.request_completer import RUN_TAG
from tests.aws import account as accounts
from tests.aws.account import Account
from tests.images.training import STRAIGHT_LINE_TABLE

pytestmark = pytest.mark.engine

ENDLESS_RUN = ("run", "straight-line", "--on", "aws", "--yes", "--epochs", "100000000")


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with accounts.open_account(tmp_path_factory.mktemp("account")) as account:
        yield account


def find_last_run(account: Account) -> str:
    return max((account.home / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime).stem


def wait_for_training(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any("InProgress: Training" in line for line in process.stdout)


def test_finished_workflow_leaves_nothing_running(account: Account) -> None:
    result = account.run_microjobs("run", "straight-line", "--on", "aws", "--yes", "--tag", "team=lines")
    assert (result.returncode, result.stderr) == (0, "")
    assert STRAIGHT_LINE_TABLE in result.stdout
    assert re.search(r"^cost +\$0\.\d+ for instances, by the price table$", result.stdout, re.MULTILINE)
    assert account.list_running_resources() == []
    job = account.server.sagemaker.describe_training_job(TrainingJobName=f"{find_last_run(account)}-train")
    tags = account.server.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "lines", RUN_TAG: find_last_run(account)}
    assert job["AlgorithmSpecification"]["TrainingImage"] == accounts.IMAGE_URIS["train-pytorch"]


def test_nothing_starts_without_consent(account: Account) -> None:
    journals = set((account.home / "runs").glob("*.json"))
    result = account.run_microjobs("run", "straight-line", "--on", "aws")
    assert result.returncode == 2
    assert "add --yes" in result.stderr
    assert "1 x ml.m5.large" in result.stdout
    assert set((account.home / "runs").glob("*.json")) == journals


def test_interrupted_run_leaves_nothing_running_and_resumes_only_on_aws(account: Account) -> None:
    with account.start_microjobs(*ENDLESS_RUN) as process:
        wait_for_training(process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "microjobs run straight-line --resume --on aws" in output
    assert "Cost so far: $" in output
    assert account.list_running_resources() == []
    local_result = account.run_microjobs("run", "straight-line", "--resume")
    assert local_result.returncode == 2
    assert "was started with --on aws" in local_result.stderr


def test_failed_step_leaves_nothing_running(account: Account) -> None:
    result = account.run_microjobs("run", "straight-line", "--on", "aws", "--yes", "--learning-rate", "-1")
    assert result.returncode == 1
    assert "learning_rate" in result.stderr
    assert account.list_running_resources() == []


def test_stop_ends_the_run_of_a_killed_command(account: Account) -> None:
    with account.start_microjobs(*ENDLESS_RUN) as process:
        wait_for_training(process)
        process.kill()
    assert account.list_running_resources() == [f"{find_last_run(account)}-train"]
    result = account.run_microjobs("stop", "--run", find_last_run(account), "--on", "aws")
    assert (result.returncode, result.stderr) == (0, "")
    assert account.list_running_resources() == []
    second_result = account.run_microjobs("stop", "--run", find_last_run(account), "--on", "aws")
    assert "was running" in second_result.stdout


def test_unpushed_images_prevent_a_run(account: Account, tmp_path: Path) -> None:
    account_without_images = Account(account.server, tmp_path)
    (tmp_path / "microjobs.toml").write_text((account.folder / "microjobs.toml").read_text())
    result = account_without_images.run_microjobs("run", "straight-line", "--on", "aws", "--yes")
    assert result.returncode == 2
    assert "images of preprocess, train-pytorch, serve, batch-score were not pushed" in result.stderr
    assert "`microjobs push`" in result.stderr


def test_jobs_and_logs_on_aws_are_shown(account: Account) -> None:
    output = account.run_microjobs("ps", "--on", "aws").stdout
    assert (name := re.search(r"^processing +(\S+-raw) +Completed", output, re.MULTILINE))
    assert "algo-1" in account.run_microjobs("logs", name[1], "--on", "aws").stdout


def test_doctor_finds_bucket_and_role(account: Account) -> None:
    output = account.run_microjobs("doctor", "--on", "aws").stdout
    assert "✓ bucket sagemaker-us-east-1-000000000000 in us-east-1" in output
    assert "✓ role microjobs, which SageMaker may assume" in output
    assert "? quotas cannot be checked" in output
