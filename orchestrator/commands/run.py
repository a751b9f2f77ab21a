"""`microjobs run WORKFLOW`."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from microjobs.hyperparameters import describe, parse_value
from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws import flags, settings
from microjobs_orchestrator.commands import LazyParser
from microjobs_orchestrator.local.config import RUNTIMES

METAVARS = {"int": "N", "float": "X", "str": "TEXT"}
"""Placeholders in `--help` by the type of an option. The placeholder of any other type is the name of the type, such as
FILE."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_workflows(parser, _add_workflow_arguments)


def add_workflows(parser: argparse.ArgumentParser, add_flags: Callable[[str, argparse.ArgumentParser], None]) -> None:
    """Add one subcommand per workflow. `add_flags` takes the workflow's name and the subcommand's parser."""
    names = workflows.list_names()
    choices = parser.add_subparsers(dest="workflow", metavar="|".join(names), required=True, parser_class=LazyParser)
    for name in names:
        choices.add_parser(name, help=workflows.summarize(name), add_arguments=partial(add_flags, name))


def _add_workflow_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    workflow = workflows.load(name)
    if workflow.examples:
        parser.epilog = "\n  ".join(["examples:", *workflow.examples.splitlines()])
    add_options(name, parser)
    _add_common_flags(parser)


def add_options(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the flags of a workflow's options."""
    for option in describe(workflows.load(name).options_class):
        _add_option(parser, option)


def _add_option(parser: argparse.ArgumentParser, option: dict[str, Any]) -> None:
    """Add the flag of a workflow's option. An unused flag sets no value, so that a resumed run keeps the old value."""
    flag = f"--{option['name'].replace('_', '-')}"
    default = option["default"]
    if option["type"] == "bool":
        text = f"{option['help']} (default: {'yes' if default else 'no'})"
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    parser.add_argument(
        flag,
        type=_make_value_parser(option),
        choices=option.get("choices"),
        metavar=None if "choices" in option else METAVARS.get(option["type"], option["type"].upper()),
        default=argparse.SUPPRESS,
        help=option["help"] + ("" if default == "" else f" (default: {default})"),
    )


def _make_value_parser(option: dict[str, Any]) -> Callable[[str], object]:
    def parse(text: str) -> object:
        if option["type"] == "file":
            return str(Path(text).absolute())
        try:
            return parse_value({name: value for name, value in option.items() if name != "choices"}, text)
        except (ValueError, OverflowError) as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from error

    return parse


def _add_common_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--runtime", choices=RUNTIMES, default="auto", help="where jobs run on this machine (default: %(default)s)")
    add(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="resume a run after its last finished step (default: the last unfinished run)",
    )
    add("--as-pipeline", action="store_true", help="run the steps as a SageMaker Pipeline, and register the model")
    add("-v", "--verbose", action="store_true", help="show the jobs' logs")
    add("--keep", action="store_true", help="after Ctrl-C or a failure, do not stop jobs or delete endpoints")
    add(
        "--build",
        action="store_true",
        help="build the workflow's images first; if the base image cannot be pulled, use images that were built "
        "before, or run the jobs as processes",
    )
    add("--yes", action="store_true", help="on AWS, start without asking for consent to the cost")
    add("--dry-run", action="store_true", help="on AWS, only print the requests, one line of JSON each")
    flags.add(parser, all_settings=True)


def call(options: argparse.Namespace) -> int:
    from microjobs_orchestrator import dry_run
    from microjobs_orchestrator.launch import LaunchRequest, launch

    names = workflows.load(options.workflow).option_names
    request = LaunchRequest(
        options.workflow,
        flags={name: value for name, value in vars(options).items() if name in names},
        runtime=options.runtime,
        resume=options.resume,
        verbose=options.verbose,
        aws=load_aws_settings(options, dry_run=options.dry_run) if flags.uses_aws(options) else None,
        yes=options.yes,
        keep=options.keep,
        build=options.build,
        as_pipeline=options.as_pipeline,
    )
    if options.dry_run:
        dry_run.print_requests(request)
    else:
        launch(request)
    return 0


def load_aws_settings(options: argparse.Namespace, *, dry_run: bool) -> settings.Settings:
    """Return the settings for AWS. A dry run needs neither an account nor credentials."""
    if not dry_run:
        return flags.require_settings(options, workflows.list_steps())
    filled_settings, placeholders = settings.fill_placeholders(flags.load_settings(options))
    if placeholders:
        values = ", ".join(f"{name} {value}" for name, value in placeholders.items())
        print(f"# placeholders, because neither flags nor microjobs.toml set them: {values}", file=sys.stderr)
    settings.raise_problems(settings.find_problems(filled_settings, workflows.list_steps()))
    return filled_settings
