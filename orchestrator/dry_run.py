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
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.launch import LaunchRequest
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.runs.backend import RequestContext
from microjobs_orchestrator.runs.pipelines import RUN_PARAMETER, Pipeline, make_create_request, make_pipeline_context
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext


def print_requests(request: LaunchRequest) -> None:
    """Print one line of JSON per request on stdout, and its command on stderr."""
    if request.aws is None:
        raise UsageError(
            "--dry-run prints requests to AWS: add --on aws (without --dry-run, a run on this machine costs nothing)"
        )
    workflow = workflows.load(request.workflow)
    options = workflow.options_class(**request.options)
    workflow.check_options(options)
    comments = Console(stderr=True, highlight=False, soft_wrap=True)
    context = RunContext(load_request_context(request.aws, options.jobs), f"{request.workflow}-dry-run")
    for path, uri in workflow.plan_uploads(context, options).items():
        comments.print(f"# aws s3 cp {shlex.quote(path)} {uri}")
    if request.as_pipeline:
        pipeline = workflow.make_pipeline(request.workflow, make_pipeline_context(context), options)
        lines = format_pipeline_requests(context, pipeline)
    else:
        lines = format_requests(context, workflow.plan_requests(context, options))
    for command, line in lines:
        comments.print(f"# {command}")
        print(line, flush=True)


def load_request_context(settings: Settings, jobs: Iterable[str]) -> RequestContext:
    """Return the values of the AWS account that are part of requests, such as the bucket and the role.

    If images of ready-made jobs were not pushed, print a note on stderr.
    """
    destination = settings.destination
    pushed = images.load_pushed_images(Home.from_environment(), destination)
    if missing := [job for job in jobs if job not in pushed]:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"# images of {', '.join(missing)} were not pushed: run `microjobs push` before you send these requests"
        )
    return make_request_context(settings, images.make_image_finder_with_placeholders(pushed, destination))


def format_pipeline_requests(context: RunContext, pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    """Yield the command and the JSON of the requests that create and start a pipeline."""
    start_request = {
        "PipelineName": pipeline.name,
        "PipelineParameters": [{"Name": RUN_PARAMETER, "Value": context.id}],
    }
    yield "aws sagemaker create-pipeline --cli-input-json", json.dumps(make_create_request(context, pipeline))
    yield "aws sagemaker start-pipeline-execution --cli-input-json", json.dumps(start_request)


def format_requests(context: RunContext, requests: Iterable[PlannedRequest]) -> Iterator[tuple[str, str]]:
    """Yield each request's command and its JSON."""
    for planned in requests:
        command = f"aws sagemaker {xform_name(planned.operation, '-')} --cli-input-json"
        yield command, json.dumps(context.backend.complete_request(context.id, planned.kind, planned.members))
