"""Typed hyperparameters: declared once as a dataclass, checked before any data is read.

A job declares them in its own `hyperparameters.py` with `parameter(...)`; the entry point loads them from
hyperparameters.json, `--help` prints them and the image carries them as a label.
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

_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})


def parameter(
    default: object,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare one hyperparameter: its default, one line of help, and the values it may take.

    `minimum` and `maximum` are inclusive, `above` is an exclusive lower bound; `choices` are for text.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def is_platform(name: str) -> bool:
    """Whether SageMaker or an SDK put this hyperparameter there for itself."""
    return name.startswith(PLATFORM_PREFIX) or name in PLATFORM_NAMES


def load(declared: type[T], values: Mapping[str, str]) -> T:
    """Check the strings of hyperparameters.json against their declaration.

    Raises:
        UserError: names every value that is unknown or malformed, why, and the nearest known name.
    """
    parameters = {item["name"]: item for item in describe(declared)}
    problems, checked = [], {}
    for name, text in values.items():
        if is_platform(name):
            continue
        if name not in parameters:
            problems.append(f"{name!r} (value {text!r}) is unknown: {_nearest(name, parameters)}")
            continue
        try:
            checked[name] = parse_value(parameters[name], text)
        except OverflowError:
            problems.append(f"{name} = {text!r} is too large")
        except ValueError as error:
            problems.append(f"{name} = {text!r} {error}")
    if problems:
        raise UserError("hyperparameters: " + "; ".join(problems))
    return declared(**checked)


def describe(declared: type[Any]) -> list[dict[str, Any]]:
    """The declaration as plain values, for `--help`, the image's label and the launcher."""
    types = typing.get_type_hints(declared)
    return [
        {"name": field.name, "type": types[field.name].__name__, "default": field.default}
        | {key: value for key, value in field.metadata.items() if value is not None}
        for field in dataclasses.fields(declared)
    ]


def help_text(declared: type[Any]) -> str:
    """One line a hyperparameter: name, type, default, range, meaning."""
    rows = [
        (item["name"], f"{item['type']}, default {item['default']}{_range(item)}", item["help"])
        for item in describe(declared)
    ]
    name_width = max(len(name) for name, _, _ in rows)
    kind_width = max(len(kind) for _, kind, _ in rows)
    lines = [f"  {name:<{name_width}}  {kind:<{kind_width}}  {meaning}" for name, kind, meaning in rows]
    return "\n".join(["hyperparameters:", *lines])


def _range(item: Mapping[str, Any]) -> str:
    if "choices" in item:
        return ", one of " + " ".join(item["choices"])
    bounds = [
        f" {sign} {item[key]:g}" for key, sign in (("minimum", ">="), ("above", ">"), ("maximum", "<=")) if key in item
    ]
    return "," + " and".join(bounds) if bounds else ""


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def parse_value(item: Mapping[str, Any], text: str) -> object:
    """Parse the value of a declared parameter.

    Args:
        item: the parameter, as `describe` returns it.

    Raises:
        ValueError: the value has the wrong type, or is outside of the declared range.
    """
    value = _convert(item["type"], text)
    if isinstance(value, int | float):
        if "minimum" in item and value < item["minimum"]:
            raise ValueError(f"is below the minimum of {item['minimum']:g}")
        if "above" in item and value <= item["above"]:
            raise ValueError(f"must be above {item['above']:g}")
        if "maximum" in item and value > item["maximum"]:
            raise ValueError(f"is above the maximum of {item['maximum']:g}")
    if "choices" in item and value not in item["choices"]:
        close = difflib.get_close_matches(str(value), item["choices"], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"is not one of {', '.join(item['choices'])}{hint}")
    return value


def _convert(kind: str, text: str) -> bool | int | float | str:
    value = decode_hyperparameter(text)
    if kind == "str":
        return value if isinstance(value, str) else text
    if kind == "bool":
        return _boolean(value)
    # A number may come as JSON text in JSON text ("\"0.1\""): some tuners encode a categorical value twice.
    number = decode_hyperparameter(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"is not {'a whole number' if kind == 'int' else 'a finite number'}")
    if kind == "float":
        return float(number)
    if number != int(number):
        raise ValueError("is not a whole number")
    return int(number)


def _boolean(value: object) -> bool:
    word = str(value).lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("is neither true nor false")
    return word in _TRUE
