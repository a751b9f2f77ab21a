"""`microjobs stop JOB`, `microjobs stop --run RUN`."""

import argparse

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.commands import backends, completion
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.runs.home_view import require_state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    target = parser.add_mutually_exclusive_group(required=True)
    job = target.add_argument("job", nargs="?", metavar="JOB", help="name of the job, as `microjobs ps` lists it")
    completion.set_completer(job, completion.list_job_and_endpoint_names)
    target.add_argument(
        "--run", metavar="RUN", help="stop the jobs and the endpoint of this run, such as housing-20261122-101500"
    )
    flags.add(parser)


def call(options: argparse.Namespace) -> int:
    return _stop_run(options) if options.run else _stop_resource(options)


def _stop_resource(options: argparse.Namespace) -> int:
    name = options.job
    kind, description = backends.open_view(options).find(name)
    if kind.has_client_data and not kind.can_be_stopped:
        raise UsageError(f"{kind.title} {name} cannot be stopped, and its deletion would delete its data: use the API")
    if kind.can_be_stopped and description[kind.status_member] not in kind.lifecycle.active_statuses:
        print(f"{kind.title} {name} is {description[kind.status_member]} already")
        return 0
    identifier = description[kind.arn_member] if kind.is_identified_by_arn else name
    with backends.open_backend(options) as backend:  # this may start a server, so the checks come first
        is_stopping = kind.stop_or_delete(backend.sagemaker, identifier)
        current = None if is_stopping else kind.describe(backend.sagemaker, identifier)
    if is_stopping:
        print(f"{kind.title} {name} is being {'stopped' if kind.can_be_stopped else 'deleted'}")
    else:  # the resource had already ended
        print(f"{kind.title} {name} is {current[kind.status_member] if current else 'deleted'} already")
    return 0


def _stop_run(options: argparse.Namespace) -> int:
    from microjobs_orchestrator.runs.stopping import stop_run  # this module imports boto3

    if not flags.uses_aws(options):
        require_state(Home.from_environment())  # the state is checked first, because open_backend may start a server
    with backends.open_backend(options) as backend:
        stopped = stop_run(backend, options.run, lambda line: print(line, flush=True))
    print(
        f"all jobs and endpoints of {options.run} are stopped or deleted"
        if stopped
        else f"no job or endpoint of {options.run} was running"
    )
    return 0
