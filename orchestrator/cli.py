"""The command line, `microjobs`."""

import argparse
import sys
from collections.abc import Sequence

from microjobs_orchestrator import program
from microjobs_orchestrator.commands import build, clean, completion, doctor, init, interrupt, logs, ps, push, run, stop
from microjobs_orchestrator.local import commands as local
from microjobs_orchestrator.version import Version


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = make_parser()
    if completion.is_requested():
        completion.print_completions(parser)
    return program.run(parser, arguments, describe_error)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="microjobs",
        description="Machine learning jobs in containers, on a SageMaker-compatible server on this machine or on AWS.",
        epilog="microjobs COMMAND --help lists the options of a command.",
    )
    parser.add_argument("--version", action=Version, help="show the version and the revision")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (run, build, push, local, ps, logs, stop, interrupt, init, doctor, clean, completion):
        command.add_parser(subparsers)
    return parser


def describe_error(error: Exception, options: argparse.Namespace) -> str | None:
    """Return the message for an expected error, or None for a bug."""
    message = program.describe_error(error, options)
    return _describe_aws_error(error, options) if message is None else message


def _describe_aws_error(error: Exception, options: argparse.Namespace) -> str | None:
    """Return the message for an error of boto3, with its remedy."""
    from botocore.exceptions import BotoCoreError, ClientError

    from microjobs_orchestrator.aws import flags
    from microjobs_orchestrator.aws.remedies import remedy

    if not isinstance(error, (BotoCoreError, ClientError)):
        return None
    message = str(error)
    if isinstance(error, ClientError):
        message = f"{error.operation_name}: {error.response['Error'].get('Message') or error}"
    advice = remedy(error, flags.profile(options))
    return f"{message}: {advice}" if advice else message


if __name__ == "__main__":
    sys.exit(main())
