"""SearchExpression. All its conditions are converted to one function that takes a resource.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_SearchExpression.html
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.search.comparisons import make_test
from microjobs_orchestrator.local.resources.search.properties import (
    Property,
    Structure,
    find_list,
    find_member,
    find_property,
)
from microjobs_orchestrator.local.resources.search.searchable_kinds import SearchableKind

Predicate = Callable[[Structure], bool]
Members = Mapping[str, Any]

MAX_CONDITIONS = 50
"""Maximum number of filters, nested filters and subexpressions in one expression, at all levels."""
CONDITION_LISTS = ("Filters", "NestedFilters", "SubExpressions")


def compile_expression(searchable_kind: SearchableKind, expression: Members) -> Predicate:
    """Return a function that returns whether a resource satisfies an expression.

    Raises:
        ValidationError: the expression is empty or too large, or one of its filters is invalid.
    """
    _check_size(expression)
    return _compile(searchable_kind, expression)


def _check_size(expression: Members) -> None:
    conditions = list(_list_conditions(expression))
    if len(conditions) > MAX_CONDITIONS:
        raise ValidationError(
            f"SearchExpression has {len(conditions)} filters, nested filters and subexpressions; "
            f"at most {MAX_CONDITIONS} are allowed."
        )
    if sum(condition.get("Operator") == "Contains" for condition in conditions) > 1:
        raise ValidationError("'CONTAINS' operator usage limit of 1 exceeded.")


def _list_conditions(expression: Members) -> Iterator[Members]:
    for name in CONDITION_LISTS:
        for condition in expression.get(name, []):
            yield condition
            yield from _list_conditions(condition)


def _compile(searchable_kind: SearchableKind, expression: Members) -> Predicate:
    predicates = [
        *(
            _make_filter(_find_filter_property(searchable_kind, item["Name"]), item)
            for item in expression.get("Filters", [])
        ),
        *(_make_nested_filter(searchable_kind, item) for item in expression.get("NestedFilters", [])),
        *(_compile(searchable_kind, item) for item in expression.get("SubExpressions", [])),
    ]
    if not predicates:
        raise ValidationError(f"SearchExpression is empty: add one of {', '.join(CONDITION_LISTS)}, or leave it out.")
    combine = any if expression.get("Operator", "And") == "Or" else all
    return lambda structure: combine(predicate(structure) for predicate in predicates)


def _find_filter_property(searchable_kind: SearchableKind, name: str) -> Property:
    return find_property(searchable_kind.shape, searchable_kind.strip_inner_member(name))


def _make_filter(filter_property: Property, item: Members) -> Predicate:
    test = make_test(filter_property, item.get("Operator", "Equals"), item.get("Value"))
    return lambda structure: test(filter_property.read(structure))


def _make_nested_filter(searchable_kind: SearchableKind, nested_filter: Members) -> Predicate:
    """Return a function that returns whether at least one item of a list satisfies all filters."""
    items, shape = find_list(
        searchable_kind.shape, searchable_kind.strip_inner_member(nested_filter["NestedPropertyName"])
    )
    names = [
        _strip_list(items.name, searchable_kind.strip_inner_member(item["Name"])) for item in nested_filter["Filters"]
    ]
    pairs = zip(names, nested_filter["Filters"], strict=True)
    predicates = [_make_filter(find_member(shape, name), item) for name, item in pairs]
    return lambda structure: any(all(predicate(item) for predicate in predicates) for item in items.read(structure))


def _strip_list(list_name: str, name: str) -> str:
    prefix = f"{list_name}."
    if not name.startswith(prefix):
        raise ValidationError(f"Filter {name!r} must begin with its NestedPropertyName, as in {prefix + name!r}.")
    return name.removeprefix(prefix)


def compile_visibility(searchable_kind: SearchableKind, conditions: Sequence[Mapping[str, str]]) -> Predicate:
    """Return a function that returns whether a resource satisfies all conditions. Each condition requires that the
    resource has the condition's value for a tag, or does not have this tag.

    Raises:
        ValidationError: a key is not the name of a tag.
    """
    predicates = [_make_visibility_test(searchable_kind, condition) for condition in conditions]
    return lambda structure: all(predicate(structure) for predicate in predicates)


def _make_visibility_test(searchable_kind: SearchableKind, condition: Mapping[str, str]) -> Predicate:
    key, value = condition.get("Key", ""), condition.get("Value", "")
    if not key.removeprefix("Tags.") or not key.startswith("Tags."):
        raise ValidationError(f"VisibilityConditions: Key {key!r} must be 'Tags.' followed by the key of a tag.")
    tag = _find_filter_property(searchable_kind, key)
    return lambda structure: tag.read(structure) in ([], [value])
