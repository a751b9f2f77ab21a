"""Tests of `microjobs run … --on aws` before the first request: dry runs, resumed runs, options from settings."""

import json
from pathlib import Path

import pytest

from microjobs_orchestrator.aws.backend import POLL_INTERVAL_SECONDS, connect
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.cli import main
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.launch import LaunchRequest, resume_journal
from microjobs_orchestrator.local.home import HOME_VARIABLE
from microjobs_orchestrator.runs.journal import Journal, JournalEntry
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext, select_remaining
from microjobs_orchestrator.workflows import housing
from tests.aws import account
from tests.launcher.cloud import Cloud

ROLE = "arn:aws:iam::000000000000:role/microjobs"
AWS_FLAGS = ("--on", "aws", "--role", ROLE, "--bucket", "bucket", "--region", "us-east-1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder without settings, and return the path of its home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def test_dry_run_prints_only_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "housing", *AWS_FLAGS, "--dry-run"]) == 0
    captured = capsys.readouterr()
    requests = [json.loads(line) for line in captured.out.splitlines()]
    assert len(requests) == 8
    assert requests[2]["TrainingJobName"] == "housing-dry-run-train"
    assert requests[4]["PrimaryContainer"]["ModelDataUrl"] == (
        "s3://bucket/microjobs/housing-dry-run/models/housing-dry-run-train/output/model.tar.gz"
    )
    assert "# aws sagemaker create-hyper-parameter-tuning-job --cli-input-json" in captured.err


def test_dry_run_has_digests_of_pushed_images(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "straight-line", *AWS_FLAGS, "--dry-run"])
    assert "images of preprocess, train-pytorch, serve, batch-score were not pushed" in capsys.readouterr().err
    account.write_pushed_images(home)
    main(["run", "straight-line", *AWS_FLAGS, "--dry-run"])
    captured = capsys.readouterr()
    assert "were not pushed" not in captured.err
    assert captured.out.count("@sha256:") == 4


def test_dry_run_is_the_same_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for _ in range(2):
        main(["run", "housing", *AWS_FLAGS, "--dry-run", "--spot"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_dry_run_without_on_aws_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "housing", "--dry-run"]) == 2
    assert "--dry-run prints requests to AWS: add --on aws" in capsys.readouterr().err


def test_aws_flags_without_on_aws_fail(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["run", "housing"], ["doctor"], ["ps"]):
        assert main([*command, "--region", "us-east-1"]) == 2
        assert "--region can be used only with --on aws" in capsys.readouterr().err


def test_unknown_profile_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "--on", "aws", "--profile", "nobody"]) == 2
    assert "The config profile (nobody) could not be found: `aws configure list-profiles`" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "hosts"), [({}, 3), ({"instance_count": 2}, 2)])
def test_flag_for_hosts_of_the_scaling_job_overrides_the_setting(
    settings: Settings, flags: dict[str, int], hosts: int
) -> None:
    aws = Settings(**{**vars(settings), "instance_count": 3})
    assert LaunchRequest("housing", flags, aws=aws).options == {"instance_count": hosts}
    assert LaunchRequest("straight-line", {}, aws=aws).options == {}


def plan_housing(cloud: Cloud) -> list[PlannedRequest]:
    return housing.plan_requests(RunContext(cloud.make_backend(), "run"), housing.Options())


def make_entry(step: str, *, is_finished: bool = True) -> JournalEntry:
    return JournalEntry(step, title="", kind="", name="", seconds=1.0 if is_finished else None)


def test_resumed_run_plans_only_the_remaining_steps(cloud: Cloud, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "r.json", id="run", workflow="housing", options={}, on="aws")
    journal.steps = [make_entry("raw"), make_entry("scale"), make_entry("train", is_finished=False)]
    assert [item.step for item in select_remaining(plan_housing(cloud), journal.finished_steps)][:2] == [
        "train",
        "tune",
    ]
    journal.steps += [make_entry(step) for step in ("tune", "predictions")]
    assert [item.step for item in select_remaining(plan_housing(cloud), journal.finished_steps)] == [
        "train",
        "batch-score",
    ]
    assert select_remaining(plan_housing(cloud), set()) == plan_housing(cloud)


def test_resume_with_another_prefix_fails(settings: Settings, home: Path) -> None:
    runs = home / "runs"
    Journal.new(runs, "straight-line", {}, on="aws", base="s3://bucket/old/")
    settings_with_other_prefix = Settings(**{**vars(settings), "bucket": "bucket", "prefix": "new"})
    with pytest.raises(UsageError, match=r"is below s3://bucket/old/, not s3://bucket/new/: set bucket and prefix"):
        resume_journal(runs, LaunchRequest("straight-line", {}, aws=settings_with_other_prefix))
    settings_with_same_prefix = Settings(**{**vars(settings_with_other_prefix), "prefix": "old"})
    assert resume_journal(runs, LaunchRequest("straight-line", {}, aws=settings_with_same_prefix)).attempt == 2


def test_aws_is_polled_every_five_seconds_with_adaptive_retries(settings: Settings) -> None:
    backend = connect(settings, find_image_uri=str)
    assert (
        (backend.poll_interval, backend.max_poll_interval)
        == (POLL_INTERVAL_SECONDS, POLL_INTERVAL_SECONDS)
        == (5.0, 5.0)
    )
    retries = backend.sagemaker.meta.config.retries  # type: ignore[attr-defined]
    assert retries["mode"] == "adaptive"
