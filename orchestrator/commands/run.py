"""`microjobs run WORKFLOW`."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.commands import parse_count

if TYPE_CHECKING:
    from microjobs_orchestrator.aws.settings import Settings
    from microjobs_orchestrator.commands import Subparsers

EXAMPLES = """examples:
  microjobs run housing
  microjobs run housing --data boston_housing.npz --framework pytorch
  microjobs run housing --no-tuning --instance-count 1
  microjobs run housing --resume
  microjobs run housing --on aws --dry-run
  microjobs run housing --on aws --instance-type train=ml.c5.xlarge --spot
"""


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("run", help="run a workflow to its report")
    workflows = parser.add_subparsers(dest="workflow", metavar="housing|straight-line", required=True)
    _add_housing(workflows)
    _add_straight_line(workflows)


def _add_housing(workflows: "Subparsers") -> None:
    parser = workflows.add_parser(
        "housing",
        help="scale on four hosts, train, tune, serve, predict, score",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = _adder(parser)
    add("--framework", choices=("tensorflow", "pytorch"), help="who trains (default: tensorflow)")
    add(
        "--data", metavar="FILE.npz", help="arrays x and y, such as Keras's boston_housing.npz (default: diabetes data)"
    )
    add("--instance-count", type=parse_count, metavar="N", help="hosts that scale (default: 4)")
    add("--no-tuning", dest="tuning", action="store_false", help="serve and score the first model")
    add("--epochs", type=parse_count, metavar="N", help="of the first training (default: 70)")
    add("--batch-size", type=int, metavar="N", help="of the first training (default: 128)")
    add("--learning-rate", type=float, metavar="X", help="of the first training (default: 0.01)")
    _add_common(parser)


def _add_straight_line(workflows: "Subparsers") -> None:
    parser = workflows.add_parser("straight-line", help="y = 0.3 x + 0.9 with one weight and one bias, in PyTorch")
    add = _adder(parser)
    add("--epochs", type=parse_count, metavar="N", help="(default: 300)")
    add("--learning-rate", type=float, metavar="X", help="(default: 0.01)")
    _add_common(parser)


def _adder(parser: argparse.ArgumentParser) -> Any:
    """Adds options that are in the result only if they were given: a resumed run keeps what it was not asked for."""

    def add(*names: str, **settings: Any) -> None:
        parser.add_argument(*names, default=argparse.SUPPRESS, **settings)

    return add


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime", choices=("auto", "docker", "process"), default="auto", help="where jobs run (default: %(default)s)"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on after the last finished step of a run, or of the last",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show the jobs' logs")
    parser.add_argument(
        "--keep", action="store_true", help="after Ctrl-C or a failure, leave what runs: a job, an endpoint"
    )
    parser.add_argument(
        "--build",
        action="store_true",
        help="build the workflow's images first; if the engine cannot get the base image, run processes",
    )
    parser.add_argument("--yes", action="store_true", help="start without asking whether it may cost that much")
    parser.add_argument("--dry-run", action="store_true", help="print the requests, a line of JSON each, and end")
    flags.add(parser, requests=True)
    parser.set_defaults(call=call)


COMMON = ("workflow", "runtime", "resume", "verbose", "keep", "build", "yes", "dry_run", "on", "call")


def call(options: argparse.Namespace) -> int:
    from microjobs_orchestrator import dry_run
    from microjobs_orchestrator.launch import Request, launch

    chosen = {
        name: value for name, value in vars(options).items() if name not in COMMON and not name.startswith(flags.PREFIX)
    }
    request = Request(
        options.workflow,
        chosen,
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
    """Settings for AWS; a dry run needs neither an account nor credentials."""
    from microjobs_orchestrator.aws import settings

    if not options.dry_run:
        return flags.account(options, requests=True)
    filled, placeholders = settings.with_placeholders(flags.chosen(options))
    if placeholders:
        shown = ", ".join(f"{name} {value}" for name, value in placeholders.items())
        print(f"# placeholders, as neither flags nor microjobs.toml set them: {shown}", file=sys.stderr)
    return settings.checked(filled)
