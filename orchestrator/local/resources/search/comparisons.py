"""The operators of filters. Each filter is converted to a function that takes the values of a property.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Filter.html
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.search.properties import Property, ValueType

Test = Callable[[Sequence[Any]], bool]
"""A function that takes all values that a resource has for a property, and returns whether they match a filter. The
sequence of values is empty if the resource does not have the property."""

NUMBER_PATTERN = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
TIME_PATTERN = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?"
)
BOOLEANS = {"true": True, "false": False}

_ORDER_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {"Equals": operator.eq, **_ORDER_OPERATORS}
_EQUALITY_OPERATORS = ("Equals", "NotEquals")
_TEXT_OPERATORS = ("Contains", "In")

OPERATORS: Mapping[ValueType, Sequence[str]] = {
    ValueType.TEXT: (*_EQUALITY_OPERATORS, *_TEXT_OPERATORS),
    ValueType.NUMBER: (*_EQUALITY_OPERATORS, *_ORDER_OPERATORS),
    ValueType.TIME: (*_EQUALITY_OPERATORS, *_ORDER_OPERATORS),
    ValueType.BOOLEAN: _EQUALITY_OPERATORS,
    ValueType.TEXT_OR_NUMBER: (*_EQUALITY_OPERATORS, *_TEXT_OPERATORS, *_ORDER_OPERATORS),
    ValueType.STRUCTURE: (),
}
"""The operators that need a Value, by the type of the property. `Exists` and `NotExists` work with all types."""


def make_test(filter_property: Property, operator_name: str, value: str | None) -> Test:
    """Return the test of a filter.

    Args:
        value: the filter's Value; None if the filter has none.

    Raises:
        ValidationError: the operator or the value does not suit the type of the property.
    """
    if operator_name in ("Exists", "NotExists"):
        if value is not None:
            raise ValidationError(
                f"Filter {filter_property.name!r}: remove Value {value!r}, which {operator_name} does not use."
            )
        return _has_values if operator_name == "Exists" else _has_no_values
    operators = OPERATORS[filter_property.type]
    if operator_name not in operators:
        supported = ", ".join((*operators, "Exists", "NotExists"))
        raise ValidationError(
            f"Filter {filter_property.name!r}: the property is {filter_property.type.value}, which {operator_name} "
            f"does not support; use {supported}."
        )
    if value is None:
        raise ValidationError(f"Filter {filter_property.name!r}: {operator_name} needs a Value.")
    return _make_value_test(filter_property, operator_name, value)


def _make_value_test(filter_property: Property, operator_name: str, value: str) -> Test:
    if operator_name == "NotEquals":
        equals = _make_value_test(filter_property, "Equals", value)
        return lambda values: not equals(values)
    if operator_name == "Contains":
        return lambda values: any(value in item for item in values)
    if operator_name == "In":
        texts = {text.strip() for text in value.split(",")}
        return lambda values: any(item in texts for item in values)
    compare = _COMPARISONS[operator_name]
    convert, expected_value = _make_converter(filter_property, value, must_be_number=operator_name in _ORDER_OPERATORS)
    return lambda values: any(
        (converted := convert(item)) is not None and compare(converted, expected_value) for item in values
    )


def _make_converter(filter_property: Property, value: str, *, must_be_number: bool) -> tuple[Callable[[Any], Any], Any]:
    """Return a function that converts a property's value for the comparison, and the converted value of the filter.

    The function returns None for a value that cannot be compared with the filter's value.
    """
    match filter_property.type:
        case ValueType.NUMBER:
            return _keep, _parse_number(filter_property, value)
        case ValueType.TIME:
            # If the filter's time has no fraction, ignore the fractions of the resources' times.
            return (_keep if "." in value else math.floor), _parse_time(filter_property, value)
        case ValueType.BOOLEAN:
            return _keep, _parse_boolean(filter_property, value)
        case ValueType.TEXT_OR_NUMBER if must_be_number or read_number(value) is not None:
            is_integer = value.lstrip("+-").isdigit()
            return (_read_whole_number if is_integer else read_number), _parse_number(filter_property, value)
    return _keep, value


def _has_values(values: Sequence[Any]) -> bool:
    return len(values) > 0


def _has_no_values(values: Sequence[Any]) -> bool:
    return len(values) == 0


def _keep(value: Any) -> Any:
    return value


def read_number(value: str) -> float | None:
    """Return the number in a text; None if the text is not a number."""
    return float(value) if NUMBER_PATTERN.fullmatch(value) else None


def _read_whole_number(value: str) -> float | None:
    """Return the number in a text without its decimals. AWS ignores the decimals if the filter's value is a whole
    number."""
    number = read_number(value)
    return number if number is None or math.isinf(number) else math.trunc(number)


def _parse_number(filter_property: Property, value: str) -> float:
    number = read_number(value)
    if number is None:
        raise ValidationError(f"Filter {filter_property.name!r}: Value {value!r} must be a number such as 10 or 0.5.")
    return number


def _parse_time(filter_property: Property, value: str) -> float:
    """Return seconds since 1970."""
    try:
        if TIME_PATTERN.fullmatch(value):
            time = datetime.fromisoformat(value)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except ValueError:  # the text may have an invalid number, such as month 13
        pass
    raise ValidationError(
        f"Filter {filter_property.name!r}: Value {value!r} must be a time such as 2026-01-31T12:00:00."
    )


def _parse_boolean(filter_property: Property, value: str) -> bool:
    if value.lower() not in BOOLEANS:
        raise ValidationError(f"Filter {filter_property.name!r}: Value {value!r} must be true or false.")
    return BOOLEANS[value.lower()]
