"""Declared outputs of Lambda and Callback steps."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.messages import quote
from microjobs_orchestrator.local.resources.pipelines.definition.values import OutputParameter, ParameterType, Step

_TYPES: Mapping[ParameterType, type | tuple[type, ...]] = {
    ParameterType.STRING: str,
    ParameterType.INTEGER: int,
    ParameterType.FLOAT: (int, float),
    ParameterType.BOOLEAN: bool,
}


class OutputError(Exception):
    """A declared output is missing, or has another type."""


def read_outputs(step: Step, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a step's declared outputs, with their types. Other values are ignored, as on AWS.

    Raises:
        OutputError: an output is missing, or has another type.
    """
    return {output.name: _read_output(output, values) for output in step.output_parameters}


def _read_output(output: OutputParameter, values: Mapping[str, Any]) -> Any:
    if output.name not in values:
        raise OutputError(f"the output {output.name} is missing; the result has: {', '.join(values) or 'nothing'}")
    value = _convert(output.type, values[output.name])
    is_unexpected_boolean = isinstance(value, bool) and output.type is not ParameterType.BOOLEAN
    is_not_finite = isinstance(value, float) and not isfinite(value)
    if is_unexpected_boolean or is_not_finite or not isinstance(value, _TYPES[output.type]):
        raise OutputError(f"the output {output.name} must be of type {output.type}, not {quote(values[output.name])}")
    return value


def _convert(parameter_type: ParameterType, value: Any) -> Any:
    """Convert a value to its declared type if possible.

    For types other than String, text is parsed as JSON; text that is not JSON stays unchanged.
    """
    if parameter_type is ParameterType.STRING:
        return value if isinstance(value, str) else json.dumps(value)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.lower() if parameter_type is ParameterType.BOOLEAN else value)
    except (ValueError, RecursionError):
        return value


def describe_outputs(outputs: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return outputs in the form of a step's metadata."""
    return [
        {"Name": name, "Value": value if isinstance(value, str) else json.dumps(value)}
        for name, value in outputs.items()
    ]
