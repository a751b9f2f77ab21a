"""Flags of the commands that use AWS. A flag overrides its setting in `microjobs.toml`."""

import argparse
from collections.abc import Collection
from contextlib import suppress
from dataclasses import fields
from typing import Any

from microjobs_orchestrator.aws import settings
from microjobs_orchestrator.failures import UsageError

PREFIX = "aws_"
"""The prefix of these flags' names among the parsed options of a command."""

CONNECTION_SETTINGS = ("profile", "region")
"""Settings that all commands with `--on` need, even those that create no jobs."""


def add(parser: argparse.ArgumentParser, *, all_settings: bool = False) -> None:
    """Add `--on` and the flags for AWS to a command.

    Args:
        all_settings: add a flag for each setting, such as `--role`, not only for CONNECTION_SETTINGS.
    """
    parser.add_argument(
        "--on", choices=("here", "aws"), default="here", help="use this machine or AWS (default: %(default)s)"
    )
    group = parser.add_argument_group(
        "on AWS", "Each of these flags is also a setting in [aws] of microjobs.toml: docs/using/aws.md"
    )
    for item in fields(settings.Settings):
        if item.metadata and (all_settings or item.name in CONNECTION_SETTINGS):
            destination = f"{PREFIX}{item.name}"
            group.add_argument(_format_flag(item.name), dest=destination, default=argparse.SUPPRESS, **item.metadata)


def _format_flag(setting: str) -> str:
    return "--tag" if setting == "tags" else f"--{setting.replace('_', '-')}"


def _read_flag_values(options: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the flags for AWS, by setting."""
    return {name.removeprefix(PREFIX): value for name, value in vars(options).items() if name.startswith(PREFIX)}


def uses_aws(options: argparse.Namespace) -> bool:
    """Return whether a command uses AWS. Raise UsageError if flags for AWS are set without `--on aws`."""
    if options.on == "aws":
        return True
    if names := ", ".join(map(_format_flag, _read_flag_values(options))):
        raise UsageError(f"{names} can be used only with --on aws")
    return False


def parse_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that flags set."""
    values = _read_flag_values(options)
    if "tags" in values:
        values["tags"] = dict(values["tags"])
    types: dict[str, str] = {}
    for text in values.pop("instance_type", []):
        step, _, types[step] = text.rpartition("=")
    if "" in types:
        values["instance_type"] = types.pop("")
    return {**values, "instance_types": types}


def load_settings(options: argparse.Namespace) -> settings.Settings:
    """Return the settings of the file and the flags, not yet checked. If no region is set, add boto3's region."""
    from microjobs_orchestrator.aws.backend import add_region

    return add_region(settings.override(settings.load(), parse_settings(options)))


def require_settings(options: argparse.Namespace, steps: Collection[str] | None) -> settings.Settings:
    """Return the settings for a command that sends requests to AWS.

    Args:
        steps: the steps of all workflows, if the command creates jobs; otherwise None. Jobs need a role and a bucket.

    Raises:
        UsageError: settings or credentials are missing or wrong. The message has all problems.
    """
    from microjobs_orchestrator.aws.backend import find_credentials_problems

    loaded = load_settings(options)
    problems = settings.find_region_problems(loaded) if steps is None else settings.find_problems(loaded, steps)
    settings.raise_problems([*problems, *find_credentials_problems(loaded)])
    return loaded


def find_profile(options: argparse.Namespace) -> str:
    """Return the profile that flags or the file set, or an empty string. The flag of `push` has no `PREFIX`."""
    with suppress(UsageError):
        return getattr(options, "aws_profile", None) or getattr(options, "profile", None) or settings.load().profile
    return ""
