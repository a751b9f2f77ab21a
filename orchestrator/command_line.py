"""Runs a command line: prepares the standard streams, prints messages of expected errors, and returns an exit code.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted by Ctrl-C.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.terminal import strip_controls

EXIT_INTERRUPTED = 130

DescribeError = Callable[[Exception, argparse.Namespace], str | None]
"""A function that returns the message for an expected error, or None for a bug, which keeps its traceback."""


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, describe: DescribeError) -> int:
    """Parse the arguments, by default those of this process, and call the command that they name."""
    prepare_streams()
    options = argparse.Namespace()
    try:
        return _call(parser, arguments, options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has closed its end
        flush_or_discard()
        return 1
    except Exception as error:
        if (message := describe(error, options)) is None:
            raise
        print(f"microjobs: {strip_controls(message)}", file=sys.stderr)
        flush_or_discard()
        return error.exit_code if isinstance(error, CommandError) else 1


def _call(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, options: argparse.Namespace) -> int:
    try:
        parser.parse_args(arguments, options)
    finally:  # flags such as --help print and then raise SystemExit, so their output must be written now
        sys.stdout.flush()
    code: int = options.call(options)
    sys.stdout.flush()
    return code


def prepare_streams() -> None:
    """Make sure that printing cannot fail because a stream is closed or its encoding lacks a character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def flush_or_discard() -> None:
    """Write the buffered output. If it cannot be written, discard it: Python would raise at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe_error(error: Exception, _options: argparse.Namespace) -> str | None:
    """Return the message for an error of a command, the server, a job, the operating system or the engine; None for a
    bug."""
    if isinstance(error, (CommandError, OSError)):
        return "\n".join([str(error), *(f"  | {line}" for line in getattr(error, "last_log_lines", ()))])
    # These modules are imported late, so that `microjobs --help` does not wait for them.
    from docker.errors import DockerException

    from microjobs.errors import JobError

    if isinstance(error, DockerException) and "Error while fetching server API version" in str(error):
        return f"no Docker engine answers ({error}): start it; `microjobs doctor` reports what is wrong"
    return str(error) if isinstance(error, (JobError, DockerException)) else None


def ask_for_consent(question: str, *, yes: bool, refusal: str) -> None:
    """Ask the user a question, unless `yes` is set.

    Raises:
        UsageError: standard input is not a terminal.
        CommandError: the answer is not yes. The message is `refusal`.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"standard input is not a terminal, and the command asks {question!r}: add --yes to consent")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise CommandError(refusal)
