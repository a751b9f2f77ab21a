"""Typed hyperparameters: a job declares them once as a dataclass, and they are checked before data are read.

The fields of the dataclass use `parameter(...)`. The entry point loads the values from hyperparameters.json. `--help`
prints the declaration, and a label of the image contains it.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from microjobs.contract import decode_hyperparameter
from microjobs.errors import UserError

T = TypeVar("T")

PLATFORM_PREFIX = "sagemaker_"
# `model_dir` is an S3 address that SDK v2's TensorFlow estimator always adds.
PLATFORM_NAMES = frozenset({"_tuning_objective_metric", "model_dir"})

BOOLEANS_BY_TEXT = {"true": True, "1": True, "false": False, "0": False}


def parameter(
    default: object,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare one hyperparameter.

    Args:
        help: one line for `--help`.
        minimum, maximum: inclusive bounds.
        above: exclusive lower bound.
        choices: the valid values of a string parameter.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def load(declaration: type[T], values: Mapping[str, str]) -> T:
    """Parse the strings of hyperparameters.json. Skip hyperparameters that SageMaker or an SDK adds for itself.

    Raises:
        UserError: lists all unknown names and invalid values, with the reasons and similar names.
    """
    parameters = {item["name"]: item for item in describe(declaration)}
    problems, parsed_values = [], {}
    for name, text in values.items():
        if name.startswith(PLATFORM_PREFIX) or name in PLATFORM_NAMES:
            continue
        if name not in parameters:
            hint = _suggest(name, parameters) or f"valid names: {', '.join(parameters)}"
            problems.append(f"{name!r} (value {text!r}) is unknown: {hint}")
            continue
        try:
            parsed_values[name] = parse_value(parameters[name], text)
        except OverflowError:
            problems.append(f"{name} = {text!r} is too large")
        except ValueError as error:
            problems.append(f"{name} = {text!r} {error}")
    if problems:
        raise UserError("hyperparameters: " + "; ".join(problems))
    return declaration(**parsed_values)


def describe(declaration: type[Any]) -> list[dict[str, Any]]:
    """Return one mapping of JSON values per hyperparameter, for `--help`, the image's label and the orchestrator."""
    types = typing.get_type_hints(declaration)
    return [
        {"name": field.name, "type": types[field.name].__name__, "default": field.default}
        | {key: value for key, value in field.metadata.items() if value is not None}
        for field in dataclasses.fields(declaration)
    ]


def format_help(declaration: type[Any]) -> str:
    """Return one line per hyperparameter: name, type, default, range, meaning."""
    rows = [
        (item["name"], f"{item['type']}, default {item['default']}{_format_range(item)}", item["help"])
        for item in describe(declaration)
    ]
    name_width, type_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"  {name:<{name_width}}  {type_:<{type_width}}  {meaning}" for name, type_, meaning in rows]
    return "\n".join(["hyperparameters:", *lines])


def _format_range(spec: Mapping[str, Any]) -> str:
    if "choices" in spec:
        return ", one of " + " ".join(spec["choices"])
    signs = {"minimum": ">=", "above": ">", "maximum": "<="}
    bounds = [f" {sign} {spec[key]:g}" for key, sign in signs.items() if key in spec]
    return "," + " and".join(bounds) if bounds else ""


def _suggest(text: str, valid_texts: Mapping[str, Any] | tuple[str, ...]) -> str:
    matches = difflib.get_close_matches(text, valid_texts, n=1)
    return f"did you mean {matches[0]!r}?" if matches else ""


def parse_value(spec: Mapping[str, Any], text: str) -> object:
    """Parse the value of a declared parameter.

    Args:
        spec: the declaration of the parameter, as `describe` returns it.

    Raises:
        ValueError: the value has the wrong type, or is outside of the declared range.
        OverflowError: the number is too large for a float.
    """
    value = _convert(spec["type"], text)
    if isinstance(value, int | float):
        if "minimum" in spec and value < spec["minimum"]:
            raise ValueError(f"is below the minimum of {spec['minimum']:g}")
        if "above" in spec and value <= spec["above"]:
            raise ValueError(f"must be above {spec['above']:g}")
        if "maximum" in spec and value > spec["maximum"]:
            raise ValueError(f"is above the maximum of {spec['maximum']:g}")
    if "choices" in spec and value not in spec["choices"]:
        hint = _suggest(str(value), spec["choices"])
        raise ValueError(f"is not one of {', '.join(spec['choices'])}{hint and f'; {hint}'}")
    return value


def _convert(type_name: str, text: str) -> bool | int | float | str:
    value = decode_hyperparameter(text)
    if type_name == "str":
        return value if isinstance(value, str) else text
    if type_name == "bool":
        if (word := str(value).lower()) not in BOOLEANS_BY_TEXT:
            raise ValueError("is neither true nor false")
        return BOOLEANS_BY_TEXT[word]
    # Some tuners encode categorical values twice, so a number may be a JSON string, such as "\"0.1\"".
    number = decode_hyperparameter(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"is not {'a whole number' if type_name == 'int' else 'a finite number'}")
    if type_name == "float":
        return float(number)
    if number != int(number):
        raise ValueError("is not a whole number")
    return int(number)
