"""The command line, `microjobs`. Exit codes: 0 well, 1 a failure, 2 wrong usage, 130 stopped by Ctrl-C."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from microjobs_orchestrator.commands import build, clean, completion, doctor, init, interrupt, logs, ps, push, run, stop
from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.local import commands as local
from microjobs_orchestrator.terminal import safe
from microjobs_orchestrator.version import Version

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; failures that are to be expected are a sentence on stderr."""
    prepare_streams()
    parser = make_parser()
    if completion.wanted():
        completion.answer(parser)
    options = argparse.Namespace()
    try:
        _parse(parser, arguments, options)
        code: int = options.call(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        flush_or_discard()
        return 1
    except Exception as error:
        told = tell(error, options)
        if told is None:
            raise
        print(f"microjobs: {safe(told)}", file=sys.stderr)
        flush_or_discard()
        return error.exit_code if isinstance(error, LauncherError) else 1
    return code


def prepare_streams() -> None:
    """Make sure that printing cannot fail: a stream may be closed, or its encoding may lack a character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def flush_or_discard() -> None:
    """Write what waits in stdout. If it cannot be written, discard it: Python would fail on it at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, options: argparse.Namespace) -> None:
    """Parse into `options`. Flags such as --help print and exit here."""
    try:
        parser.parse_args(arguments, options)
    finally:
        sys.stdout.flush()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="microjobs",
        description="Machine learning jobs in containers, on a SageMaker that runs on this machine.",
        epilog="microjobs VERB --help tells what a verb takes.",
    )
    parser.add_argument("--version", action=Version, help="show the version and the revision")
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    for verb in (run, build, push, local, ps, logs, stop, interrupt, init, doctor, clean, completion):
        verb.add_parser(subparsers)
    return parser


def tell(error: Exception, options: argparse.Namespace | None = None) -> str | None:
    """What to say of an error that may well happen; None for one that is a mistake of ours."""
    if isinstance(error, (LauncherError, OSError)):
        return "\n".join([str(error), *(f"  | {line}" for line in getattr(error, "tail", ()))])
    # Imported here only: `microjobs --help` shall not wait for them.
    from botocore.exceptions import BotoCoreError, ClientError
    from docker.errors import DockerException

    from microjobs.errors import JobError

    if isinstance(error, (BotoCoreError, ClientError)):
        return _tell_aws(error, options)
    if isinstance(error, DockerException) and "Error while fetching server API version" in str(error):
        return f"no Docker engine answers ({error}): start it; `microjobs doctor` says what is wrong"
    return str(error) if isinstance(error, (JobError, DockerException)) else None


def _tell_aws(error: Exception, options: argparse.Namespace | None) -> str:
    """An error of boto3 and its remedy."""
    from botocore.exceptions import ClientError

    from microjobs_orchestrator.aws import flags
    from microjobs_orchestrator.aws.remedies import remedy

    said = str(error)
    if isinstance(error, ClientError):
        said = f"{error.operation_name}: {error.response['Error'].get('Message') or error}"
    todo = remedy(error, flags.profile(options or argparse.Namespace()))
    return f"{said}: {todo}" if todo else said


if __name__ == "__main__":
    sys.exit(main())
