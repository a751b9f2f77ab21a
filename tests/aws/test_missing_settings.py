"""Tests of commands for AWS with missing or wrong settings: the commands report all problems at once, with remedies."""

import json
import socket
from pathlib import Path

import pytest

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local.home import HOME_VARIABLE

COMMANDS = {
    "ps": ("ps", "--on", "aws"),
    "logs": ("logs", "job", "--on", "aws"),
    "stop": ("stop", "job", "--on", "aws"),
    "stop --run": ("stop", "--run", "housing-1", "--on", "aws"),
    "push": ("push",),
    "run": ("run", "housing", "--on", "aws"),
    "doctor": ("doctor", "--on", "aws"),
}
COMMANDS_WITH_ROLE_AND_BUCKET = ("run", "doctor")
"""Commands that need a role and a bucket."""

# Texts of the error messages about missing settings:
REGION = ("no region is set", "AWS_DEFAULT_REGION")
CREDENTIALS = ("boto3 finds no credentials for AWS", "aws sso login", "aws configure")
ROLE = ("no role is set", "microjobs init")
BUCKET = ("no bucket is set", "--bucket")
PROFILE = ("The config profile (nobody) could not be found", "aws configure list-profiles")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user without credentials, region and settings."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_output(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out + captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_all_missing_settings_are_named_at_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMANDS[command]) in (1, 2)
    text = read_output(capsys)
    for expected in (*REGION, *CREDENTIALS, *((*ROLE, *BUCKET) if command in COMMANDS_WITH_ROLE_AND_BUCKET else ())):
        assert expected in text


@pytest.mark.parametrize("command", COMMANDS)
def test_only_missing_settings_are_named(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert main(COMMANDS[command]) in (1, 2)
    text = read_output(capsys)
    assert all(expected in text for expected in CREDENTIALS)
    assert REGION[0] not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_profile_of_the_settings_file_is_named(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "microjobs.toml").write_text('[aws]\nprofile = "nobody"\nregion = "us-east-1"\n')
    assert main(COMMANDS[command]) in (1, 2)
    text = read_output(capsys)
    assert all(expected in text for expected in PROFILE)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[aws\n", "microjobs.toml is not valid TOML"),
        (b"[aws]\nregion = '\xff'\n", "microjobs.toml is not valid TOML"),
        (b"[awz]\nregion = 'us-east-1'\n", "'awz' is not one of the tables [local] and [aws]"),
        (b"aws = 'us-east-1'\n", "'aws' is not one of the tables [local] and [aws]"),
        (b"[aws]\nregions = 'us-east-1'\n", "[aws] has no setting 'regions'"),
        (b"[aws]\nregion = 1\n", "region must be a string, not 1"),
        (b"[aws]\nsubnets = [1]\n", "every item of subnets must be a string, not 1"),
        (b"[aws.tags]\nteam = 1\n", "every item of tags must be a string, not 1"),
        (b"[aws.prices]\n'ml.m5.large' = 'cheap'\n", "every item of prices must be a number, not 'cheap'"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_an_invalid_file(
    command: str, content: bytes, expected: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "microjobs.toml").write_bytes(content)
    assert main(COMMANDS[command]) == 2
    assert expected in read_output(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_incomplete_credentials_have_a_remedy(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # the file has only half of the credentials
    (folder / "credentials").write_text("[work]\naws_access_key_id = AKIA\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert main(COMMANDS[command]) in (1, 2)
    text = read_output(capsys)
    assert "Partial credentials found" in text
    assert "aws configure" in text


@pytest.mark.parametrize(
    "content", ["[default\n", "[profile work]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = work\n"]
)
def test_invalid_aws_configuration_has_a_remedy(
    content: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config").write_text(content)
    monkeypatch.setenv("AWS_PROFILE", "work" if "work" in content else "default")
    assert main(COMMANDS["ps"]) == 2
    assert "correct ~/.aws/config" in read_output(capsys)


def test_unknown_job_is_reported_without_an_account(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "nope"]) == 2
    assert "no job nope exists: choose from batch-score" in read_output(capsys)


def test_unreachable_network_has_a_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with socket.socket() as unused_socket:  # this socket has a port, but accepts no connections
        unused_socket.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{unused_socket.getsockname()[1]}")
        assert main(COMMANDS["doctor"]) == 1
    assert "check the network" in read_output(capsys)


@pytest.mark.parametrize("workflow", ["housing", "straight-line"])
def test_dry_run_needs_no_account(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", workflow, "--on", "aws", "--dry-run"]) == 0
    captured = capsys.readouterr()
    requests = [json.loads(line) for line in captured.out.splitlines()]
    role = "arn:aws:iam::123456789012:role/microjobs-us-east-1"
    assert {request["RoleArn"] for request in requests if "RoleArn" in request} == {role}
    assert (
        f"placeholders, because neither flags nor microjobs.toml set them: region us-east-1, role {role}"
        in captured.err
    )


def test_dry_run_uses_the_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "microjobs.toml").write_text('[aws]\nregion = "eu-west-1"\nrole = "arn:aws:iam::111122223333:role/r"\n')
    assert main(["run", "housing", "--on", "aws", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "bucket microjobs-111122223333-eu-west-1" in captured.err
    assert "role " not in captured.err
    assert "111122223333.dkr.ecr.eu-west-1.amazonaws.com" in captured.out


def test_dry_run_reports_all_wrong_settings_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--role", "microjobs", "--instance-type", "large", "--max-minutes", "0", "--subnets", "s-1")
    assert main(["run", "housing", "--on", "aws", "--dry-run", *words]) == 2
    text = read_output(capsys)
    errors = (
        "'microjobs' is not the ARN",
        "'large' is not an instance type",
        "max_minutes must be",
        "a VPC needs both",
    )
    assert all(expected in text for expected in errors)
