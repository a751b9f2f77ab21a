"""`microjobs logs JOB`."""

import argparse
import time
from typing import TYPE_CHECKING

from orchestrator.aws import flags

if TYPE_CHECKING:
    from orchestrator.commands import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("logs", help="print the log of a job or endpoint")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    parser.add_argument("job", metavar="JOB", help="its name, as `microjobs ps` shows it")
    flags.add(parser)
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    from orchestrator.workflows.kinds import ENDPOINT, need
    from orchestrator.workflows.logs import LogTail

    with flags.reached(options) as place:
        kind, _ = need(place.sagemaker, options.job)
        tail = LogTail.of(place.logs, kind, options.job)
        while True:
            description = kind.describe(place.sagemaker, options.job)
            going = description is not None and description[kind.status] in (*kind.going, ENDPOINT.good)
            follow = options.follow and going
            # After the look at the status, so that the last lines of a job that has ended are among them.
            for event in tail.read() if follow else tail.rest():
                print(f"{event.host}  {event.text}", flush=follow)
            if not follow:
                return 0
            time.sleep(place.poll)
