"""Requests as the AWS CLI takes them: `aws sagemaker create-… --cli-input-json`. Nothing is asked of AWS."""

import json
import shlex
from collections.abc import Iterable, Iterator

from botocore import xform_name
from rich.console import Console

from microjobs_orchestrator.aws import images
from microjobs_orchestrator.aws.backend import request_context
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.launch import WORKFLOWS, Request
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.runs.backend import RequestContext
from microjobs_orchestrator.runs.plan import PlanNames, PlannedRequest
from microjobs_orchestrator.workflows import housing


def print_requests(request: Request) -> None:
    """Print what a run would ask AWS for, a line of JSON a request; on stderr what takes each. Asks nobody anything.

    Raises:
        UsageError: the options cannot be, or it is not for AWS.
    """
    if request.aws is None:
        raise UsageError("--dry-run goes with --on aws: jobs on this machine cost nothing")
    workflow = WORKFLOWS[request.workflow]
    destination = request.aws.destination
    known = images.pushed(Home.from_environment(), destination)
    there = request_context(request.aws, images.planned(known, destination))
    options = workflow.options(**request.chosen)
    told = Console(stderr=True, highlight=False, soft_wrap=True)
    if missing := [job for job in options.jobs if job not in known]:
        told.print(f"# no digest is known of {', '.join(missing)}: `microjobs push` before these requests are sent")
    run = f"{request.workflow}-dry-run"
    if data := request.given.get("data"):
        told.print(f"# aws s3 cp {shlex.quote(data)} {housing.source_uri(there, PlanNames(run))}")
    for command, line in lines(there, run, workflow.requests(there, PlanNames(run), options)):
        told.print(f"# {command}")
        print(line, flush=True)


def lines(context: RequestContext, run: str, plan: Iterable[PlannedRequest]) -> Iterator[tuple[str, str]]:
    """For each request the command that takes it, and its JSON."""
    for planned in plan:
        command = f"aws sagemaker {xform_name(planned.operation, '-')} --cli-input-json"
        yield command, json.dumps(context.complete(run, planned.operation, planned.request))
