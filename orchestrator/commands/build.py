"""`microjobs build [JOB…]`."""

import argparse
from typing import TYPE_CHECKING

from microjobs_orchestrator.commands.completion import complete, images

if TYPE_CHECKING:
    from microjobs_orchestrator.commands import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("build", help="build the images of jobs, as `make build` does")
    complete(parser.add_argument("jobs", nargs="*", metavar="JOB", help="such as serve (default: all)"), images)
    parser.add_argument(
        "--variant", choices=("cpu", "cuda"), default="cpu", help="`cuda` for images that use GPUs (default: cpu)"
    )
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    from microjobs_orchestrator import images

    return 1 if images.build(options.jobs, options.variant) else 0
