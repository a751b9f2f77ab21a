"""Parameters of pipelines, and their values in an execution."""

import json
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any, TypeGuard

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.pipelines.definition.messages import (
    get_type_name,
    make_error,
    make_name_hint,
    quote,
)
from microjobs_orchestrator.local.resources.pipelines.definition.structures import Structure
from microjobs_orchestrator.local.resources.pipelines.definition.values import (
    Definition,
    Parameter,
    ParameterType,
    Scalar,
)

_PYTHON_TYPES: Mapping[ParameterType, tuple[type, ...]] = {
    ParameterType.STRING: (str,),
    ParameterType.INTEGER: (int,),
    ParameterType.FLOAT: (int, float),
    ParameterType.BOOLEAN: (bool,),
}


def parse_parameter(value: Any, place: str) -> Parameter:
    """Parse an entry of Parameters. Raise ValidationError if it is not valid."""
    if isinstance(value, dict) and isinstance(value.get("Name"), str):
        place = f"parameter {quote(value['Name'])}"
    members = ("Name", "Type", "DefaultValue", "EnumValues", "Description")
    entry = Structure(value, place, members, required_members=("Name",))
    entry.read_text("Description")
    parameter_type = entry.read_choice("Type", ParameterType) if entry.has("Type") else ParameterType.STRING
    choices, default = tuple(entry.read_list("EnumValues")), entry.members.get("DefaultValue")
    for choice in choices:
        _check_type(choice, parameter_type, entry.locate_member("EnumValues"))
    if default is not None:
        _check_type(default, parameter_type, entry.locate_member("DefaultValue"))
        if choices and default not in choices:
            raise make_error(entry.locate_member("DefaultValue"), _describe_choices(default, choices))
    return Parameter(entry.read_name("Name"), parameter_type, default, choices)


def _check_type(value: Any, parameter_type: ParameterType, place: str) -> None:
    if not _has_type(value, parameter_type):
        raise make_error(
            place, f"expected a value of type {parameter_type}, found {get_type_name(value)}: {quote(value)}"
        )


def _has_type(value: Any, parameter_type: ParameterType) -> TypeGuard[Scalar]:
    is_unexpected_boolean = isinstance(value, bool) and parameter_type is not ParameterType.BOOLEAN
    is_not_finite = isinstance(value, float) and not isfinite(value)
    return isinstance(value, _PYTHON_TYPES[parameter_type]) and not is_unexpected_boolean and not is_not_finite


def _describe_choices(value: Scalar, choices: tuple[Scalar, ...]) -> str:
    hint = make_name_hint(str(value), map(str, choices))
    return f"{quote(value)} is not one of EnumValues ({hint})"


def bind_parameters(definition: Definition, values: Mapping[str, str]) -> dict[str, Scalar]:
    """Return the value of each parameter in an execution, with its type.

    Args:
        values: the parameters of StartPipelineExecution, by name.

    Raises:
        ValidationError: a parameter is unknown, has no value, or has a value of another type or outside of EnumValues.
    """
    parameters = {parameter.name: parameter for parameter in definition.parameters}
    for name in values:
        if name not in parameters:
            raise ValidationError(
                f"Parameter {quote(name)} is not defined in the pipeline ({make_name_hint(name, parameters)})"
            )
    return {name: _bind(parameter, values.get(name)) for name, parameter in parameters.items()}


def _bind(parameter: Parameter, text: str | None) -> Scalar:
    if text is None:
        if parameter.default is None:
            raise ValidationError(f"Parameter {parameter.name} has no default value: set it in PipelineParameters.")
        return parameter.default
    value = _convert(parameter, text)
    if parameter.enum_values and value not in parameter.enum_values:
        raise ValidationError(f"Parameter {parameter.name}: {_describe_choices(value, parameter.enum_values)}")
    return value


def _convert(parameter: Parameter, text: str) -> Scalar:
    """Convert the text of a value in a request to the type of the parameter. Requests contain all values as text."""
    if parameter.type is ParameterType.STRING:
        return text
    value: Any = None
    with suppress(ValueError, RecursionError):
        value = json.loads(text.lower() if parameter.type is ParameterType.BOOLEAN else text, parse_constant=str)
    if _has_type(value, parameter.type):
        return value
    raise ValidationError(f"Parameter {parameter.name}: expected a value of type {parameter.type}, found {quote(text)}")
