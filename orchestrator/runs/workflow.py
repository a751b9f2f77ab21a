"""The declaration of a workflow, and its results. Each file in `workflows/` has a declaration, named WORKFLOW."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from microjobs_orchestrator.runs.expressions import format_expression
from microjobs_orchestrator.runs.outputs import split_uri
from microjobs_orchestrator.runs.pipelines import RUN_PARAMETER, Pipeline, PipelineItem
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext
from microjobs_orchestrator.runs.run import Run

if TYPE_CHECKING:
    from rich.console import RenderableType

FILE_TYPE = "file"
"""The type of an option whose value is a file path, in the result of `microjobs.hyperparameters.describe`."""


def file_option(help: str) -> Any:
    """Declare an option that is the path of a file. A flag's relative path is made absolute."""
    return field(default="", metadata={"help": help, "type": FILE_TYPE})


class WorkflowOptions(Protocol):
    """A frozen dataclass. Its fields are declared with `microjobs.hyperparameters.parameter`; each field is a flag."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def jobs(self) -> tuple[str, ...]:
        """The ready-made jobs whose images the workflow needs."""
        ...


OptionsT = TypeVar("OptionsT", bound=WorkflowOptions)


class Block(Protocol):
    """One part of the results."""

    def for_terminal(self) -> "RenderableType | None":
        """Return the block for the summary, or None if only the report page shows it."""
        ...

    def to_html(self) -> str:
        """Return the block for the report page."""
        ...


@dataclass(frozen=True)
class Location:
    """An S3 URI where the run left data."""

    name: str
    uri: str
    in_summary: bool = False
    """Whether the summary also shows the location, relative to the run's folder."""


@dataclass(frozen=True)
class RunResults:
    title: str
    blocks: Sequence[Block]
    """The blocks in the order in which they are shown."""
    locations: Sequence[Location] = ()
    log: Sequence[str] = ()
    """Log lines that belong to the results. They are printed before the summary."""


@dataclass(frozen=True)
class Workflow(Generic[OptionsT]):
    options_class: type[OptionsT]
    run_steps: Callable[[Run, OptionsT, Path], RunResults]
    """A function that runs the steps and returns their results. The path is a folder for downloaded files."""
    plan_requests: Callable[[RunContext, OptionsT], Sequence[PlannedRequest]]
    """A function that returns all requests that a run will send, in their order."""
    plan_uploads: Callable[[RunContext, OptionsT], Mapping[str, str]] = lambda _context, _options: {}
    """A function that returns the files to upload before the first step: the S3 URI for each local path."""
    check_options: Callable[[OptionsT], None] = lambda _options: None
    """A function that raises UsageError for invalid options that the declarations of the fields cannot detect."""
    plan_pipeline: Callable[[RunContext, OptionsT], Sequence[PipelineItem]] | None = None
    """A function that returns the requests of the workflow as a pipeline, if they differ from those of
    `plan_requests`."""
    parameters: Sequence[str] = ()
    """The options that are parameters of the pipeline. The functions that plan requests may only insert their values
    as text, because expressions replace the values in a pipeline."""
    examples: str = ""
    """Command lines for `--help`, one per line."""

    @property
    def option_names(self) -> set[str]:
        return {item.name for item in fields(self.options_class)}

    def make_pipeline(self, name: str, context: RunContext, options: OptionsT) -> Pipeline:
        """Return the pipeline with the steps of the workflow.

        Args:
            context: the result of `make_pipeline_context`. It refers to the run's name as a parameter of the
                pipeline.
        """
        values = {parameter: str(getattr(options, parameter)) for parameter in self.parameters}
        expressions: Any = {parameter: format_expression(f"Parameters.{parameter}") for parameter in self.parameters}
        plan: Callable[[RunContext, OptionsT], Sequence[PipelineItem]] = self.plan_pipeline or self.plan_requests
        items = plan(context, replace(options, **expressions))
        return Pipeline(name, items, {RUN_PARAMETER: f"{name}-pipeline", **values})

    def execute(self, run: Run, options: OptionsT, folder: Path) -> RunResults:
        """Upload the files and run the steps. Raise JobFailedError if a job fails."""
        for path, uri in self.plan_uploads(run, options).items():
            run.backend.s3.upload_file(path, *split_uri(uri))
        return self.run_steps(run, options, folder)
