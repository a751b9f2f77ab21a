"""How to run on AWS: `[aws]` of `microjobs.toml` in the current folder, and flags over it.

[aws]
region = "us-east-1"
role = "arn:aws:iam::123456789012:role/microjobs-us-east-1"
bucket = "microjobs-123456789012-us-east-1"
instance_type = "ml.m5.large"
spot = true

[aws.instance_types]
train = "ml.m5.xlarge"

[aws.tags]
team = "houses"

[aws.prices]
"ml.m5.large" = 0.138
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.config import FILE, ConfigError, read_section
from microjobs_orchestrator.push.destination import Destination

STEPS = ("raw", "scale", "train", "tune", "endpoint", "batch-score")
ROLE = re.compile(r"arn:aws[\w-]*:iam::(?P<account>\d{12}):role/(?P<name>.+)")
PLACEHOLDER_REGION = "us-east-1"
PLACEHOLDER_ACCOUNT = "123456789012"
"""As AWS's documentation has it: nobody's."""
INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+")


@dataclass(frozen=True)
class Settings:
    """What is chosen for AWS. Credentials are not here: boto3 finds them, SSO's too."""

    role: str = ""
    """The execution role's ARN."""
    bucket: str = ""
    region: str = ""
    """Empty: the profile's, as boto3 finds it."""
    profile: str = ""
    prefix: str = "microjobs"
    """Folder of all objects in the bucket."""
    registry: str = ""
    """`HOST[/PREFIX]`; empty: the account's own, in the region."""
    instance_type: str = "ml.m5.large"
    instance_types: Mapping[str, str] = field(default_factory=dict)
    """Of the steps that have another one."""
    instance_count: int = 0
    """Hosts of the scaling step; 0: as many as the workflow says."""
    endpoint_instances: int = 1
    max_minutes: int = 60
    """How long a job may run, and an endpoint may take to be in service."""
    spot: bool = False
    """Train on spare instances, which cost less and may be taken away."""
    spot_wait_minutes: int = 60
    """How much longer a job may then take for waiting."""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    kms_key: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    """Dollars an hour by instance type, over those of `prices.toml`."""

    @property
    def account(self) -> str:
        return self._role_part("account")

    @property
    def role_name(self) -> str:
        """Without its path."""
        return self._role_part("name").rpartition("/")[2]

    @property
    def key_prefix(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def destination(self) -> Destination:
        """The registry that images are taken from."""
        return Destination.parse(self.registry or f"{self.account}.dkr.ecr.{self.region}.amazonaws.com")

    def _role_part(self, name: str) -> str:
        match = ROLE.fullmatch(self.role)
        return match[name] if match else ""


def read(path: Path = FILE) -> Settings:
    """The file's settings; the defaults if it has none.

    Raises:
        ConfigError: it is not TOML, or has a setting that there is not, or one of the wrong type.
    """
    table = read_section(path, "aws")
    return Settings(**{name: _typed(path, name, value) for name, value in table.items()})


def _typed(path: Path, name: str, value: Any) -> Any:
    defaults = {item.name: getattr(Settings(), item.name) for item in fields(Settings)}
    if name not in defaults:
        raise ConfigError(f"{path}: [aws] has no setting {name!r}; there are {', '.join(defaults)}")
    if isinstance(defaults[name], tuple):
        value = tuple(value) if isinstance(value, list) else value
    if type(value) is not type(defaults[name]):
        wanted = "a list" if isinstance(defaults[name], tuple) else f"like {defaults[name]!r}"
        raise ConfigError(f"{path}: {name} must be {wanted}, not {value!r}")
    _check_items(path, name, value)
    return value


def _check_items(path: Path, name: str, value: Any) -> None:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    wanted, word = ((int, float), "numbers") if name == "prices" else (str, "texts")
    for item in items:
        if not isinstance(item, wanted) or isinstance(item, bool):
            raise ConfigError(f"{path}: {name} must hold {word}, not {item!r}")


def changed(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Settings with the flags that were given put in; tables are added to."""
    values: dict[str, Any] = {
        name: {**getattr(settings, name), **value} if isinstance(value, Mapping) else value
        for name, value in given.items()
    }
    return replace(settings, **values)


@dataclass(frozen=True)
class Problem:
    """A setting that is missing or wrong, and what to do."""

    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}"


def refuse(problems: Sequence[Problem]) -> None:
    """Report all problems at once.

    Raises:
        UsageError: there is at least one.
    """
    if len(problems) == 1:
        raise UsageError(str(problems[0]))
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise UsageError(f"{len(problems)} things are missing or wrong:{lines}")


def region_problems(settings: Settings) -> list[Problem]:
    if settings.region:
        return []
    return [Problem("no region is set", "--region, `region` in [aws] of microjobs.toml, or AWS_DEFAULT_REGION")]


def problems(settings: Settings) -> list[Problem]:
    """All that keeps requests from being made of the settings."""
    found = [*region_problems(settings), *_target_problems(settings), *_instance_problems(settings)]
    if bool(settings.subnets) != bool(settings.security_groups):
        found.append(Problem("a VPC needs both subnets and security groups", "--subnets and --security-groups"))
    return found + [
        Problem(f"{name} must be at least 1, not {value}", f"set --{name.replace('_', '-')}")
        for name in ("endpoint_instances", "max_minutes")
        if (value := getattr(settings, name)) < 1
    ]


def _target_problems(settings: Settings) -> Iterator[Problem]:
    template = "`microjobs init` writes a template that makes one"
    if not settings.role:
        yield Problem("no role is set", f"--role, or `role` in [aws] of microjobs.toml ({template})")
    elif not ROLE.fullmatch(settings.role):
        like = "write it like arn:aws:iam::123456789012:role/NAME"
        yield Problem(f"role {settings.role!r} is not the ARN of a role", like)
    if not settings.bucket:
        yield Problem("no bucket is set", f"--bucket, or `bucket` in [aws] of microjobs.toml ({template})")


def _instance_problems(settings: Settings) -> Iterator[Problem]:
    for step in settings.instance_types:
        if step not in STEPS:
            yield Problem(f"no step is called {step}", f"the steps are {', '.join(STEPS)}")
    for instance_type in (settings.instance_type, *settings.instance_types.values()):
        if not INSTANCE_TYPE.fullmatch(instance_type):
            yield Problem(f"{instance_type!r} is not an instance type", "they are written like ml.m5.large")


def checked(settings: Settings) -> Settings:
    """Settings that requests can be made from.

    Raises:
        UsageError: something is missing or wrong, all of it at once, with what to write.
    """
    refuse(problems(settings))
    return settings


def with_placeholders(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """Settings for requests that nobody sends, and the placeholders in them by name."""
    region = settings.region or PLACEHOLDER_REGION
    account = settings.account or PLACEHOLDER_ACCOUNT
    values = {
        "region": region,
        "role": f"arn:aws:iam::{account}:role/microjobs-{region}",
        "bucket": f"microjobs-{account}-{region}",
    }
    missing = {name: value for name, value in values.items() if not getattr(settings, name)}
    return changed(settings, missing), missing
