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
from microjobs_orchestrator import images, program, workflows
from microjobs_orchestrator.aws import backend as aws_backend
from microjobs_orchestrator.aws import costs
from microjobs_orchestrator.aws import images as aws_images
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.build_first import build_first
from microjobs_orchestrator.durations import format_duration
from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.report.page import make_page
from microjobs_orchestrator.runs.backend import Backend, open_local_backend
from microjobs_orchestrator.runs.costs import CostMeter
from microjobs_orchestrator.runs.create_guard import CreateGuard
from microjobs_orchestrator.runs.journal import Journal, last_unfinished
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
    """The workflow's options that flags set. The others have their defaults."""
    runtime: str = "auto"
    resume: str | None = None
    """The run to resume; empty for the last unfinished one; None to start a new run."""
    verbose: bool = False
    aws: Settings | None = None
    """Settings of the AWS account that runs the jobs; None for this machine."""
    yes: bool = False
    """Start without asking for consent."""
    keep: bool = False
    """Leave jobs and endpoints as they are after Ctrl-C or a failure."""
    build: bool = False
    """Build the images first. On AWS this has no effect."""
    as_pipeline: bool = False
    """Run the steps as a SageMaker Pipeline. A resumed run is a pipeline if it was started as one."""

    @property
    def on(self) -> str:
        return "here" if self.aws is None else "aws"

    @property
    def base(self) -> str:
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
        LauncherError: images are missing, or a step failed.
    """
    home = Home.from_environment()
    runs = home.root / "runs"
    journal = None if request.resume is None else resume_journal(runs, request)
    workflow = workflows.load(request.workflow)
    options = workflow.options(**(journal.options if journal else request.options))
    workflow.check_options(options)
    console, guard = Console(highlight=False), CreateGuard()
    if request.build and request.aws is None:
        request = replace(request, runtime=build_first(request.runtime, options.jobs, console))
    with guard.interruptible(), open_backend(home, request, options.jobs) as backend:
        if backend.needs_images:
            require_images(options.jobs)
        ask_for_consent(console, request, workflow, backend, options, journal)
        journal = journal or Journal.new(runs, request.workflow, request.options, request.on, request.base)
        console.print(f"{journal.id}: jobs run by {backend.title} ({backend.reason})", soft_wrap=True)
        with print_resume_advice(console, request, backend, journal):
            run = make_run(console, request, backend, journal, guard)
            results = workflow.execute(run, options, runs / journal.id)
        journal.finished = True
        journal.save()
    show_results(console, backend, journal, results, runs / journal.id)


def make_run(console: Console, request: LaunchRequest, backend: Backend, journal: Journal, guard: CreateGuard) -> Run:
    """Return the run of a journal, whose steps the launcher or a pipeline starts."""
    progress = Progress(console, verbose=request.verbose)
    if not (request.as_pipeline or journal.execution):
        return Run(backend, journal, progress, guard, keep=request.keep)
    workflow = workflows.load(request.workflow)
    context = make_pipeline_context(RunContext(backend, journal.id))
    pipeline = workflow.make_pipeline(request.workflow, context, workflow.options(**journal.options))
    return PipelineRun(pipeline, backend, journal, progress, guard, keep=request.keep)


def resume_journal(runs: Path, request: LaunchRequest) -> Journal:
    """Return the journal of the run to resume. Raise UsageError if it has other options or another backend."""
    path = runs / f"{request.resume}.json" if request.resume else last_unfinished(runs, request.workflow)
    journal = Journal.read(path)
    _check_options(journal, request)
    if journal.workflow != request.workflow:
        raise UsageError(f"{journal.id} is a run of {journal.workflow}: `microjobs run {journal.workflow} --resume`")
    if journal.on != request.on:
        raise UsageError(f"{journal.id} was started with --on {journal.on}: resume it with --on {journal.on}")
    if journal.base != request.base:
        raise UsageError(
            f"the data of {journal.id} is below {journal.base}, not {request.base}: set bucket and prefix as they were"
        )
    journal.attempt += 1
    journal.save()
    return journal


def _check_options(journal: Journal, request: LaunchRequest) -> None:
    defaults = {field.name: field.default for field in fields(workflows.load(request.workflow).options)}
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
    image = aws_images.require_pushed_images(aws_images.load_pushed_images(home, destination), jobs, destination)
    return nullcontext(aws_backend.connect(request.aws, image))


def require_images(jobs: Sequence[str]) -> None:
    """Raise LauncherError if images of jobs are not built."""
    if missing := images.find_missing(jobs):
        raise LauncherError(f"images of {', '.join(missing)} are not built: run `microjobs build {' '.join(missing)}`")


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
    program.ask_for_consent("Start?", yes=request.yes, refusal="nothing was started")


@contextmanager
def print_resume_advice(console: Console, request: LaunchRequest, backend: Backend, journal: Journal) -> Iterator[None]:
    """If the block fails, print the command that resumes the run, and its cost so far."""
    try:
        yield
    except BaseException:
        on = "" if request.aws is None else " --on aws"
        console.print(f"Resume with: microjobs run {request.workflow} --resume{on}", soft_wrap=True)
        if cost := CostMeter(backend, journal).summarize():
            console.print(f"Cost so far: {cost}", soft_wrap=True)
        raise


def show_results(console: Console, backend: Backend, journal: Journal, results: RunResults, folder: Path) -> None:
    """Write the report page, and print the summary."""
    base = backend.uri(journal.id)
    heading = f"{journal.id}  {backend.title}  {format_duration(journal.seconds)}"
    locations = [("S3", base)]
    if backend.buckets is not None:
        locations.append(("disk", shorten_path(backend.buckets / base.removeprefix("s3://"))))
    if cost := CostMeter(backend, journal).summarize():
        locations.append(("cost", cost))
    report = folder / "report.html"
    all_locations = [*locations, *((location.name, location.uri) for location in results.locations)]
    write_text(report, make_page(results, heading, journal.steps, all_locations))
    for line in results.log:
        console.print(Text(line))
    in_summary = [(item.name, item.uri.removeprefix(f"{base}/")) for item in results.locations if item.in_summary]
    console.print(make_summary(results, heading, [*locations, *in_summary, ("report", shorten_path(report))]))


def make_summary(results: RunResults, heading: str, locations: Sequence[tuple[str, str]]) -> RenderableType:
    """Return the summary for a terminal of 80 columns and 24 lines."""
    blocks = [shown for block in results.blocks if (shown := block.for_terminal()) is not None]
    lines = [Text.assemble((f"{name:8}", "dim"), place, overflow="fold") for name, place in locations]
    return Group(Rule(Text(heading, overflow="ellipsis"), align="left"), *blocks, *lines)


def shorten_path(path: Path) -> str:
    """Return a path relative to the current folder, or unchanged if it is not below that folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
