"""Tests of the settings for AWS: `microjobs.toml`, the flags that override it, and validation."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.aws.settings import Settings, find_problems, load, override, raise_problems
from microjobs_orchestrator.failures import UsageError

SETTINGS_FILE = """
[local]
port = 1
[aws]
region = "eu-west-1"
instance_type = "ml.m5.xlarge"
subnets = ["subnet-1"]
spot = true
[aws.instance_types]
train = "ml.c5.xlarge"
[aws.tags]
team = "houses"
[aws.prices]
"ml.m5.xlarge" = 0.25
"""


def parse_flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    flags.add(parser, all_settings=True)
    return parser.parse_args(words)


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "microjobs.toml"
    path.write_text(SETTINGS_FILE)
    return path


def test_settings_are_read_from_the_file(settings_file: Path) -> None:
    settings = load(settings_file)
    assert (settings.region, settings.spot, settings.subnets) == ("eu-west-1", True, ("subnet-1",))
    assert settings.prices == {"ml.m5.xlarge": 0.25}


def test_missing_file_gives_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "none.toml") == Settings()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("spots = true", "no setting 'spots'"),
        ('spot = "yes"', "spot must be true or false, not 'yes'"),
        ('subnets = "subnet-1"', "subnets must be a list"),
        ("spot", "not valid TOML"),
    ],
)
def test_invalid_file_names_the_setting(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "microjobs.toml"
    path.write_text(f"[aws]\n{line}\n")
    with pytest.raises(UsageError, match=message):
        load(path)


def test_flags_override_the_file(settings_file: Path) -> None:
    flag_settings = flags.parse_settings(
        parse_flags("--on", "aws", "--region", "us-west-2", "--subnets", "subnet-2, subnet-3")
    )
    settings = override(load(settings_file), flag_settings)
    assert (settings.region, settings.subnets) == ("us-west-2", ("subnet-2", "subnet-3"))
    assert settings.instance_type == "ml.m5.xlarge"


def test_flags_extend_tables_of_the_file(settings_file: Path) -> None:
    words = ["--instance-type", "ml.m5.large", "--instance-type", "tune=ml.c5.large", "--tag", "run=a=b"]
    settings = override(load(settings_file), flags.parse_settings(parse_flags("--on", "aws", *words)))
    assert settings.instance_type == "ml.m5.large"
    assert settings.instance_types == {"train": "ml.c5.xlarge", "tune": "ml.c5.large"}
    assert settings.tags == {"team": "houses", "run": "a=b"}


def test_flags_for_aws_need_on_aws_option() -> None:
    with pytest.raises(UsageError, match="--spot, --tag can be used only with --on aws"):
        flags.uses_aws(parse_flags("--spot", "--tag", "a=b"))
    assert flags.uses_aws(parse_flags()) is False


def test_all_settings_but_three_have_a_flag() -> None:
    text_flags = "profile region role bucket prefix registry instance-type subnets security-groups kms-key"
    number_flags = "endpoint-instances max-minutes spot-wait-minutes"
    words = [word for name in text_flags.split() for word in (f"--{name}", "x")]
    words += [word for name in number_flags.split() for word in (f"--{name}", "7")]
    words += ["--spot", "--tag", "a=b"]
    settings = override(Settings(), flags.parse_settings(parse_flags("--on", "aws", *words)))
    unchanged_names = [name for name, value in vars(settings).items() if value == getattr(Settings(), name)]
    assert unchanged_names == ["instance_types", "instance_count", "prices"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"region": ""}, "no region is set"),
        ({"role": "microjobs"}, "'microjobs' is not the ARN of a role"),
        ({"bucket": ""}, "no bucket is set"),
        ({"subnets": ("subnet-1",)}, "a VPC needs both"),
        ({"instance_types": {"training": "ml.m5.large"}}, "step training does not exist: the steps are raw, scale"),
        ({"instance_types": {"train": "m5.large"}}, "'m5.large' is not an instance type"),
        ({"max_minutes": 0}, "max_minutes must be at least 1, not 0"),
    ],
)
def test_invalid_settings_have_remedies(settings: Settings, values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        raise_problems(find_problems(replace(settings, **values), workflows.list_steps()))  # type: ignore[arg-type]


def test_account_and_registry_are_parsed(settings: Settings) -> None:
    assert (settings.account, settings.role_name) == ("123456789012", "microjobs")
    assert str(settings.destination) == "123456789012.dkr.ecr.us-east-1.amazonaws.com/microjobs"
    assert str(replace(settings, registry="registry.example.com/team").destination) == "registry.example.com/team"
