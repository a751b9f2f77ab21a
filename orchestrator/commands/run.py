"""`microjobs run WORKFLOW`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.local.config import RUNTIMES

if TYPE_CHECKING:
    from microjobs_orchestrator.aws.settings import Settings
    from microjobs_orchestrator.commands import Subparsers

METAVARS = {"int": "N", "float": "X", "str": "TEXT"}
"""Placeholders in `--help` by type of option. Other types have their own name, such as FILE."""


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("run", help="run a workflow and write its report")
    names = workflows.names()
    choices = parser.add_subparsers(
        dest="workflow", metavar="|".join(names), required=True, parser_class=WorkflowParser
    )
    for name in names:
        workflow = choices.add_parser(name, workflow=name, help=workflows.summarize(name))
        if name in os.environ.get("COMP_LINE", "").split():  # argcomplete reads the flags before it parses
            workflow.add_flags()


class WorkflowParser(argparse.ArgumentParser):
    """Parses the flags of one workflow.

    The flags are added when they are needed, because importing a workflow takes as long as the rest of `microjobs ps`.
    """

    def __init__(self, *, workflow: str, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self._workflow: str | None = workflow

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.add_flags()
        return super().parse_known_args(args, namespace)

    def add_flags(self) -> None:
        """Import the workflow and add its flags, once."""
        if self._workflow is not None:
            _add_flags(self, workflows.load(self._workflow))
            self._workflow = None


def _add_flags(parser: argparse.ArgumentParser, workflow: Any) -> None:
    from microjobs.hyperparameters import describe

    if workflow.examples:
        parser.epilog = "\n  ".join(["examples:", *workflow.examples.splitlines()])
    for option in describe(workflow.options):
        _add_option(parser, option)
    _add_common_flags(parser)


def _add_option(parser: argparse.ArgumentParser, option: dict[str, Any]) -> None:
    """Add the flag of a workflow's option. Its value is parsed only if the flag is used: a resumed run keeps others."""
    flag = f"--{option['name'].replace('_', '-')}"
    default = option["default"]
    if option["type"] == "bool":
        text = f"{option['help']} (default: {'yes' if default else 'no'})"
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    parser.add_argument(
        flag,
        type=_make_parser_of_values(option),
        choices=option.get("choices"),
        metavar=None if "choices" in option else METAVARS.get(option["type"], option["type"].upper()),
        default=argparse.SUPPRESS,
        help=option["help"] + ("" if default == "" else f" (default: {default})"),
    )


def _make_parser_of_values(option: dict[str, Any]) -> Callable[[str], object]:
    from microjobs.hyperparameters import parse_value

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
    add("-v", "--verbose", action="store_true", help="show the jobs' logs")
    add("--keep", action="store_true", help="after Ctrl-C or a failure, do not stop jobs or delete endpoints")
    add(
        "--build",
        action="store_true",
        help="build the workflow's images first; if the engine cannot pull the base image, run processes",
    )
    add("--yes", action="store_true", help="on AWS, start without asking for consent to the cost")
    add("--dry-run", action="store_true", help="on AWS, only print the requests, one line of JSON each")
    flags.add(parser, requests=True)
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    from microjobs_orchestrator import dry_run
    from microjobs_orchestrator.launch import LaunchRequest, launch

    names = workflows.load(options.workflow).option_names
    request = LaunchRequest(
        options.workflow,
        {name: value for name, value in vars(options).items() if name in names},
        options.runtime,
        options.resume,
        options.verbose,
        aws=_settings(options) if flags.on_aws(options) else None,
        yes=options.yes,
        keep=options.keep,
        build=options.build,
    )
    if options.dry_run:
        dry_run.print_requests(request)
    else:
        launch(request)
    return 0


def _settings(options: argparse.Namespace) -> "Settings":
    """Return the settings for AWS. A dry run needs neither an account nor credentials."""
    from microjobs_orchestrator.aws import settings

    if not options.dry_run:
        return flags.require_settings(options, workflows.steps())
    filled, placeholders = settings.fill_placeholders(flags.load_settings(options))
    if placeholders:
        values = ", ".join(f"{name} {value}" for name, value in placeholders.items())
        print(f"# placeholders, because neither flags nor microjobs.toml set them: {values}", file=sys.stderr)
    settings.check(filled, workflows.steps())
    return filled
