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
from microjobs_orchestrator.local.resources.pipelines.definition.messages import describe_names, name_type, quote

ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
_COMPARISON = ("LeftValue", "RightValue")
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "Equals": _COMPARISON,
    **dict.fromkeys(ORDERS, _COMPARISON),
    "In": ("QueryValue", "Values"),
    "Not": ("Condition",),
    "Or": ("Conditions",),
}
"""The members of each type of condition, in addition to Type. All are required."""


def check(condition: Any) -> None:
    """Check the form of a condition, and of all conditions in it.

    Raises:
        ExpressionError: a member is unknown, missing or invalid.
    """
    if not isinstance(condition, dict):
        raise ExpressionError(f"a condition must be an object, not {name_type(condition)}")
    _check_members(condition)
    if condition["Type"] == "Not":
        check(condition["Condition"])
    for member in {"Values", "Conditions"} & condition.keys():
        if not isinstance(condition[member], list):
            raise ExpressionError(f"member {member} of a condition must be an array")
    for inner in condition.get("Conditions", ()):
        check(inner)
    _check_values(condition)


def _check_values(condition: Mapping[str, Any]) -> None:
    values = [condition[member] for member in (*_COMPARISON, "QueryValue") if member in condition]
    for value in (*values, *condition.get("Values", ())):
        if not isinstance(value, str | int | float) and not is_expression(value):
            raise ExpressionError(f"a condition compares single values, not {name_type(value)}: {quote(value)}")


def _check_members(condition: Mapping[str, Any]) -> None:
    kind = condition.get("Type")
    if not isinstance(kind, str) or kind not in MEMBERS:
        raise ExpressionError(f"condition type {quote(kind)} does not exist ({describe_names(str(kind), MEMBERS)})")
    expected = {"Type", *MEMBERS[kind]}
    for name in condition:
        if name not in expected:
            hint = describe_names(name, sorted(expected))
            raise ExpressionError(f"condition {kind} has no member {quote(name)} ({hint})")
    for name in MEMBERS[kind]:
        if name not in condition:
            raise ExpressionError(f"condition {kind} lacks the member {name}")


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
    left, right = (resolve(condition[member], scope) for member in _COMPARISON)
    return _are_equal(left, right) if condition["Type"] == "Equals" else _compare(condition["Type"], left, right)


def evaluate_all(conditions: list[Mapping[str, Any]], scope: Scope) -> bool:
    """Return whether all conditions of a Condition step hold."""
    return all(evaluate(condition, scope) for condition in conditions)


def _are_equal(left: Any, right: Any) -> bool:
    return _find_order(left) is _find_order(right) and bool(left == right)


def _find_order(value: Any) -> type:
    """Return the type that a value has in comparisons: float for all numbers."""
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _compare(kind: str, left: Any, right: Any) -> bool:
    order = _find_order(left)
    if order not in (float, str) or order is not _find_order(right):
        raise ExpressionError(f"{kind} compares two numbers or two Strings, not {quote(left)} and {quote(right)}")
    return ORDERS[kind](left, right)
