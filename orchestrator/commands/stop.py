"""`microjobs stop JOB`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.commands import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("stop", help="stop a job, or delete an endpoint")
    parser.add_argument("job", metavar="JOB", help="its name, as `microjobs ps` shows it")
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    from orchestrator.local.home import Home
    from orchestrator.workflows.kinds import ENDPOINT, need
    from orchestrator.workflows.place import on_this_machine

    with on_this_machine(Home.from_environment()) as place:
        kind, description = need(place.sagemaker, options.job)
        if kind is not ENDPOINT and description[kind.status] not in kind.going:
            print(f"{kind.title} {options.job} is {description[kind.status]} already")
            return 0
        kind.stop(place.sagemaker, options.job)
    print(f"{kind.title} {options.job} is being {'deleted' if kind is ENDPOINT else 'stopped'}")
    return 0
