"""A workflow from the command to its report: the server, the record, the run, and what is shown at the end."""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from microjobs.files import write_text
from orchestrator import images
from orchestrator.failures import LauncherError, UsageError
from orchestrator.local.home import Home
from orchestrator.report.page import page
from orchestrator.report.summary import near, summary
from orchestrator.workflows import housing, straight_line
from orchestrator.workflows.place import Place, on_this_machine
from orchestrator.workflows.progress import Progress, duration
from orchestrator.workflows.record import Record, last_unfinished
from orchestrator.workflows.results import Results
from orchestrator.workflows.run import Run, interruptible


@dataclass(frozen=True)
class Workflow:
    """A workflow and what may be chosen for it."""

    options: type[Any]
    run: Callable[[Place, Run, Any, Path], Results]


WORKFLOWS = {
    "housing": Workflow(housing.Options, housing.housing),
    "straight-line": Workflow(straight_line.Options, straight_line.straight_line),
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


def launch(request: Request) -> None:
    """Run a workflow and show what came out.

    Raises:
        UsageError: the options cannot be, or there is nothing to resume.
        LauncherError: images are missing, or a step failed.
    """
    home = Home.from_environment()
    runs = home.root / "runs"
    given = checked(request.given)
    resumed = None if request.resume is None else find_record(runs, request.workflow, request.resume, given)
    console = Console(highlight=False)
    with interruptible(), on_this_machine(home, request.runtime) as place:
        workflow = WORKFLOWS[request.workflow]
        options = workflow.options(**(resumed.options if resumed else given))
        if place.needs_images:
            need_images(options.jobs)
        record = resumed or Record.new(runs, request.workflow, given)
        console.print(f"{record.id}: jobs run by {place.title} ({place.why})", soft_wrap=True)
        try:
            results = workflow.run(
                place, Run(place, record, Progress(console, verbose=request.verbose)), options, runs / record.id
            )
        except BaseException:
            console.print(f"Go on with: microjobs run {request.workflow} --resume", soft_wrap=True)
            raise
        record.finished = True
        record.save()
    finish(console, place, record, results, runs / record.id)


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
        raise UsageError(f"--data {path} cannot be read as an .npz file: {error}") from error
    if not {"x.npy", "y.npy"} <= set(names):
        raise UsageError(f"--data {path} has {', '.join(names) or 'nothing'}: arrays x and y are needed")
    return {**given, "data": str(path)}


def find_record(runs: Path, workflow: str, run_id: str, given: Mapping[str, Any]) -> Record:
    """The run to go on with, as a new attempt.

    Raises:
        UsageError: there is none, or it was started with other options.
    """
    record = Record.read(runs / f"{run_id}.json" if run_id else last_unfinished(runs, workflow))
    known = {field.name: field.default for field in fields(WORKFLOWS[workflow].options)} | record.options
    for name, value in given.items():
        if known[name] != value:
            raise UsageError(
                f"{record.id} was started with {name} {known[name]}, not {value}: leave the option out, "
                "or --resume to start a new run"
            )
    if record.workflow != workflow:
        raise UsageError(f"{record.id} is a run of {record.workflow}: `microjobs run {record.workflow} --resume`")
    record.attempt += 1
    record.save()
    return record


def need_images(jobs: tuple[str, ...]) -> None:
    """Refuse to start what would fail in its middle.

    Raises:
        LauncherError: images are not built, with the command that builds them.
    """
    missing = images.missing(jobs)
    if missing:
        raise LauncherError(f"no image of {', '.join(missing)}: `microjobs build {' '.join(missing)}` makes them")


def finish(console: Console, place: Place, record: Record, results: Results, folder: Path) -> None:
    """Write the report and show the summary."""
    base = f"s3://{place.bucket}/{record.id}"
    heading = f"{record.id}  {place.title}  {duration(sum(done.seconds or 0.0 for done in record.steps))}"
    lying = [("S3", base)]
    if (here := place.folder(base)) is not None:
        lying.append(("disk", near(here)))
    report = folder / "report.html"
    write_text(report, page(results, heading, record.steps, [*lying, *results.places]))
    model = dict(results.places)["model"].removeprefix(f"{base}/")
    for line in results.table:
        console.print(Text(line))
    console.print(summary(results, heading, [*lying, ("model", model), ("report", near(report))]))
