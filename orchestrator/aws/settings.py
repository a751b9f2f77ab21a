"""Settings for AWS: the table `[aws]` of `microjobs.toml` in the current folder, and the flags that override it."""

import re
from argparse import ArgumentTypeError
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.config import FILE, TYPE_NAMES, ConfigError, load_section
from microjobs_orchestrator.push.destination import Destination

ROLE_ARN_PATTERN = re.compile(r"arn:aws[\w-]*:iam::(?P<account>\d{12}):role/(?P<name>.+)")
PLACEHOLDER_REGION = "us-east-1"
PLACEHOLDER_ACCOUNT = "123456789012"
"""The account of AWS's examples."""
INSTANCE_TYPE_PATTERN = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+")


def declare_flag(default: Any, metavar: str, help: str, **arguments: Any) -> Any:
    """Declare a setting that is also a flag. `arguments` are additional arguments of `add_argument`."""
    default_note = f" (default: {default})" if default and isinstance(default, str | int) else ""
    metadata = {"metavar": metavar, "help": f"{help}{default_note}", **arguments}
    return field(default_factory=default if callable(default) else lambda: default, metadata=metadata)


def _parse_items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _parse_pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


@dataclass(frozen=True)
class Settings:
    """Settings for AWS. Credentials are not among them: boto3 finds them, including those of SSO."""

    role: str = declare_flag("", "ARN", "execution role of the jobs")
    bucket: str = declare_flag("", "B", "bucket for all data")
    region: str = declare_flag("", "R", "AWS region (default: boto3's)")
    profile: str = declare_flag("", "P", "profile of ~/.aws/config (default: boto3's)")
    prefix: str = declare_flag("microjobs", "FOLDER", "folder for all data in the bucket")
    registry: str = declare_flag("", "HOST[/PREFIX]", "registry of the images (default: the account's ECR)")
    instance_type: str = declare_flag(
        "ml.m5.large",
        "[STEP=]TYPE",
        "instance type, of one step or of all, such as train=ml.c5.xlarge or ml.m5.large",
        action="append",
    )
    instance_types: Mapping[str, str] = field(default_factory=dict)
    """Instance types of single steps, by step."""
    instance_count: int = 0
    """Number of hosts of a workflow's multi-host step. If it is 0, the workflow's default is used."""
    endpoint_instances: int = declare_flag(1, "N", "instances of the endpoint", type=int)
    max_minutes: int = declare_flag(60, "N", "time limit of a job and of an endpoint's creation", type=int)
    spot: bool = field(default=False, metadata={"help": "train on spot instances", "action": "store_true"})
    spot_wait_minutes: int = declare_flag(60, "N", "additional time limit for spot instances", type=int)
    subnets: tuple[str, ...] = declare_flag((), "ID,ID", "subnets of jobs and models", type=_parse_items)
    security_groups: tuple[str, ...] = declare_flag(
        (), "ID,ID", "security groups of jobs and models", type=_parse_items
    )
    kms_key: str = declare_flag("", "KEY", "key that encrypts outputs and volumes")
    tags: Mapping[str, str] = declare_flag(
        dict, "KEY=VALUE", "tag of all resources; can be repeated", type=_parse_pair, action="append"
    )
    prices: Mapping[str, float] = field(default_factory=dict)
    """Dollars per hour by instance type. These prices override those of `prices.toml`."""

    @property
    def account(self) -> str:
        return self._parse_role("account")

    @property
    def role_name(self) -> str:
        """The role's name without its path."""
        return self._parse_role("name").rpartition("/")[2]

    @property
    def workflow_options(self) -> dict[str, int]:
        """Settings that are also options of workflows, if they are set."""
        return {"instance_count": self.instance_count} if self.instance_count else {}

    @property
    def key_prefix(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def destination(self) -> Destination:
        """The registry to which `microjobs push` sends the images, and from which AWS pulls them."""
        return Destination.parse(self.registry or f"{self.account}.dkr.ecr.{self.region}.amazonaws.com")

    def _parse_role(self, name: str) -> str:
        match = ROLE_ARN_PATTERN.fullmatch(self.role)
        return match[name] if match else ""


def load(path: Path = FILE) -> Settings:
    """Load the settings of the file. Raise ConfigError for a wrong file, name or type."""
    table = load_section(path, "aws")
    return Settings(**{name: _parse_setting(path, name, value) for name, value in table.items()})


def _parse_setting(path: Path, name: str, value: Any) -> Any:
    defaults = {item.name: getattr(Settings(), item.name) for item in fields(Settings)}
    if name not in defaults:
        raise ConfigError(f"{path}: [aws] has no setting {name!r}; its settings are {', '.join(defaults)}")
    if isinstance(defaults[name], tuple):
        value = tuple(value) if isinstance(value, list) else value
    if type(value) is not type(defaults[name]):
        raise ConfigError(f"{path}: {name} must be {TYPE_NAMES[type(defaults[name])]}, not {value!r}")
    _check_items(path, name, value)
    return value


def _check_items(path: Path, name: str, value: Any) -> None:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    expected_type, type_name = ((int, float), "number") if name == "prices" else (str, "string")
    for item in items:
        if not isinstance(item, expected_type) or isinstance(item, bool):
            raise ConfigError(f"{path}: every item of {name} must be a {type_name}, not {item!r}")


def override(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings with the changed values. Tables are merged."""
    values: dict[str, Any] = {
        name: {**getattr(settings, name), **value} if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return replace(settings, **values)


@dataclass(frozen=True)
class Problem:
    """A setting that is missing or wrong, or missing credentials, with the remedy."""

    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}"


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one UsageError for all problems, if there are any."""
    if len(problems) == 1:
        raise UsageError(str(problems[0]))
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise UsageError(f"{len(problems)} settings are missing or wrong:{lines}")


def find_region_problems(settings: Settings) -> list[Problem]:
    if settings.region:
        return []
    return [Problem("no region is set", "--region, `region` in [aws] of microjobs.toml, or AWS_DEFAULT_REGION")]


def find_problems(settings: Settings, steps: Collection[str]) -> list[Problem]:
    """Return all problems with the settings that requests need. `steps` are the steps of all workflows."""
    problems = [*find_region_problems(settings), *_find_role_and_bucket_problems(settings)]
    problems += _find_instance_problems(settings, steps)
    if bool(settings.subnets) != bool(settings.security_groups):
        problems.append(Problem("a VPC needs both subnets and security groups", "--subnets and --security-groups"))
    return problems + [
        Problem(f"{name} must be at least 1, not {value}", f"set --{name.replace('_', '-')}")
        for name in ("endpoint_instances", "max_minutes")
        if (value := getattr(settings, name)) < 1
    ]


def _find_role_and_bucket_problems(settings: Settings) -> Iterator[Problem]:
    template = "`microjobs init` writes a template that creates it"
    if not settings.role:
        yield Problem("no role is set", f"--role, or `role` in [aws] of microjobs.toml ({template})")
    elif not ROLE_ARN_PATTERN.fullmatch(settings.role):
        remedy = "use the form arn:aws:iam::123456789012:role/NAME"
        yield Problem(f"role {settings.role!r} is not the ARN of a role", remedy)
    if not settings.bucket:
        yield Problem("no bucket is set", f"--bucket, or `bucket` in [aws] of microjobs.toml ({template})")


def _find_instance_problems(settings: Settings, steps: Collection[str]) -> Iterator[Problem]:
    for step in settings.instance_types:
        if step not in steps:
            yield Problem(f"step {step} does not exist", f"the steps are {', '.join(steps)}")
    for instance_type in (settings.instance_type, *settings.instance_types.values()):
        if not INSTANCE_TYPE_PATTERN.fullmatch(instance_type):
            yield Problem(f"{instance_type!r} is not an instance type", "use the form ml.m5.large")


def fill_placeholders(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """Fill in placeholders for requests that are only printed. Return the settings, and the placeholders by name."""
    region = settings.region or PLACEHOLDER_REGION
    account = settings.account or PLACEHOLDER_ACCOUNT
    values = {
        "region": region,
        "role": f"arn:aws:iam::{account}:role/microjobs-{region}",
        "bucket": f"microjobs-{account}-{region}",
    }
    missing = {name: value for name, value in values.items() if not getattr(settings, name)}
    return override(settings, missing), missing
