"""Flags of the commands that use AWS. A flag overrides its setting in `microjobs.toml`."""

import argparse
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.failures import UsageError

if TYPE_CHECKING:
    from microjobs_orchestrator.aws.settings import Settings

PREFIX = "aws_"
"""The prefix of these flags' names among the parsed options of a command."""


def add(parser: argparse.ArgumentParser, *, requests: bool = False) -> None:
    """Add `--on` and the flags for AWS.

    Args:
        parser: the parser of a command.
        requests: also add the flags that only requests for jobs need.
    """
    parser.add_argument(
        "--on", choices=("here", "aws"), default="here", help="use this machine or AWS (default: %(default)s)"
    )
    group = parser.add_argument_group(
        "on AWS", "Each one is also a setting in [aws] of microjobs.toml: docs/using/aws.md"
    )
    flag = _make_adder(group)
    flag("--profile", metavar="P", help="profile of ~/.aws/config (default: boto3's)")
    flag("--region", metavar="R", help="AWS region (default: boto3's)")
    if requests:
        _add_request_flags(flag)


def _add_request_flags(flag: Callable[..., None]) -> None:
    flag("--role", metavar="ARN", help="execution role of the jobs")
    flag("--bucket", metavar="B", help="bucket for all data")
    flag("--prefix", metavar="FOLDER", help="folder for all data in the bucket (default: microjobs)")
    flag("--registry", metavar="HOST[/PREFIX]", help="registry of the images (default: the account's ECR)")
    flag(
        "--instance-type",
        metavar="[STEP=]TYPE",
        action="append",
        help="instance type, of one step or of all, such as train=ml.c5.xlarge or ml.m5.large",
    )
    flag("--endpoint-instances", type=int, metavar="N", help="instances of the endpoint (default: 1)")
    flag("--max-minutes", type=int, metavar="N", help="time limit of a job and of an endpoint's creation (default: 60)")
    flag("--spot", action="store_true", help="train on spot instances")
    flag("--spot-wait-minutes", type=int, metavar="N", help="additional time limit for spot instances (default: 60)")
    flag("--subnets", type=_parse_items, metavar="ID,ID", help="subnets of the jobs and models")
    flag("--security-groups", type=_parse_items, metavar="ID,ID", help="security groups of the jobs and models")
    flag("--kms-key", metavar="KEY", help="key that encrypts outputs and volumes")
    flag(
        "--tag",
        type=_parse_pair,
        dest="aws_tags",
        metavar="KEY=VALUE",
        action="append",
        help="tag of all resources; can be repeated",
    )


def _make_adder(group: Any) -> Callable[..., None]:
    def flag(name: str, **members: Any) -> None:
        destination = PREFIX + name.removeprefix("--").replace("-", "_")
        group.add_argument(name, **{"dest": destination, "default": argparse.SUPPRESS, **members})

    return flag


def _parse_items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _parse_pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def on_aws(options: argparse.Namespace) -> bool:
    """Return whether a command uses AWS.

    Raises:
        UsageError: it does not, but flags for AWS are set.
    """
    if options.on == "aws":
        return True
    if names := [name.removeprefix(PREFIX) for name in vars(options) if name.startswith(PREFIX)]:
        flags = ", ".join("--tag" if name == "tags" else f"--{name.replace('_', '-')}" for name in names)
        raise UsageError(f"{flags} can be used only with --on aws")
    return False


def parse_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that flags set."""
    values = {name.removeprefix(PREFIX): value for name, value in vars(options).items() if name.startswith(PREFIX)}
    if "tags" in values:
        values["tags"] = dict(values["tags"])
    types = dict(_parse_instance_type(text) for text in values.pop("instance_type", []))
    if "" in types:
        values["instance_type"] = types.pop("")
    return {**values, "instance_types": types}


def _parse_instance_type(text: str) -> tuple[str, str]:
    """Return the step, empty for all steps, and the instance type."""
    step, _, instance_type = text.rpartition("=")
    return step, instance_type


def load_settings(options: argparse.Namespace) -> "Settings":
    """Return the settings of the file and the flags, with boto3's region. They are not yet checked."""
    from microjobs_orchestrator.aws import settings
    from microjobs_orchestrator.aws.backend import with_region

    return with_region(settings.override(settings.load(), parse_settings(options)))


def require_settings(options: argparse.Namespace, steps: Collection[str] | None) -> "Settings":
    """Return the settings for a command that sends requests to AWS.

    Args:
        steps: the steps of all workflows, for a command that creates jobs, which need a role and a bucket; None for
            other commands.

    Raises:
        UsageError: settings or credentials are missing or wrong. The message has all problems.
    """
    from microjobs_orchestrator.aws import settings
    from microjobs_orchestrator.aws.backend import credentials_problems

    loaded = load_settings(options)
    problems = settings.region_problems(loaded) if steps is None else settings.problems(loaded, steps)
    settings.raise_problems([*problems, *credentials_problems(loaded)])
    return loaded


def profile(options: argparse.Namespace) -> str:
    """Return the profile that flags or the file set, or an empty string."""
    from microjobs_orchestrator.aws import settings

    with suppress(UsageError):
        return getattr(options, "aws_profile", None) or getattr(options, "profile", None) or settings.load().profile
    return ""
