"""The properties of steps that expressions may read, and their types."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    ExpressionError,
    Path,
    ReferenceSource,
    format_path,
    parse_reference,
)
from microjobs_orchestrator.local.resources.pipelines.definition.messages import make_name_hint
from microjobs_orchestrator.local.resources.pipelines.definition.step_types import STEP_TYPE_FACTS
from microjobs_orchestrator.local.resources.pipelines.definition.values import ParameterType, Step, StepType

PARAMETER_TYPES: Mapping[ParameterType, str] = {
    ParameterType.STRING: "string",
    ParameterType.INTEGER: "integer",
    ParameterType.FLOAT: "float",
    ParameterType.BOOLEAN: "boolean",
}
"""For each type of a parameter, the name of this type in botocore's models."""


def find_property_type(step: Step, path: Path) -> str:
    """Return the type of a step's property, as botocore's models name it; empty if it is not known.

    Raises:
        ExpressionError: the step has no such property.
    """
    first = path[0]
    if first == "PropertyFiles":
        return _find_property_file_type(step, path)
    if first == "OutputParameters":
        return _find_output_type(step, path)
    if step.body and first in ("IterationOutputs", "Selected"):
        return _find_iteration_type(step, path)
    facts = STEP_TYPE_FACTS[step.type]
    if first in facts.additional_properties:
        return "" if len(path) == 1 else _raise_missing(step, path, ())
    shapes: list[Any] = [load_operation_model("sagemaker", name).output_shape for name in facts.describe_operations]
    members = {name: member for shape in shapes for name, member in shape.members.items()}
    if first not in members:
        return _raise_missing(step, path[:1], (*members, *facts.additional_properties))
    return _find_type(step, members[first], path)


def _find_type(step: Step, shape: Any, path: Path) -> str:
    """Return the type of a property. `shape` is the shape of the first part of the path."""
    for position, part in enumerate(path[1:], start=2):
        if shape.type_name == "structure" and part not in shape.members:
            return _raise_missing(step, path[:position], shape.members)
        if shape.type_name not in ("structure", "list", "map"):
            return _raise_missing(step, path[:position], ())
        shape = shape.members[part] if shape.type_name == "structure" else _find_item_shape(shape)
    return str(shape.type_name)


def _find_item_shape(shape: Any) -> Any:
    return shape.member if shape.type_name == "list" else shape.value


def _raise_missing(step: Step, path: Path, known_names: Sequence[str] | Mapping[str, Any]) -> NoReturn:
    name = format_path(path).lstrip(".")
    hint = f" ({make_name_hint(str(path[-1]), known_names)})" if known_names else ""
    raise ExpressionError(f"step {step.name!r} of type {step.type} has no property {name}{hint}")


def _find_property_file_type(step: Step, path: Path) -> str:
    names = [file.name for file in step.property_files]
    if len(path) != 2 or path[1] not in names:
        hint = make_name_hint(str(path[-1]), names)
        raise ExpressionError(f"step {step.name!r} has no property file {str(path[-1])!r} ({hint})")
    return "structure"


def _find_output_type(step: Step, path: Path) -> str:
    types = {output.name: output.type for output in step.output_parameters}
    if len(path) != 2 or path[1] not in types:
        hint = make_name_hint(str(path[-1]), types)
        raise ExpressionError(f"step {step.name!r} has no output parameter {str(path[-1])!r} ({hint})")
    return PARAMETER_TYPES[types[str(path[1])]]


def _find_iteration_type(step: Step, path: Path) -> str:
    """Return the type of `IterationOutputs[0].<step>.<property>` or `Selected.<property>` of a ForEach step."""
    body = {inner.name: inner for inner in step.body}
    if path[0] == "Selected":
        return find_property_type(body[find_compared_step_name(step)], _cut_property_path(step, path, 1))
    if len(path) < 3 or not isinstance(path[1], int) or path[2] not in body:
        name = str(path[2]) if len(path) > 2 else ""
        raise ExpressionError(
            f"step {step.name!r}: an output of an iteration is IterationOutputs[0].<step>.<property> "
            f"({make_name_hint(name, body)})"
        )
    return find_property_type(body[str(path[2])], _cut_property_path(step, path, 3))


def _cut_property_path(step: Step, path: Path, skipped_count: int) -> Path:
    """Return the path without its first `skipped_count` parts, which select the step of a ForEach step's body."""
    if len(path) <= skipped_count:
        raise ExpressionError(f"step {step.name!r}: {format_path(path).lstrip('.')} lacks the name of a property")
    return path[skipped_count:]


def find_compared_step_name(step: Step) -> str:
    """Return the name of the step whose output the Selector of a ForEach step compares.

    Raises:
        ExpressionError: there is no valid Selector.
    """
    selector = step.arguments.get("Selector")
    if selector is None:
        raise ExpressionError(f"step {step.name!r} has no Selector, which the property Selected needs")
    field = selector["Field"]
    reference = parse_reference(field.get("Get") if isinstance(field, dict) else field)
    names = [inner.name for inner in step.body]
    if reference.source is not ReferenceSource.ITERATION or reference.name not in names:
        raise ExpressionError(
            f"Field of the Selector must be IterationOutput.<step>.<property> ({make_name_hint(reference.name, names)})"
        )
    return reference.name


def has_properties(step: Step) -> bool:
    return step.type not in (StepType.FAIL, StepType.CLEANUP)
