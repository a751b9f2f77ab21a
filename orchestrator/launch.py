"""A workflow from the command to its report: the server, the journal, the run, and what is shown at the end."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from microjobs.files import write_text
from microjobs_orchestrator import images
from microjobs_orchestrator.aws import backend as aws_backend
from microjobs_orchestrator.aws import consent
from microjobs_orchestrator.aws import images as aws_images
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.build_first import build_first
from microjobs_orchestrator.durations import duration
from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.report.page import page
from microjobs_orchestrator.report.summary import near, summary
from microjobs_orchestrator.runs.backend import Backend, RequestContext, local_backend
from microjobs_orchestrator.runs.costs import dollars
from microjobs_orchestrator.runs.journal import Journal, last_unfinished
from microjobs_orchestrator.runs.plan import Namer, PlanNames, PlannedRequest
from microjobs_orchestrator.runs.progress import Progress
from microjobs_orchestrator.runs.results import RunResults
from microjobs_orchestrator.runs.run import Run, interruptible
from microjobs_orchestrator.workflows import housing, straight_line


@dataclass(frozen=True)
class Workflow:
    """A workflow and what may be chosen for it."""

    options: type[Any]
    run: Callable[[Backend, Run, Any, Path], RunResults]
    requests: Callable[[RequestContext, Namer, Any], list[PlannedRequest]]
    """All that it is going to ask for."""


WORKFLOWS = {
    "housing": Workflow(housing.Options, housing.housing, housing.requests),
    "straight-line": Workflow(straight_line.Options, straight_line.straight_line, straight_line.requests),
}


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    workflow: str
    given: Mapping[str, Any]
    """The options that were given, no defaults."""
    runtime: str = "auto"
    resume: str | None = None
    """The run to go on with; empty for the last one that did not finish."""
    verbose: bool = False
    aws: Settings | None = None
    """Run there."""
    yes: bool = False
    """Start without a question."""
    keep: bool = False
    """Leave what runs as it is after Ctrl-C or a failure."""
    build: bool = False
    """Build the images first. Only for runs on this machine."""

    @property
    def on(self) -> str:
        return "here" if self.aws is None else "aws"

    @property
    def base(self) -> str:
        """The S3 address of a run's data on AWS; empty here, where it is the server's."""
        return "" if self.aws is None else f"s3://{self.aws.bucket}/{self.aws.key_prefix}"

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that were given, by flags or for AWS.

        Raises:
            UsageError: the data file is not there, or not arrays x and y.
        """
        hosts = 0 if self.aws is None else self.aws.instance_count
        names = {item.name for item in fields(WORKFLOWS[self.workflow].options)}
        return {**({"instance_count": hosts} if hosts and "instance_count" in names else {}), **checked(self.given)}


def launch(request: Request) -> None:
    """Run a workflow and show what came out.

    Raises:
        UsageError: the options cannot be, or there is nothing to resume.
        LauncherError: images are missing, or a step failed.
    """
    home = Home.from_environment()
    runs = home.root / "runs"
    given = request.chosen
    resumed = None if request.resume is None else find_journal(runs, request, given)
    console = Console(highlight=False)
    workflow = WORKFLOWS[request.workflow]
    options = workflow.options(**(resumed.options if resumed else given))
    if request.build and request.aws is None:
        request = replace(request, runtime=build_first(request.runtime, options.jobs, console))
    with interruptible(), opened(home, request, options.jobs) as backend:
        if backend.needs_images:
            need_images(options.jobs)
        if request.aws is not None:
            consent.show(
                console, request.aws, left_to_do(workflow.requests(backend, PlanNames("planned"), options), resumed)
            )
            consent.ask(console, yes=request.yes)
        journal = resumed or Journal.new(runs, request.workflow, given, request.on, request.base)
        console.print(f"{journal.id}: jobs run by {backend.title} ({backend.why})", soft_wrap=True)
        progress = Progress(console, verbose=request.verbose)
        try:
            results = workflow.run(
                backend, Run(backend, journal, progress, keep=request.keep), options, runs / journal.id
            )
        except BaseException:
            console.print(f"Go on with: microjobs run {request.workflow} --resume{again(request)}", soft_wrap=True)
            if costs := cost(backend, journal):
                console.print(f"Cost so far: {costs}", soft_wrap=True)
            raise
        journal.finished = True
        journal.save()
    finish(console, backend, journal, results, runs / journal.id)


def opened(home: Home, request: Request, jobs: Sequence[str]) -> AbstractContextManager[Backend]:
    """The backend that was asked for.

    Raises:
        UsageError: for AWS, images of these jobs were not pushed.
    """
    if request.aws is None:
        return local_backend(home, request.runtime)
    destination = request.aws.destination
    return nullcontext(
        aws_backend.connect(request.aws, aws_images.need(aws_images.pushed(home, destination), jobs, destination))
    )


def again(request: Request) -> str:
    return "" if request.aws is None else " --on aws"


def left_to_do(plan: Sequence[PlannedRequest], journal: Journal | None) -> list[PlannedRequest]:
    """The requests that a resumed run will send; a finished endpoint is remembered as its predictions."""
    if journal is None:
        return list(plan)
    finished = {done.step for done in journal.steps if done.seconds is not None}
    return [planned for planned in plan if {"endpoint": "predictions"}.get(planned.step, planned.step) not in finished]


def cost(backend: Backend, journal: Journal) -> str:
    """What a run has cost, in a line; empty where nothing costs."""
    if backend.price is None:
        return ""
    without = f", and what {', '.join(journal.unpriced)} costs" if journal.unpriced else ""
    return f"{dollars(journal.spent)} for instances, by the price table{without}"


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with the data file's absolute path.

    Raises:
        UsageError: the data file is not there, or not arrays x and y.
    """
    if "data" not in given:
        return dict(given)
    path = Path(given["data"]).absolute()
    try:
        names = zipfile.ZipFile(path).namelist()
    except (OSError, zipfile.BadZipFile) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"--data {path}: {why}: name an .npz file with arrays x and y") from error
    if not {"x.npy", "y.npy"} <= set(names):
        raise UsageError(f"--data {path} has {', '.join(names) or 'nothing'}: arrays x and y are needed")
    return {**given, "data": str(path)}


def find_journal(runs: Path, request: Request, given: Mapping[str, Any]) -> Journal:
    """The run to go on with, as a new attempt.

    Raises:
        UsageError: there is none, or it was started with other options, or elsewhere.
    """
    workflow, run_id = request.workflow, request.resume
    journal = Journal.read(runs / f"{run_id}.json" if run_id else last_unfinished(runs, workflow))
    known = {field.name: field.default for field in fields(WORKFLOWS[workflow].options)} | journal.options
    for name, value in given.items():
        if known[name] != value:
            raise UsageError(
                f"{journal.id} was started with {name} {known[name]}, not {value}: leave the option out, "
                "or --resume to start a new run"
            )
    if journal.workflow != workflow:
        raise UsageError(f"{journal.id} is a run of {journal.workflow}: `microjobs run {journal.workflow} --resume`")
    if journal.on != request.on:
        raise UsageError(f"{journal.id} was started with --on {journal.on}: resume it there, with --on {journal.on}")
    if journal.base != request.base:
        raise UsageError(
            f"the data of {journal.id} is below {journal.base}, not {request.base}: set bucket and prefix as they were"
        )
    journal.attempt += 1
    journal.save()
    return journal


def need_images(jobs: tuple[str, ...]) -> None:
    """Refuse to start what would fail in its middle.

    Raises:
        LauncherError: images are not built, with the command that builds them.
    """
    missing = images.missing(jobs)
    if missing:
        raise LauncherError(f"no image of {', '.join(missing)}: `microjobs build {' '.join(missing)}` makes them")


def finish(console: Console, backend: Backend, journal: Journal, results: RunResults, folder: Path) -> None:
    """Write the report and show the summary."""
    base = backend.uri(journal.id)
    heading = f"{journal.id}  {backend.title}  {duration(sum(done.seconds or 0.0 for done in journal.steps))}"
    lying = [("S3", base)]
    if (here := backend.folder(base)) is not None:
        lying.append(("disk", near(here)))
    if costs := cost(backend, journal):
        lying.append(("cost", costs))
    report = folder / "report.html"
    write_text(report, page(results, heading, journal.steps, [*lying, *results.places]))
    model = dict(results.places)["model"].removeprefix(f"{base}/")
    for line in results.table:
        console.print(Text(line))
    console.print(summary(results, heading, [*lying, ("model", model), ("report", near(report))]))
