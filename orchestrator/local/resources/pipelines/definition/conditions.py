"""Conditions of Condition steps."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    ExpressionError,
    Scope,
    is_expression,
    resolve,
)
from microjobs_orchestrator.local.resources.pipelines.definition.messages import get_type_name, make_name_hint, quote

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
_COMPARISON_MEMBERS = ("LeftValue", "RightValue")
CONDITION_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "Equals": _COMPARISON_MEMBERS,
    **dict.fromkeys(OPERATORS, _COMPARISON_MEMBERS),
    "In": ("QueryValue", "Values"),
    "Not": ("Condition",),
    "Or": ("Conditions",),
}
"""The members of each type of condition, in addition to Type. All are required."""


def check_condition(condition: Any) -> None:
    """Check the form of a condition, and of all conditions in it.

    Raises:
        ExpressionError: a member is unknown, missing or invalid.
    """
    if not isinstance(condition, dict):
        raise ExpressionError(f"a condition must be an object, not {get_type_name(condition)}")
    _check_members(condition)
    if condition["Type"] == "Not":
        check_condition(condition["Condition"])
    for member in {"Values", "Conditions"} & condition.keys():
        if not isinstance(condition[member], list):
            raise ExpressionError(f"member {member} of a condition must be an array")
    for inner in condition.get("Conditions", ()):
        check_condition(inner)
    _check_values(condition)


def _check_values(condition: Mapping[str, Any]) -> None:
    values = [condition[member] for member in (*_COMPARISON_MEMBERS, "QueryValue") if member in condition]
    for value in (*values, *condition.get("Values", ())):
        if not isinstance(value, str | int | float) and not is_expression(value):
            raise ExpressionError(f"a condition compares single values, not {get_type_name(value)}: {quote(value)}")


def _check_members(condition: Mapping[str, Any]) -> None:
    condition_type = condition.get("Type")
    if not isinstance(condition_type, str) or condition_type not in CONDITION_MEMBERS:
        hint = make_name_hint(str(condition_type), CONDITION_MEMBERS)
        raise ExpressionError(f"condition type {quote(condition_type)} does not exist ({hint})")
    expected_members = {"Type", *CONDITION_MEMBERS[condition_type]}
    for name in condition:
        if name not in expected_members:
            hint = make_name_hint(name, sorted(expected_members))
            raise ExpressionError(f"condition {condition_type} has no member {quote(name)} ({hint})")
    for name in CONDITION_MEMBERS[condition_type]:
        if name not in condition:
            raise ExpressionError(f"condition {condition_type} lacks the member {name}")


def evaluate(condition: Mapping[str, Any], scope: Scope) -> bool:
    """Return whether a condition holds.

    Integers and floats are compared as numbers. Values of different types are not equal.

    Raises:
        ExpressionError: a value does not exist, or the values cannot be compared.
    """
    match condition["Type"]:
        case "Not":
            return not evaluate(condition["Condition"], scope)
        case "Or":
            return any(evaluate(inner, scope) for inner in condition["Conditions"])
        case "In":
            value = resolve(condition["QueryValue"], scope)
            return any(_are_equal(value, resolve(item, scope)) for item in condition["Values"])
    left, right = (resolve(condition[member], scope) for member in _COMPARISON_MEMBERS)
    return _are_equal(left, right) if condition["Type"] == "Equals" else _compare(condition["Type"], left, right)


def evaluate_all(conditions: list[Mapping[str, Any]], scope: Scope) -> bool:
    """Return whether all conditions of a Condition step hold."""
    return all(evaluate(condition, scope) for condition in conditions)


def _are_equal(left: Any, right: Any) -> bool:
    return _find_comparison_type(left) is _find_comparison_type(right) and bool(left == right)


def _find_comparison_type(value: Any) -> type:
    """Return the type that a value has in comparisons: float for all numbers."""
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _compare(condition_type: str, left: Any, right: Any) -> bool:
    comparison_type = _find_comparison_type(left)
    if comparison_type not in (float, str) or comparison_type is not _find_comparison_type(right):
        raise ExpressionError(
            f"{condition_type} compares two numbers or two Strings, not {quote(left)} and {quote(right)}"
        )
    return OPERATORS[condition_type](left, right)
