"""Checks of how the parts of a definition fit together: names, references, order and arguments of steps."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.parity.rows import list_refusals
from microjobs_orchestrator.local.parity.table import TABLE
from microjobs_orchestrator.local.protocols.models import operation_model
from microjobs_orchestrator.local.protocols.validation import list_violations
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    ExpressionError,
    Reference,
    Source,
    find_references,
    is_expression,
    locate_expressions,
)
from microjobs_orchestrator.local.resources.pipelines.definition.graph import make_graph
from microjobs_orchestrator.local.resources.pipelines.definition.messages import describe_names, make_error, quote
from microjobs_orchestrator.local.resources.pipelines.definition.parse import parse_definition
from microjobs_orchestrator.local.resources.pipelines.definition.properties import (
    PARAMETER_TYPES,
    find_property_type,
    find_selected,
    has_properties,
)
from microjobs_orchestrator.local.resources.pipelines.definition.step_types import FACTS
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

MAX_REPORTED = 10
"""Maximum number of violated constraints that an error message lists."""


def read_definition(text: str) -> Definition:
    """Parse a definition, and check it completely.

    Raises:
        ValidationError: the definition is invalid. The message names the step, the member and the nearest known name.
    """
    definition = parse_definition(text)
    check_definition(definition)
    return definition


def check_definition(definition: Definition) -> None:
    """Check a parsed definition. Raise ValidationError if an execution of it could not succeed."""
    checker = _Checker(definition, _list_places(definition))
    checker.check_names()
    checker.check_experiment()
    for place in checker.places.values():
        checker.check_step(place)
    _check_order(definition)
    for place in checker.places.values():
        checker.check_arguments(place.step)


@dataclass(frozen=True)
class _Place:
    """A step, and the ForEach step that contains it."""

    step: Step
    loop: Step | None


def _list_places(definition: Definition) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for step in definition.steps:
        for place in _walk(step, None):
            if place.step.name in places:
                raise make_error(f"step {quote(place.step.name)}", "another step has the same name")
            places[place.step.name] = place
    _check_iteration_names(places)
    return places


def _check_iteration_names(places: Mapping[str, _Place]) -> None:
    """Check that no step has the name of an iteration: `<step>-0` for the first item of the loop around a step."""
    for name in places:
        prefix, _, number = name.rpartition("-")
        if number.isdigit() and prefix in places and places[prefix].loop is not None:
            raise make_error(f"step {quote(name)}", f"an iteration of the step {quote(prefix)} has the same name")


def _walk(step: Step, loop: Step | None) -> Iterator[_Place]:
    yield _Place(step, loop)
    for inner in step.contained:
        yield from _walk(inner, step if step.body else loop)


@dataclass(frozen=True)
class _Checker:
    definition: Definition
    places: Mapping[str, _Place]

    # --- names and references ---

    def check_names(self) -> None:
        names = [parameter.name for parameter in self.definition.parameters]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise make_error(f"parameter {quote(name)}", "another parameter has the same name")

    def check_experiment(self) -> None:
        parts = {"PipelineExperimentConfig": self.definition.experiment, "MlflowConfig": self.definition.mlflow}
        for name, part in parts.items():
            for path, expression in _locate(part, name):
                self._check_expression(None, path, expression)

    def check_step(self, place: _Place) -> None:
        """Check the names and the expressions of a step."""
        step, where = place.step, f"step {quote(place.step.name)}"
        for index, dependency in enumerate(step.depends_on):
            self._check_dependency(place, dependency.step, f"{where}, member DependsOn[{index}]")
        for path, expression in _locate({"Arguments": step.arguments, "Target": step.target}, where):
            if path == "Arguments":
                raise make_error(f"{where}, member Arguments", "expected an object, found an expression")
            self._check_expression(place, f"{where}, member {path}", expression)
        self._check_outputs(step, where)
        if step.type is StepType.CLEANUP:
            for index, source in enumerate(step.arguments["Resources"]["S3"]):
                member = f"{where}, member Arguments.Resources.S3[{index}].StepName"
                self._check_dependency(place, source["StepName"], member)

    def _check_dependency(self, place: _Place, name: str, where: str) -> None:
        """Check that a step exists, and that it is in no loop, or in the same loop as the step `place`."""
        other = self.places.get(name)
        if other is None:
            raise make_error(where, f"step {quote(name)} does not exist ({describe_names(name, self.places)})")
        if other.loop is not None and other.loop is not place.loop:
            raise make_error(
                where, f"step {quote(name)} is in the body of {other.loop.name}: refer to {other.loop.name} instead"
            )

    def _check_expression(self, place: _Place | None, where: str, expression: Any) -> None:
        try:
            for reference in find_references(expression):
                _CHECKS[reference.source](self, place, reference, where)
        except ExpressionError as error:
            raise make_error(where, str(error)) from error

    def check_parameter(self, _place: _Place | None, reference: Reference, _where: str) -> None:
        names = [parameter.name for parameter in self.definition.parameters]
        _check_known("parameter", reference.name, names)

    def check_variable(self, _place: _Place | None, reference: Reference, _where: str) -> None:
        _check_known("variable", reference.name, VARIABLES)

    def check_property(self, place: _Place | None, reference: Reference, where: str) -> None:
        if place is None:
            raise ExpressionError("a step has no values before the execution starts")
        self._check_dependency(place, reference.name, where)
        step = self.places[reference.name].step
        if not has_properties(step):
            raise ExpressionError(f"step {step.name!r} of type {step.type} has no properties")
        find_property_type(step, reference.path)

    def check_item(self, place: _Place | None, reference: Reference, _where: str) -> None:
        if place is None or place.loop is None:
            raise ExpressionError(f"{reference} is allowed only in the body of a ForEach step")

    def check_iteration(self, place: _Place | None, reference: Reference, _where: str) -> None:
        if place is None or not place.step.body:
            raise ExpressionError(f"{reference} is allowed only in the Selector of a ForEach step")
        find_property_type(self.places[find_selected(place.step)].step, reference.path)

    def check_experiment_name(self, _place: _Place | None, reference: Reference, _where: str) -> None:
        _check_known("member of PipelineExperimentConfig", reference.name, list(self.definition.experiment or ()))

    def _check_outputs(self, step: Step, where: str) -> None:
        """Check that each property file is in an output of the step."""
        outputs = step.arguments.get("ProcessingOutputConfig", {})
        items = outputs.get("Outputs", []) if isinstance(outputs, dict) else []
        names = [item.get("OutputName") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        known = [name for name in names if isinstance(name, str)]
        for index, file in enumerate(step.property_files):
            if file.output_name not in known and len(known) == len(names):
                place = f"{where}, member PropertyFiles[{index}].OutputName"
                problem = f"output {quote(file.output_name)} does not exist ({describe_names(file.output_name, known)})"
                raise make_error(place, problem)

    # --- arguments ---

    def check_arguments(self, step: Step) -> None:
        """Check the arguments of a step as a request. Of expressions, only the types are checked."""
        facts = FACTS[step.type]
        if not facts.create:
            return
        members = {facts.name_member: Deferred("the name", "string"), **self._defer(step.arguments)}
        try:
            problems = list_violations(operation_model("sagemaker", facts.create), members)
        except ServiceError as error:
            problems = [error.message]
        rows = TABLE["sagemaker"].get(facts.create)
        if rows is not None and not problems:
            problems = list(list_refusals(rows, members))
        if problems:
            more = f"; and {len(problems) - MAX_REPORTED} more" if len(problems) > MAX_REPORTED else ""
            text = "; ".join(problems[:MAX_REPORTED])
            raise make_error(f"step {quote(step.name)}, member Arguments", f"{facts.create}: {text}{more}")

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
        if reference.source is Source.PARAMETER:
            types = {parameter.name: PARAMETER_TYPES[parameter.type] for parameter in self.definition.parameters}
            return types[reference.name]
        if reference.source is Source.STEP:
            return find_property_type(self.places[reference.name].step, reference.path)
        return "string" if reference.source in (Source.VARIABLE, Source.EXPERIMENT) else ""


_CHECKS: Mapping[Source, Callable[[_Checker, _Place | None, Reference, str], None]] = {
    Source.PARAMETER: _Checker.check_parameter,
    Source.VARIABLE: _Checker.check_variable,
    Source.STEP: _Checker.check_property,
    Source.ITEM: _Checker.check_item,
    Source.ITERATION: _Checker.check_iteration,
    Source.EXPERIMENT: _Checker.check_experiment_name,
}


def _locate(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    try:
        yield from locate_expressions(value)
    except ExpressionError as error:
        raise make_error(where, str(error)) from error


def _check_known(noun: str, name: str, known: Any) -> None:
    if name not in known:
        raise ExpressionError(f"{noun} {quote(name)} does not exist ({describe_names(name, known)})")


def _check_order(definition: Definition) -> None:
    try:
        TopologicalSorter(make_graph(definition)).prepare()
    except CycleError as error:
        names = error.args[1][:MAX_REPORTED]
        raise make_error("member Steps", f"steps wait for each other: {' -> '.join(names)}") from error
