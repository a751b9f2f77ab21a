"""Values that the expressions of an execution's steps read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.lifecycle.outputs import join_key
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    ExpressionError,
    Path,
    format_path,
    resolve,
    select,
)
from microjobs_orchestrator.local.resources.pipelines.definition.messages import make_name_hint, quote
from microjobs_orchestrator.local.resources.pipelines.definition.values import Definition, Scalar
from microjobs_orchestrator.local.resources.pipelines.step_run import Iteration
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import ObjectStore

JOB_VARIABLES = ("TrainingJobName", "ProcessingJobName")
"""Variables whose value is the name of the step's own job."""
MAX_FILE_BYTES = 4 << 20
"""Maximum size of a JSON object that an expression reads, such as a property file."""


@dataclass(frozen=True)
class ExecutionValues:
    """Values that all steps of an execution read: parameters, variables, and the properties of steps."""

    definition: Definition
    store: ObjectStore
    parameters: Mapping[str, Scalar]
    variables: Mapping[str, str]
    read_properties: Callable[[str], Mapping[str, Any]]
    """A function that takes the name of a successful step, and returns the properties of this step."""


class StepScope:
    """The values that the expressions of one step read."""

    def __init__(
        self, values: ExecutionValues, iteration: Iteration | None = None, choose_name: Callable[[], str] | None = None
    ) -> None:
        self._values = values
        self._iteration = iteration
        self._choose_name = choose_name
        """A function that returns the name of the job that the step is about to create, or raises ExpressionError; None
        if no step is about to start."""

    def read_parameter(self, name: str) -> Scalar:
        return self._values.parameters[name]

    def read_variable(self, name: str) -> str:
        if name in JOB_VARIABLES and self._choose_name is not None:
            return self._choose_name()
        variables = {**self._values.variables, "CurrentDateTime": format_time(datetime.now(UTC).timestamp())}
        if name not in variables:
            raise ExpressionError(f"Execution.{name} does not exist ({make_name_hint(name, variables)})")
        return variables[name]

    def read_property(self, step_name: str, path: Path) -> Any:
        try:
            return select(self._values.read_properties(self._find_step_name(step_name)), path)
        except ExpressionError as error:
            raise ExpressionError(f"Steps.{step_name}{format_path(path)}: {error}") from error

    def _find_step_name(self, step_name: str) -> str:
        """Return the name of a step. For a step in the same loop, add the suffix of the current iteration."""
        body = self._iteration.body if self._iteration else ()
        return f"{step_name}{self._iteration.suffix}" if self._iteration and step_name in body else step_name

    def read_property_file(self, step_name: str, file_name: str) -> Any:
        step = next(step for step in self._values.definition.walk() if step.name == step_name)
        file = next(file for file in step.property_files if file.name == file_name)
        output = self.read_property(
            step_name, ("ProcessingOutputConfig", "Outputs", file.output_name, "S3Output", "S3Uri")
        )
        return self.read_json_object(join_key(output, file.path))

    def read_json_object(self, uri: str) -> Any:
        return read_json(self._values.store, uri)

    def read_loop_item(self, path: Path) -> Any:
        if self._iteration is None:
            raise ExpressionError("ForEach.CurrentItem exists only in the body of a ForEach step")
        return select(parse_item(self._iteration.item), path) if path else self._iteration.item

    def read_iteration_output(self, step_name: str, path: Path) -> Any:
        # `_find_step_name` adds the suffix of the iteration whose outputs the Selector compares.
        return self.read_property(step_name, path)

    def read_experiment(self, name: str) -> str:
        experiment = {
            "ExperimentName": self._values.variables["PipelineName"],
            "TrialName": self._values.variables["PipelineExecutionId"],
            **(self._values.definition.experiment or {}),
        }
        return str(resolve(experiment[name], self))


def parse_item(item: Any) -> Any:
    """Return the value of an item of a ForEach step; parse the item if it is JSON text.

    Raises:
        ExpressionError: the item is text, but not JSON.
    """
    if not isinstance(item, str):
        return item
    try:
        return json.loads(item)
    except (ValueError, RecursionError) as error:
        raise ExpressionError(f"the item {quote(item)} is not JSON, but a member of it is read: {error}") from error


def read_json(store: ObjectStore, uri: str) -> Any:
    """Return the content of a JSON object. Raise ExpressionError if it cannot be read."""
    try:
        stored_object = store.get(*parse_uri(uri))
        if stored_object.size > MAX_FILE_BYTES:
            raise ExpressionError(f"{uri} has {stored_object.size} bytes, more than {MAX_FILE_BYTES}")
        return json.loads(stored_object.path.read_bytes())
    except (ServiceError, OSError) as error:
        raise ExpressionError(f"{uri} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ExpressionError(f"{uri} is not JSON: {error}") from error


def format_time(seconds: float) -> str:
    """Format a time as a variable of an execution, such as `2026-11-29T04:05:06.789Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_variables(arn: str, start_time: float) -> dict[str, str]:
    """Return the variables of an execution with an ARN, except CurrentDateTime."""
    pipeline_arn, _, execution_id = arn.partition("/execution/")
    return {
        "PipelineName": pipeline_arn.rpartition("/")[2],
        "PipelineArn": pipeline_arn,
        "PipelineExecutionId": execution_id,
        "PipelineExecutionArn": arn,
        "StartDateTime": format_time(start_time),
    }
