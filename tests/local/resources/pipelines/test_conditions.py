"""Conditions: their outcomes and their errors."""

from typing import Any

import pytest

from microjobs_orchestrator.local.resources.pipelines.definition.conditions import check, evaluate
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError
from tests.local.resources.pipelines.scopes import FakeScope

SCOPE = FakeScope(parameters={"loss": 0.5, "limit": 1, "name": "b", "on": True})


def compare(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": left, "RightValue": right}


def get(name: str) -> dict[str, Any]:
    return {"Get": f"Parameters.{name}"}


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        (compare("Equals", get("limit"), 1.0), True),
        (compare("Equals", get("name"), "b"), True),
        (compare("Equals", get("name"), "c"), False),
        (compare("Equals", get("on"), True), True),
        (compare("Equals", get("on"), 1), False),
        (compare("Equals", get("limit"), "1"), False),
        (compare("GreaterThan", get("loss"), get("limit")), False),
        (compare("GreaterThan", 2, get("limit")), True),
        (compare("GreaterThanOrEqualTo", 1, get("limit")), True),
        (compare("LessThan", get("loss"), get("limit")), True),
        (compare("LessThan", 1, get("limit")), False),
        (compare("LessThanOrEqualTo", 1, get("limit")), True),
        (compare("LessThan", "a", get("name")), True),
        ({"Type": "In", "QueryValue": get("name"), "Values": ["a", get("name")]}, True),
        ({"Type": "In", "QueryValue": get("on"), "Values": [1, "true"]}, False),
        ({"Type": "Not", "Condition": compare("Equals", 1, 1)}, False),
        ({"Type": "Or", "Conditions": [compare("Equals", 1, 2), compare("Equals", 1, 1)]}, True),
        ({"Type": "Or", "Conditions": []}, False),
    ],
)
def test_condition_has_an_outcome(condition: dict[str, Any], outcome: bool) -> None:
    check(condition)
    assert evaluate(condition, SCOPE) is outcome


@pytest.mark.parametrize(("left", "right"), [(get("on"), 1), ("a", 1), (get("name"), 0.5)])
def test_values_without_order_are_refused(left: Any, right: Any) -> None:
    with pytest.raises(ExpressionError, match="LessThan compares two numbers or two Strings"):
        evaluate(compare("LessThan", left, right), SCOPE)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("Equals", "a condition must be an object, not a String"),
        (compare("Equal", 1, 1), r'type "Equal" does not exist \(did you mean Equals\?\)'),
        ({"Type": ["Equals"]}, "condition type .* does not exist"),
        ({"Type": "Equals", "LeftValue": 1}, "condition Equals lacks the member RightValue"),
        ({**compare("Equals", 1, 1), "Leftvalue": 1}, r'no member "Leftvalue" \(did you mean LeftValue\?\)'),
        ({"Type": "Or", "Conditions": {}}, "member Conditions of a condition must be an array"),
        ({"Type": "Or", "Conditions": [compare("Equal", 1, 1)]}, "did you mean Equals"),
        (compare("Equals", None, 1), "single values, not null"),
        ({"Type": "In", "QueryValue": 1, "Values": [[]]}, "single values, not an array"),
        (compare("Equals", {"a": 1}, 1), "single values, not an object"),
        ({"Type": "Not", "Condition": []}, "a condition must be an object, not an array"),
    ],
)
def test_invalid_condition_is_explained(condition: Any, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        check(condition)
