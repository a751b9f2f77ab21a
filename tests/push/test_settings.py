"""Options of `microjobs push`: from [aws] of microjobs.toml, and from flags, which override the file."""

from pathlib import Path

import pytest

from microjobs_orchestrator.cli import make_parser
from microjobs_orchestrator.commands.push import make_push_options
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.push.push import PushOptions

OWN_ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
REGION_AND_ROLE = 'region = "eu-west-1"\nrole = "arn:aws:iam::123456789012:role/microjobs"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user with credentials and two profiles, but without a region."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    keys = "aws_access_key_id = AKIA\naws_secret_access_key = secret\n"
    profiles = (("research", "eu-north-1"), ("other", "sa-east-1"))
    (tmp_path / "config").write_text(
        "".join(f"[profile {name}]\nregion = {region}\n{keys}" for name, region in profiles)
    )
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def read_push_options(folder: Path, settings: str, *arguments: str) -> PushOptions:
    (folder / "microjobs.toml").write_text(f"[aws]\n{settings}")
    return make_push_options(make_parser().parse_args(["push", *arguments]))


@pytest.mark.parametrize(
    ("settings", "arguments", "registry", "region", "profile"),
    [
        ('region = "eu-west-1"', (), None, "eu-west-1", ""),
        ('profile = "research"', (), None, "eu-north-1", "research"),
        ('profile = "research"', ("--profile", "other"), None, "sa-east-1", "other"),
        ('region = "eu-west-1"', ("--region", "us-west-2"), None, "us-west-2", ""),
        (REGION_AND_ROLE, (), f"{OWN_ECR}/microjobs", "eu-west-1", ""),  # runs pull images from this registry
        (
            REGION_AND_ROLE,
            ("--region", "us-west-2"),
            f"{OWN_ECR}/microjobs".replace("eu-west-1", "us-west-2"),
            "us-west-2",
            "",
        ),
        (
            f'registry = "{OWN_ECR}/team"\nprofile = "research"',
            (),
            f"{OWN_ECR}/team",
            "eu-west-1",
            "research",
        ),
        (f'{REGION_AND_ROLE}registry = "registry.example.com/team"', (), "registry.example.com/team", None, None),
        (f'{REGION_AND_ROLE}registry = "{OWN_ECR}/team"', ("--registry", "example.com"), "example.com", None, None),
    ],
)
def test_settings_complete_the_flags(
    folder: Path,
    settings: str,
    arguments: tuple[str, ...],
    registry: str | None,
    region: str | None,
    profile: str | None,
) -> None:
    options = read_push_options(folder, settings, *arguments)
    assert (options.registry, options.region, options.profile) == (registry, region, profile)


def test_invalid_registry_in_the_file_raises(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"registry 'https://example.com' is not HOST\[/PREFIX\]"):
        read_push_options(folder, 'registry = "https://example.com"')
