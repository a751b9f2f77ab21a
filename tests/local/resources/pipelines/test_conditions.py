"""Conditions: their outcomes and their errors."""

from typing import Any

import pytest

from microjobs_orchestrator.local.resources.pipelines.definition.conditions import check_condition, evaluate
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError
from tests.local.resources.pipelines.scopes import FakeScope

SCOPE = FakeScope(parameters={"loss": 0.5, "limit": 1, "name": "b", "on": True})


def make_comparison(condition_type: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": condition_type, "LeftValue": left, "RightValue": right}


def make_parameter_get(name: str) -> dict[str, Any]:
    """Return a Get expression that stands for a parameter."""
    return {"Get": f"Parameters.{name}"}


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        (make_comparison("Equals", make_parameter_get("limit"), 1.0), True),
        (make_comparison("Equals", make_parameter_get("name"), "b"), True),
        (make_comparison("Equals", make_parameter_get("name"), "c"), False),
        (make_comparison("Equals", make_parameter_get("on"), True), True),
        (make_comparison("Equals", make_parameter_get("on"), 1), False),
        (make_comparison("Equals", make_parameter_get("limit"), "1"), False),
        (make_comparison("GreaterThan", make_parameter_get("loss"), make_parameter_get("limit")), False),
        (make_comparison("GreaterThan", 2, make_parameter_get("limit")), True),
        (make_comparison("GreaterThanOrEqualTo", 1, make_parameter_get("limit")), True),
        (make_comparison("LessThan", make_parameter_get("loss"), make_parameter_get("limit")), True),
        (make_comparison("LessThan", 1, make_parameter_get("limit")), False),
        (make_comparison("LessThanOrEqualTo", 1, make_parameter_get("limit")), True),
        (make_comparison("LessThan", "a", make_parameter_get("name")), True),
        ({"Type": "In", "QueryValue": make_parameter_get("name"), "Values": ["a", make_parameter_get("name")]}, True),
        ({"Type": "In", "QueryValue": make_parameter_get("on"), "Values": [1, "true"]}, False),
        ({"Type": "Not", "Condition": make_comparison("Equals", 1, 1)}, False),
        ({"Type": "Or", "Conditions": [make_comparison("Equals", 1, 2), make_comparison("Equals", 1, 1)]}, True),
        ({"Type": "Or", "Conditions": []}, False),
    ],
)
def test_condition_has_an_outcome(condition: dict[str, Any], outcome: bool) -> None:
    check_condition(condition)
    assert evaluate(condition, SCOPE) is outcome


@pytest.mark.parametrize(
    ("left", "right"), [(make_parameter_get("on"), 1), ("a", 1), (make_parameter_get("name"), 0.5)]
)
def test_values_without_order_are_refused(left: Any, right: Any) -> None:
    with pytest.raises(ExpressionError, match="LessThan compares two numbers or two Strings"):
        evaluate(make_comparison("LessThan", left, right), SCOPE)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("Equals", "a condition must be an object, not a String"),
        (make_comparison("Equal", 1, 1), r'type "Equal" does not exist \(did you mean Equals\?\)'),
        ({"Type": ["Equals"]}, "condition type .* does not exist"),
        ({"Type": "Equals", "LeftValue": 1}, "condition Equals lacks the member RightValue"),
        ({**make_comparison("Equals", 1, 1), "Leftvalue": 1}, r'no member "Leftvalue" \(did you mean LeftValue\?\)'),
        ({"Type": "Or", "Conditions": {}}, "member Conditions of a condition must be an array"),
        ({"Type": "Or", "Conditions": [make_comparison("Equal", 1, 1)]}, "did you mean Equals"),
        (make_comparison("Equals", None, 1), "single values, not null"),
        ({"Type": "In", "QueryValue": 1, "Values": [[]]}, "single values, not an array"),
        (make_comparison("Equals", {"a": 1}, 1), "single values, not an object"),
        ({"Type": "Not", "Condition": []}, "a condition must be an object, not an array"),
    ],
)
def test_invalid_condition_is_explained(condition: Any, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        check_condition(condition)
