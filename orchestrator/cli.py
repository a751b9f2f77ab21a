"""The command line, `microjobs`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from microjobs_orchestrator import command_line, sources
from microjobs_orchestrator.commands import LazyParser, completion
from microjobs_orchestrator.local import commands as local

COMMANDS = {
    "run": "run a workflow and write its report",
    "pipeline": "show a pipeline's steps and states, or print a workflow as a pipeline",
    "build": "build the images of jobs, as `make build` does",
    "push": "push the images of jobs to ECR or another registry, and print their digests",
    "ps": "list jobs and endpoints",
    "logs": "print the log of a job or endpoint",
    "stop": "stop a job, delete an endpoint, or stop everything of a run",
    "interrupt": "interrupt a spot training job, which restarts on new hosts",
    "init": "write a CloudFormation template for an AWS account, with a role, a bucket and repositories",
    "doctor": "check this machine, or an AWS account, and show how to fix problems",
    "clean": "remove old runs, images, environments, or the whole home; asks first",
    "completion": "print the code that enables completion in bash, zsh or fish",
}
"""Help texts of the modules in `commands`, by command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = make_parser()
    if completion.is_requested():
        completion.print_completions(parser)
    return command_line.run(parser, arguments, describe_error)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="microjobs",
        description="Machine learning jobs in containers, on a SageMaker-compatible server on this machine or on AWS.",
        epilog="microjobs COMMAND --help lists the options of a command.",
    )
    parser.add_argument("--version", action=VersionAction, help="show the version and the revision")
    subparsers: Any = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=LazyParser)
    for name, text in COMMANDS.items():
        subparsers.add_parser(name, help=text, add_arguments=partial(_add_arguments, name))
    local.add_parser(subparsers)
    return parser


def _add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    command = import_module(f"{__package__}.commands.{name}")
    parser.set_defaults(call=command.call)
    command.add_arguments(parser)


class VersionAction(argparse.Action):
    """Prints the version, and the revision in a clone of the repository."""

    def __init__(self, option_strings: list[str], **arguments: Any) -> None:
        super().__init__(option_strings, **{**arguments, "dest": argparse.SUPPRESS, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        revision = sources.describe_head(Path(__file__).resolve().parent.parent)
        print(f"microjobs {version('microjobs')}{f' (revision {revision})' if revision else ''}")
        parser.exit()


def describe_error(error: Exception, options: argparse.Namespace) -> str | None:
    """Return the message for an expected error, or None for a bug."""
    message = command_line.describe_error(error, options)
    return _describe_aws_error(error, options) if message is None else message


def _describe_aws_error(error: Exception, options: argparse.Namespace) -> str | None:
    """Return the message for an error of boto3, with its remedy."""
    from botocore.exceptions import BotoCoreError, ClientError

    from microjobs_orchestrator.aws import flags
    from microjobs_orchestrator.aws.remedies import find_remedy

    if not isinstance(error, (BotoCoreError, ClientError)):
        return None
    message = str(error)
    if isinstance(error, ClientError):
        message = f"{error.operation_name}: {error.response['Error'].get('Message') or error}"
    remedy = find_remedy(error, flags.find_profile(options))
    return f"{message}: {remedy}" if remedy else message


if __name__ == "__main__":
    sys.exit(main())
