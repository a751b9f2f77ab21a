"""Checks of how the parts of a definition fit together: names, references, order and arguments of steps."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.parity.rows import list_refusals
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.validation import list_violations
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    ExpressionError,
    Reference,
    ReferenceSource,
    find_references,
    is_expression,
    locate_expressions,
)
from microjobs_orchestrator.local.resources.pipelines.definition.graph import make_graph
from microjobs_orchestrator.local.resources.pipelines.definition.messages import make_error, make_name_hint, quote
from microjobs_orchestrator.local.resources.pipelines.definition.parse import parse_definition
from microjobs_orchestrator.local.resources.pipelines.definition.properties import (
    PARAMETER_TYPES,
    find_compared_step_name,
    find_property_type,
    has_properties,
)
from microjobs_orchestrator.local.resources.pipelines.definition.step_types import STEP_TYPE_FACTS
from microjobs_orchestrator.local.resources.pipelines.definition.values import Definition, Step, StepType
from microjobs_orchestrator.local.values import Deferred

VARIABLES = (
    "StartDateTime",
    "CurrentDateTime",
    "PipelineName",
    "PipelineArn",
    "PipelineExecutionId",
    "PipelineExecutionArn",
    "TrainingJobName",
    "ProcessingJobName",
)
"""Variables of executions.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-variables.html, and the SageMaker SDK v3.
"""

MAX_LISTED_ITEMS = 10
"""Maximum number of problems, or of step names, that an error message lists."""


def read_definition(text: str) -> Definition:
    """Parse a definition, and check it completely.

    Raises:
        ValidationError: the definition is invalid. The message names the step, the member and the nearest known name.
    """
    definition = parse_definition(text)
    check_definition(definition)
    return definition


def check_definition(definition: Definition) -> None:
    """Check a parsed definition. Raise ValidationError if it has an error that would make an execution fail."""
    checker = _Checker(definition, _list_placed_steps(definition))
    checker.check_parameter_names()
    checker.check_experiment()
    for placed_step in checker.placed_steps.values():
        checker.check_step(placed_step)
    _check_order(definition)
    for placed_step in checker.placed_steps.values():
        checker.check_arguments(placed_step.step)


@dataclass(frozen=True)
class _PlacedStep:
    """A step, and its place in the definition."""

    step: Step
    loop: Step | None
    """The ForEach step that contains the step; None if it is in no loop."""


def _list_placed_steps(definition: Definition) -> dict[str, _PlacedStep]:
    placed_steps: dict[str, _PlacedStep] = {}
    for step in definition.steps:
        for placed_step in _walk(step, None):
            if placed_step.step.name in placed_steps:
                raise make_error(f"step {quote(placed_step.step.name)}", "another step has the same name")
            placed_steps[placed_step.step.name] = placed_step
    _check_iteration_names(placed_steps)
    return placed_steps


def _check_iteration_names(placed_steps: Mapping[str, _PlacedStep]) -> None:
    """Check that no step has the name of an iteration: `<step>-0` is the first iteration of a step in a loop."""
    for name in placed_steps:
        prefix, _, number = name.rpartition("-")
        if number.isdigit() and prefix in placed_steps and placed_steps[prefix].loop is not None:
            raise make_error(f"step {quote(name)}", f"an iteration of the step {quote(prefix)} has the same name")


def _walk(step: Step, loop: Step | None) -> Iterator[_PlacedStep]:
    yield _PlacedStep(step, loop)
    for inner in step.nested_steps:
        yield from _walk(inner, step if step.body else loop)


@dataclass(frozen=True)
class _Checker:
    definition: Definition
    placed_steps: Mapping[str, _PlacedStep]

    # --- names and references ---

    def check_parameter_names(self) -> None:
        names = [parameter.name for parameter in self.definition.parameters]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise make_error(f"parameter {quote(name)}", "another parameter has the same name")

    def check_experiment(self) -> None:
        """Check the expressions of PipelineExperimentConfig and MlflowConfig."""
        parts = {"PipelineExperimentConfig": self.definition.experiment, "MlflowConfig": self.definition.mlflow}
        for name, part in parts.items():
            for path, expression in _locate_expressions(part, name):
                self._check_expression(None, path, expression)

    def check_step(self, placed_step: _PlacedStep) -> None:
        """Check the names and the expressions of a step."""
        step, where = placed_step.step, f"step {quote(placed_step.step.name)}"
        for index, dependency in enumerate(step.depends_on):
            self._check_dependency(placed_step, dependency.step, f"{where}, member DependsOn[{index}]")
        for path, expression in _locate_expressions({"Arguments": step.arguments, "Target": step.receiver}, where):
            if path == "Arguments":
                raise make_error(f"{where}, member Arguments", "expected an object, found an expression")
            self._check_expression(placed_step, f"{where}, member {path}", expression)
        self._check_property_files(step, where)
        if step.type is StepType.CLEANUP:
            for index, source in enumerate(step.arguments["Resources"]["S3"]):
                member = f"{where}, member Arguments.Resources.S3[{index}].StepName"
                self._check_dependency(placed_step, source["StepName"], member)

    def _check_dependency(self, placed_step: _PlacedStep, name: str, where: str) -> None:
        """Check that `placed_step` may refer to the step `name`.

        The step `name` must exist, and must be in no loop or in the loop of `placed_step`.

        Args:
            where: the place of the reference, for error messages.
        """
        dependency = self.placed_steps.get(name)
        if dependency is None:
            raise make_error(where, f"step {quote(name)} does not exist ({make_name_hint(name, self.placed_steps)})")
        loop = dependency.loop
        if loop is not None and loop is not placed_step.loop:
            raise make_error(where, f"step {quote(name)} is in the body of {loop.name}: refer to {loop.name} instead")

    def _check_expression(self, placed_step: _PlacedStep | None, where: str, expression: Any) -> None:
        """Check the references of an expression in a step; None stands for an expression outside of all steps."""
        try:
            for reference in find_references(expression):
                _CHECKS[reference.source](self, placed_step, reference, where)
        except ExpressionError as error:
            raise make_error(where, str(error)) from error

    def check_parameter(self, _placed_step: _PlacedStep | None, reference: Reference, _where: str) -> None:
        names = [parameter.name for parameter in self.definition.parameters]
        _check_known("parameter", reference.name, names)

    def check_variable(self, _placed_step: _PlacedStep | None, reference: Reference, _where: str) -> None:
        _check_known("variable", reference.name, VARIABLES)

    def check_property(self, placed_step: _PlacedStep | None, reference: Reference, where: str) -> None:
        if placed_step is None:
            raise ExpressionError("a step has no values before the execution starts")
        self._check_dependency(placed_step, reference.name, where)
        step = self.placed_steps[reference.name].step
        if not has_properties(step):
            raise ExpressionError(f"step {step.name!r} of type {step.type} has no properties")
        find_property_type(step, reference.path)

    def check_loop_item(self, placed_step: _PlacedStep | None, reference: Reference, _where: str) -> None:
        if placed_step is None or placed_step.loop is None:
            raise ExpressionError(f"{reference} is allowed only in the body of a ForEach step")

    def check_iteration_output(self, placed_step: _PlacedStep | None, reference: Reference, _where: str) -> None:
        if placed_step is None or not placed_step.step.body:
            raise ExpressionError(f"{reference} is allowed only in the Selector of a ForEach step")
        find_property_type(self.placed_steps[find_compared_step_name(placed_step.step)].step, reference.path)

    def check_experiment_name(self, _placed_step: _PlacedStep | None, reference: Reference, _where: str) -> None:
        _check_known("member of PipelineExperimentConfig", reference.name, list(self.definition.experiment or ()))

    def _check_property_files(self, step: Step, where: str) -> None:
        """Check that each property file is in an output of the step."""
        outputs = step.arguments.get("ProcessingOutputConfig", {})
        items = outputs.get("Outputs", []) if isinstance(outputs, dict) else []
        names = [item.get("OutputName") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        output_names = [name for name in names if isinstance(name, str)]
        for index, file in enumerate(step.property_files):
            name = file.output_name
            # If the name of an output is an expression, its value is not known yet, and may be `name`.
            if name not in output_names and len(output_names) == len(names):
                place = f"{where}, member PropertyFiles[{index}].OutputName"
                problem = f"output {quote(name)} does not exist ({make_name_hint(name, output_names)})"
                raise make_error(place, problem)

    # --- arguments ---

    def check_arguments(self, step: Step) -> None:
        """Check the arguments of a step as the members of a request. For expressions, check only the types."""
        facts = STEP_TYPE_FACTS[step.type]
        if not facts.create_operation:
            return
        members = {facts.name_member: Deferred("the name", "string"), **self._defer(step.arguments)}
        try:
            problems = list_violations(load_operation_model("sagemaker", facts.create_operation), members)
        except ServiceError as error:
            problems = [error.message]
        rows = TABLE["sagemaker"].get(facts.create_operation)
        if rows is not None and not problems:
            problems = list(list_refusals(rows, members))
        if problems:
            remainder = f"; and {len(problems) - MAX_LISTED_ITEMS} more" if len(problems) > MAX_LISTED_ITEMS else ""
            text = "; ".join(problems[:MAX_LISTED_ITEMS])
            raise make_error(
                f"step {quote(step.name)}, member Arguments", f"{facts.create_operation}: {text}{remainder}"
            )

    def _defer(self, value: Any) -> Any:
        """Return a value whose expressions are replaced by `Deferred`."""
        if is_expression(value):
            return Deferred(quote(value), self._find_type(value))
        if isinstance(value, Mapping):
            return {name: self._defer(content) for name, content in value.items()}
        return [self._defer(item) for item in value] if isinstance(value, list) else value

    def _find_type(self, expression: Mapping[str, Any]) -> str:
        if "Get" not in expression:
            return "string" if "Std:Join" in expression else ""
        (reference,) = find_references(expression)
        if reference.source is ReferenceSource.PARAMETER:
            types = {parameter.name: PARAMETER_TYPES[parameter.type] for parameter in self.definition.parameters}
            return types[reference.name]
        if reference.source is ReferenceSource.STEP:
            return find_property_type(self.placed_steps[reference.name].step, reference.path)
        return "string" if reference.source in (ReferenceSource.VARIABLE, ReferenceSource.EXPERIMENT) else ""


_CHECKS: Mapping[ReferenceSource, Callable[[_Checker, _PlacedStep | None, Reference, str], None]] = {
    ReferenceSource.PARAMETER: _Checker.check_parameter,
    ReferenceSource.VARIABLE: _Checker.check_variable,
    ReferenceSource.STEP: _Checker.check_property,
    ReferenceSource.ITEM: _Checker.check_loop_item,
    ReferenceSource.ITERATION: _Checker.check_iteration_output,
    ReferenceSource.EXPERIMENT: _Checker.check_experiment_name,
}


def _locate_expressions(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    try:
        yield from locate_expressions(value)
    except ExpressionError as error:
        raise make_error(where, str(error)) from error


def _check_known(noun: str, name: str, known_names: Any) -> None:
    if name not in known_names:
        raise ExpressionError(f"{noun} {quote(name)} does not exist ({make_name_hint(name, known_names)})")


def _check_order(definition: Definition) -> None:
    try:
        TopologicalSorter(make_graph(definition)).prepare()
    except CycleError as error:
        names = error.args[1][:MAX_LISTED_ITEMS]
        raise make_error("member Steps", f"steps wait for each other: {' -> '.join(names)}") from error
