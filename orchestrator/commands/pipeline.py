"""`microjobs pipeline`: workflows as SageMaker Pipelines, and the states of pipelines."""

import argparse
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator import workflows
from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.commands import LazyParser, backends, run
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.home import Home

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

    from microjobs_orchestrator.runs.planned import RunContext

ARN_PREFIX = "arn:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=LazyParser)
    show_help = "show the steps of a pipeline, with the states and times of its newest execution"
    actions.add_parser("show", help=show_help, add_arguments=_add_show_arguments)
    export_help = "print a workflow as the definition of a pipeline"
    actions.add_parser("export", help=export_help, add_arguments=_add_export_arguments)


def call(options: argparse.Namespace) -> int:
    return int(options.call_action(options))


# --- show ---


def _add_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call_action=show)
    parser.add_argument("pipeline", metavar="PIPELINE", help="name of a pipeline, or ARN of an execution")
    flags.add(parser)


def show(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.text import Text

    from microjobs_orchestrator.runs.execution import Execution
    from microjobs_orchestrator.runs.pipeline_graph import list_failures, list_nodes, make_table

    console = Console(highlight=False, soft_wrap=True)
    with _open_client(options) as client:
        arn = (
            options.pipeline
            if options.pipeline.startswith(ARN_PREFIX)
            else _find_newest_execution(client, options.pipeline)
        )
        if not arn:
            definition = client.describe_pipeline(PipelineName=options.pipeline)["PipelineDefinition"]
            console.print(f"{options.pipeline}  has not been started")
            console.print(make_table(list_nodes(definition), {}))
            return 0
        execution = Execution(client, arn)
        description = execution.describe()
        response = client.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)
        console.print(f"{description['PipelineArn'].rpartition('/')[2]}  {execution.id}", end="  ")
        console.print(description["PipelineExecutionStatus"])
        states = {step["StepName"]: step for step in reversed(list(execution.list_steps()))}
        console.print(make_table(list_nodes(response["PipelineDefinition"]), states))
        for line in list_failures(states, description.get("FailureReason", "")):
            console.print(Text(line, style="red"))
    return 0


def _find_newest_execution(client: "SageMakerClient", pipeline: str) -> str:
    """Return the ARN of a pipeline's newest execution; the empty string if it has none."""
    summaries = client.list_pipeline_executions(PipelineName=pipeline, MaxResults=1)["PipelineExecutionSummaries"]
    return summaries[0]["PipelineExecutionArn"] if summaries else ""


def _open_client(options: argparse.Namespace) -> "AbstractContextManager[SageMakerClient]":
    """Return a client of AWS or of the running local server. Raise UsageError if no server runs."""
    from microjobs_orchestrator.local import control

    if flags.uses_aws(options):
        return nullcontext(backends.connect_aws(options).sagemaker)
    from microjobs_orchestrator.runs.backend import connect_local

    home = Home.from_environment()
    if (address := control.find_server(home)) is None:
        raise UsageError(control.explain_missing_server(home))
    return nullcontext(connect_local(address, home.buckets).sagemaker)


# --- export ---


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call_action=export)
    run.add_workflows(parser, _add_workflow_arguments)


def _add_workflow_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    run.add_options(name, parser)
    flags.add(parser, all_settings=True)


def export(options: argparse.Namespace) -> int:
    from microjobs_orchestrator.runs.pipelines import make_pipeline_context

    workflow = workflows.load(options.workflow)
    flag_values: dict[str, Any] = {
        name: value for name, value in vars(options).items() if name in workflow.option_names
    }
    workflow_options = workflow.options_class(**flag_values)
    workflow.check_options(workflow_options)
    context = make_pipeline_context(_make_context(options, workflow_options.jobs))
    print(workflow.make_pipeline(options.workflow, context, workflow_options).format_definition(context))
    return 0


def _make_context(options: argparse.Namespace, jobs: Iterable[str]) -> "RunContext":
    """Return the bucket, role and images for requests to AWS or to the local server. No server needs to run."""
    from microjobs_orchestrator import dry_run
    from microjobs_orchestrator.images import get_local_image_name
    from microjobs_orchestrator.local.identity import get_default_bucket, get_role_arn
    from microjobs_orchestrator.runs.backend import RequestContext
    from microjobs_orchestrator.runs.planned import RunContext

    if flags.uses_aws(options):
        return RunContext(dry_run.load_request_context(run.load_aws_settings(options, dry_run=True), jobs), "")
    local_context = RequestContext(
        bucket=get_default_bucket(), role=get_role_arn(), find_image_uri=get_local_image_name
    )
    return RunContext(local_context, "")
