"""`microjobs stop JOB`, `microjobs stop --run RUN`."""

import argparse
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.commands import backends
from microjobs_orchestrator.commands.completion import complete, jobs

if TYPE_CHECKING:
    from microjobs_orchestrator.commands import Subparsers
    from microjobs_orchestrator.runs.backend import Backend


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("stop", help="stop a job, delete an endpoint, or stop everything of a run")
    target = parser.add_mutually_exclusive_group(required=True)
    job = target.add_argument("job", nargs="?", metavar="JOB", help="name of the job, as `microjobs ps` lists it")
    complete(job, jobs)
    target.add_argument(
        "--run", metavar="RUN", help="name of a run, whose jobs and endpoint are stopped: housing-20261122-101500"
    )
    flags.add(parser)
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    if options.run:
        backends.require_jobs(options)
        with backends.open_backend(options) as backend:
            return stop_run(backend, options.run)
    return stop_one(options, options.job)


def stop_one(options: argparse.Namespace, name: str) -> int:

    kind, description = backends.open_view(options).find(name)
    if not kind.life.is_lasting and description[kind.status_member] not in kind.life.transitional:
        print(f"{kind.title} {name} is {description[kind.status_member]} already")
        return 0
    with backends.open_backend(options) as backend:  # it may start a server
        is_stopping = kind.stop(backend.sagemaker, name)
        current = None if is_stopping else kind.describe(backend.sagemaker, name)
    if is_stopping:
        print(f"{kind.title} {name} is being {'deleted' if kind.life.is_lasting else 'stopped'}")
    else:  # it ended before the request
        print(f"{kind.title} {name} is {current[kind.status_member] if current else 'deleted'} already")
    return 0


def stop_run(backend: "Backend", run: str) -> int:
    from microjobs_orchestrator.runs import stopping

    stopped = stopping.stop_run(backend, run, lambda line: print(line, flush=True))
    print(f"{run}: nothing runs" if stopped else f"nothing of {run} was running")
    return 0
