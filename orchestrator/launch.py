"""Launches a workflow: prepares the backend, asks for consent, runs the steps, and writes the report."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from microjobs.files import write_text
from microjobs_orchestrator import command_line, images, workflows
from microjobs_orchestrator.aws import backend as aws_backend
from microjobs_orchestrator.aws import costs
from microjobs_orchestrator.aws import images as aws_images
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.build_first import build_and_choose_runtime
from microjobs_orchestrator.durations import format_duration
from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.report.page import make_page
from microjobs_orchestrator.runs.backend import Backend, open_local_backend
from microjobs_orchestrator.runs.costs import CostMeter
from microjobs_orchestrator.runs.interrupt_handler import InterruptHandler
from microjobs_orchestrator.runs.journal import Journal, find_last_unfinished
from microjobs_orchestrator.runs.pipeline_run import PipelineRun
from microjobs_orchestrator.runs.pipelines import make_pipeline_context
from microjobs_orchestrator.runs.planned import RunContext, select_remaining
from microjobs_orchestrator.runs.progress import Progress
from microjobs_orchestrator.runs.run import Run
from microjobs_orchestrator.runs.workflow import RunResults, Workflow


@dataclass(frozen=True)
class LaunchRequest:
    """The arguments of `microjobs run`."""

    workflow: str
    flags: Mapping[str, Any]
    """The workflow's options that flags set. The other options come from the settings, or have their defaults."""
    runtime: str = "auto"
    resume: str | None = None
    """The run to resume; empty for the last unfinished run; None to start a new run."""
    verbose: bool = False
    aws: Settings | None = None
    """Settings of the AWS account that runs the jobs; None for this machine."""
    yes: bool = False
    """Whether to start without asking for consent."""
    keep: bool = False
    """Whether jobs and endpoints keep running after Ctrl-C or a failure."""
    build: bool = False
    """Whether to build the images first. On AWS, this has no effect."""
    as_pipeline: bool = False
    """Whether the steps run as a SageMaker Pipeline. A resumed run is a pipeline if it was started as a pipeline."""

    @property
    def backend_name(self) -> str:
        """The value of the flag `--on`: `here` for this machine, or `aws`."""
        return "here" if self.aws is None else "aws"

    @property
    def base_uri(self) -> str:
        """The S3 URI of the folder that has the data of all runs on AWS; empty for this machine."""
        return "" if self.aws is None else f"s3://{self.aws.bucket}/{self.aws.key_prefix}"

    @property
    def options(self) -> dict[str, Any]:
        """The workflow's options that flags or settings set."""
        names = workflows.load(self.workflow).option_names
        settings = {} if self.aws is None else self.aws.workflow_options
        return {**{name: value for name, value in settings.items() if name in names}, **self.flags}


def launch(request: LaunchRequest) -> None:
    """Run a workflow and show its results.

    Raises:
        UsageError: the options are wrong, or no run can be resumed.
        CommandError: images are missing, or a step failed.
    """
    home = Home.from_environment()
    runs_folder = home.root / "runs"
    journal = None if request.resume is None else resume_journal(runs_folder, request)
    workflow = workflows.load(request.workflow)
    options = workflow.options_class(**(journal.options if journal else request.options))
    workflow.check_options(options)
    console, interrupts = Console(highlight=False), InterruptHandler()
    if request.build and request.aws is None:
        request = replace(request, runtime=build_and_choose_runtime(request.runtime, options.jobs, console))
    with interrupts.handle_signals(), open_backend(home, request, options.jobs) as backend:
        if backend.needs_images:
            require_images(options.jobs)
        ask_for_consent(console, request, workflow, backend, options, journal)
        journal = journal or Journal.new(
            runs_folder, request.workflow, request.options, request.backend_name, request.base_uri
        )
        console.print(f"{journal.id}: jobs run on {backend.title} ({backend.reason})", soft_wrap=True)
        with print_resume_advice(console, request, backend, journal):
            run = make_run(console, request, backend, journal, interrupts)
            results = workflow.execute(run, options, runs_folder / journal.id)
        journal.finished = True
        journal.save()
    show_results(console, backend, journal, results, runs_folder / journal.id)


def make_run(
    console: Console, request: LaunchRequest, backend: Backend, journal: Journal, interrupts: InterruptHandler
) -> Run:
    """Return the run of a journal: a `PipelineRun` if a pipeline starts the steps, otherwise a `Run`."""
    progress = Progress(console, verbose=request.verbose)
    if not (request.as_pipeline or journal.execution):
        return Run(backend, journal, progress, interrupts, keep=request.keep)
    workflow = workflows.load(request.workflow)
    context = make_pipeline_context(RunContext(backend, journal.id))
    pipeline = workflow.make_pipeline(request.workflow, context, workflow.options_class(**journal.options))
    return PipelineRun(pipeline, backend, journal, progress, interrupts, keep=request.keep)


def resume_journal(runs_folder: Path, request: LaunchRequest) -> Journal:
    """Return the journal of the run to resume, with the number of the new attempt.

    Raises:
        UsageError: the run does not exist, or has another workflow, other options, another backend or another folder
            in S3.
    """
    path = (
        runs_folder / f"{request.resume}.json"
        if request.resume
        else find_last_unfinished(runs_folder, request.workflow)
    )
    journal = Journal.read(path)
    _check_options(journal, request)
    if journal.workflow != request.workflow:
        raise UsageError(f"{journal.id} is a run of {journal.workflow}: `microjobs run {journal.workflow} --resume`")
    if journal.on != request.backend_name:
        raise UsageError(f"{journal.id} was started with --on {journal.on}: resume it with --on {journal.on}")
    if journal.base != request.base_uri:
        raise UsageError(
            f"the data of {journal.id} is below {journal.base}, not {request.base_uri}: set bucket and prefix to their "
            "earlier values"
        )
    journal.attempt += 1
    journal.save()
    return journal


def _check_options(journal: Journal, request: LaunchRequest) -> None:
    defaults = {field.name: field.default for field in fields(workflows.load(request.workflow).options_class)}
    options = {**defaults, **journal.options}
    for name, value in request.options.items():
        if options[name] != value:
            raise UsageError(
                f"{journal.id} was started with {name} {options[name]}, not {value}: omit the option, "
                "or omit --resume to start a new run"
            )


def open_backend(home: Home, request: LaunchRequest, jobs: Sequence[str]) -> AbstractContextManager[Backend]:
    """Return the backend of the request. On AWS, raise UsageError if images of these jobs were not pushed."""
    if request.aws is None:
        return open_local_backend(home, request.runtime)
    destination = request.aws.destination
    find_image_uri = aws_images.make_pushed_image_finder(
        aws_images.load_pushed_images(home, destination), jobs, destination
    )
    return nullcontext(aws_backend.connect(request.aws, find_image_uri))


def require_images(jobs: Sequence[str]) -> None:
    """Raise CommandError if images of jobs are not built."""
    if missing := images.find_missing(jobs):
        raise CommandError(f"images of {', '.join(missing)} are not built: run `microjobs build {' '.join(missing)}`")


def ask_for_consent(
    console: Console,
    request: LaunchRequest,
    workflow: Workflow[Any],
    backend: Backend,
    options: Any,
    journal: Journal | None,
) -> None:
    """Show the estimated cost of the run on AWS, and ask whether to start it."""
    if request.aws is None:
        return
    requests = workflow.plan_requests(RunContext(backend, "planned"), options)
    costs.print_estimates(
        console, request.aws, select_remaining(requests, journal.finished_steps if journal else set())
    )
    command_line.ask_for_consent("Start?", yes=request.yes, refusal="nothing was started")


@contextmanager
def print_resume_advice(console: Console, request: LaunchRequest, backend: Backend, journal: Journal) -> Iterator[None]:
    """If the block fails, print the command that resumes the run, and the cost of the run so far."""
    try:
        yield
    except BaseException:
        on_option = "" if request.aws is None else " --on aws"
        console.print(f"Resume with: microjobs run {request.workflow} --resume{on_option}", soft_wrap=True)
        if cost := CostMeter(backend, journal).summarize():
            console.print(f"Cost so far: {cost}", soft_wrap=True)
        raise


def show_results(console: Console, backend: Backend, journal: Journal, results: RunResults, folder: Path) -> None:
    """Write the report page, and print the summary."""
    run_uri = backend.uri(journal.id)
    heading = f"{journal.id}  {backend.title}  {format_duration(journal.seconds)}"
    run_locations = [("S3", run_uri)]
    if backend.buckets is not None:
        run_locations.append(("disk", shorten_path(backend.buckets / run_uri.removeprefix("s3://"))))
    if cost := CostMeter(backend, journal).summarize():
        run_locations.append(("cost", cost))
    report = folder / "report.html"
    all_locations = [*run_locations, *((location.name, location.uri) for location in results.locations)]
    write_text(report, make_page(results, heading, journal.steps, all_locations))
    for line in results.log:
        console.print(Text(line))
    relative_locations = [
        (item.name, item.uri.removeprefix(f"{run_uri}/")) for item in results.locations if item.in_summary
    ]
    console.print(
        make_summary(results, heading, [*run_locations, *relative_locations, ("report", shorten_path(report))])
    )


def make_summary(results: RunResults, heading: str, locations: Sequence[tuple[str, str]]) -> RenderableType:
    """Return the summary for a terminal of 80 columns and 24 lines."""
    blocks = [terminal_block for block in results.blocks if (terminal_block := block.for_terminal()) is not None]
    lines = [Text.assemble((f"{name:8}", "dim"), place, overflow="fold") for name, place in locations]
    return Group(Rule(Text(heading, overflow="ellipsis"), align="left"), *blocks, *lines)


def shorten_path(path: Path) -> str:
    """Return a path relative to the current folder, or unchanged if it is not below that folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
