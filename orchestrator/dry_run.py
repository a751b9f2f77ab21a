"""Prints the requests of a run on AWS in the AWS CLI's format: `aws sagemaker create-… --cli-input-json`.

A dry run sends no request and needs no account.
"""

import json
import shlex
from collections.abc import Iterable, Iterator

from botocore import xform_name
from rich.console import Console

from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws import images
from microjobs_orchestrator.aws.backend import make_request_context
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.launch import LaunchRequest
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext


def print_requests(request: LaunchRequest) -> None:
    """Print one line of JSON per request on stdout, and its command on stderr."""
    if request.aws is None:
        raise UsageError("--dry-run needs --on aws: jobs on this machine cost nothing")
    workflow = workflows.load(request.workflow)
    options = workflow.options(**request.options)
    workflow.check_options(options)
    destination = request.aws.destination
    pushed = images.load_pushed_images(Home.from_environment(), destination)
    backend = make_request_context(request.aws, images.allow_missing_images(pushed, destination))
    comments = Console(stderr=True, highlight=False, soft_wrap=True)
    if missing := [job for job in options.jobs if job not in pushed]:
        comments.print(
            f"# images of {', '.join(missing)} were not pushed: run `microjobs push` before you send these requests"
        )
    context = RunContext(backend, f"{request.workflow}-dry-run")
    for path, uri in workflow.plan_uploads(context, options).items():
        comments.print(f"# aws s3 cp {shlex.quote(path)} {uri}")
    for command, line in format_requests(context, workflow.plan_requests(context, options)):
        comments.print(f"# {command}")
        print(line, flush=True)


def format_requests(context: RunContext, requests: Iterable[PlannedRequest]) -> Iterator[tuple[str, str]]:
    """Yield each request's command and its JSON."""
    for planned in requests:
        command = f"aws sagemaker {xform_name(planned.operation, '-')} --cli-input-json"
        yield command, json.dumps(context.backend.complete(context.id, planned.kind, planned.members))
